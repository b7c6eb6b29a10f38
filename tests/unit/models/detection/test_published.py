"""Published graphs take raw pixels of any size and compute what their publishers' code does."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from tests.heads import Heads

from vultus.errors import WeightsError
from vultus.models.detection.published import convert_to_pixel_input
from vultus.models.runtime import OnnxSession
from vultus.models.weights.graph_builder import GraphBuilder


@pytest.mark.parametrize("side", [None, 640])
def test_pixels_are_prepared_as_the_publisher_does(side: int | None) -> None:
    heads = Heads()
    heads.answer("input")
    image = np.random.default_rng(1).integers(0, 256, (1, 6, 8, 3)).astype(np.uint8)

    graph = convert_to_pixel_input(heads.build(side), bgr=True, mean=[104, 117, 123], divisor=128)
    (found,) = OnnxSession(graph).run(image)

    expected = (image[..., ::-1] - np.array([104.0, 117, 123])) / 128
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_what_is_no_network_over_images_is_refused() -> None:
    graph = GraphBuilder()
    vectors = graph.build_graph("v", {"x": (TensorProto.FLOAT, (1, 4))}, {"y": (graph.add_node("Relu", "x"), (1, 4))})

    with pytest.raises(WeightsError, match="no ONNX graph"):
        convert_to_pixel_input(b"<html>")
    with pytest.raises(WeightsError, match="does not take"):
        convert_to_pixel_input(vectors)
