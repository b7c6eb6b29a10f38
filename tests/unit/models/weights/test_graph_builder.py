"""Graphs compute what the builder's methods state."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from vultus.models.runtime import OnnxSession
from vultus.models.weights.graph_builder import GraphBuilder, fold_normalisation


def test_folded_normalisation_equals_normalising_first() -> None:
    rng = np.random.default_rng(1)
    kernels, biases = rng.normal(size=(4, 3, 5, 5)), rng.normal(size=4)
    mean, images = np.array([120.0, 110, 100]), rng.integers(0, 256, (2, 9, 8, 3)).astype(np.uint8)
    graph = GraphBuilder()
    folded = graph.add_convolution(
        graph.add_pixel_conversion("images"), *fold_normalisation(kernels, biases, mean, 128)
    )
    model = graph.build_graph(
        "folded", {"images": (TensorProto.UINT8, ("n", 9, 8, 3))}, {"out": (folded, ("n", 4, 5, 4))}
    )

    (found,) = OnnxSession(model).run(images)

    windows = np.lib.stride_tricks.sliding_window_view((images - mean) / 128, (5, 5), axis=(1, 2))
    expected = np.einsum("nhwiyx,oiyx->nohw", windows, kernels) + biases[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("slopes", [(0.0, 0.25, 1.0), (-0.5, 0.25, 1.5)])
def test_a_prelu_multiplies_what_is_negative_by_its_channels_slope(slopes: tuple[float, ...]) -> None:
    tensor = np.random.default_rng(2).normal(size=(2, 3, 4, 5)).astype(np.float32)
    graph = GraphBuilder()
    out = graph.add_prelu("x", np.array(slopes))
    model = graph.build_graph("prelu", {"x": (TensorProto.FLOAT, ("n", 3, 4, 5))}, {"y": (out, ("n", 3, 4, 5))})

    (found,) = OnnxSession(model).run(tensor)

    expected = np.where(tensor > 0, tensor, tensor * np.array(slopes)[:, None, None])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_same_layers_serialise_to_the_same_bytes() -> None:
    def build() -> bytes:
        graph = GraphBuilder()
        out = graph.add_node("Add", "x", graph.add_constant(np.ones(1, np.float32)))
        return graph.build_graph("same", {"x": (TensorProto.FLOAT, (1,))}, {"y": (out, (1,))})

    assert build() == build()
