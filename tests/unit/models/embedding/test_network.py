"""Crops are preprocessed as in training, and outputs become unit vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from vultus.domain import FloatArray
from vultus.models.embedding.inputs import DLIB
from vultus.models.embedding.network import MAX_BATCH, CropInput, NetworkEmbedder
from vultus.models.runtime import OnnxSession
from vultus.models.weights.graph_builder import GraphBuilder

SIDE = 4
COLOUR = (10, 60, 200)


def means(layout: str = "NCHW") -> OnnxSession:
    """A network whose vector is the mean of each channel, in the order in which they arrive."""
    graph = GraphBuilder()
    nchw = layout == "NCHW"
    tensor = "crops" if nchw else graph.add_node("Transpose", "crops", perm=[0, 3, 1, 2])
    vectors = graph.add_node("Flatten", graph.add_node("GlobalAveragePool", tensor), axis=1)
    shape = ("n", 3, SIDE, SIDE) if nchw else ("n", SIDE, SIDE, 3)
    return OnnxSession(graph.build_graph("means", {"crops": (TensorProto.FLOAT, shape)}, {"v": (vectors, ("n", 3))}))


def columns() -> OnnxSession:
    """A network whose vector is the mean of each column, from left to right."""
    graph = GraphBuilder()
    vectors = graph.add_node("ReduceMean", "crops", axes=[1, 2], keepdims=0)
    shape = ("n", 3, SIDE, SIDE)
    return OnnxSession(
        graph.build_graph("columns", {"crops": (TensorProto.FLOAT, shape)}, {"v": (vectors, ("n", SIDE))})
    )


def unit(values: Any) -> FloatArray:
    array = np.array(values, np.float32)
    array /= np.linalg.norm(array, axis=-1, keepdims=True)
    return array


def noise(count: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, 2, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("spec", "arriving"),
    [
        (CropInput(SIDE, 3), COLOUR),
        (CropInput(SIDE, 3, order="BGR"), COLOUR[::-1]),
        (CropInput(SIDE, 3, mean=127.5, deviation=127.5, order="BGR"), (145 / 255, -135 / 255, -235 / 255)),
        (CropInput(SIDE, 3, mean=(9, 58, 197), deviation=(1, 2, 4)), (1, 1, 3 / 4)),
        (CropInput(SIDE, 3, mean=(9, 58, 197), deviation=(1, 2, 4), order="BGR", layout="NHWC"), (3 / 4, 1, 1)),
    ],
)
def test_colours_arrive_normalised_and_in_the_order_the_network_expects(
    spec: CropInput, arriving: tuple[float, float, float]
) -> None:
    chips = np.full((1, 1, SIDE, SIDE, 3), COLOUR, np.uint8)

    (vector,) = NetworkEmbedder(means(spec.layout), spec).embed(chips)

    np.testing.assert_allclose(vector, unit(arriving), atol=1e-6)


def test_rows_and_columns_stay_where_they_are() -> None:
    chips = np.zeros((1, 1, SIDE, SIDE, 3), np.uint8)
    chips[0, 0, 1, 3] = 100

    (vector,) = NetworkEmbedder(columns(), CropInput(SIDE, SIDE)).embed(chips)

    np.testing.assert_allclose(vector, [0, 0, 0, 1])


def test_a_vector_averages_the_views_of_its_face_and_no_others() -> None:
    chips = noise(MAX_BATCH + 3)

    vectors = NetworkEmbedder(columns(), CropInput(SIDE, SIDE)).embed(chips)

    np.testing.assert_allclose(vectors, unit(chips.astype(float).mean(axis=(1, 2, 4))), atol=1e-6)


def test_no_crops_give_no_vectors() -> None:
    vectors = NetworkEmbedder(columns(), CropInput(SIDE, SIDE)).embed(noise(0))

    assert vectors.shape == (0, SIDE)


def test_the_input_description_names_everything_that_changes_a_vector() -> None:
    assert DLIB.description == "RGB; Umeyama, bilinear"
    plain = CropInput(SIDE, 3, mean=(9, 58, 197), deviation=2, order="BGR")
    assert plain.description == "BGR minus (9, 58, 197) over 2; Umeyama, bilinear"
