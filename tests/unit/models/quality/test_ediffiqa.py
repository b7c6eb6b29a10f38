"""Input and output of the quality network, with a graph of the published one's shape."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from vultus.models.quality.ediffiqa import Ediffiqa
from vultus.models.runtime import OnnxSession
from vultus.models.weights.graph_builder import GraphBuilder

FACTORS = np.array([[0.5], [0.2], [0.1]], np.float32)


@pytest.fixture(scope="module")
def network() -> Ediffiqa:
    """Half of the mean red plus a fifth of the green and a tenth of the blue, plus 0.3; a batch of one."""
    graph = GraphBuilder()
    means = graph.add_node("Flatten", graph.add_node("GlobalAveragePool", "input"), axis=1)
    score = graph.add_node("Gemm", means, graph.add_constant(FACTORS), graph.add_constant(np.array([0.3], np.float32)))
    shape = (TensorProto.FLOAT, (1, 3, 112, 112))
    return Ediffiqa(OnnxSession(graph.build_graph("quality", {"input": shape}, {"output": (score, (1, 1))})))


def chip(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((112, 112, 3), (red, green, blue), np.uint8)


def test_crops_are_scored_in_order_from_red_green_blue_between_minus_one_and_one(network: Ediffiqa) -> None:
    scores = network.score_chips(np.stack([chip(255, 0, 0), chip(0, 255, 255), chip(0, 255, 0)]))

    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [0.3 + 0.5 - 0.2 - 0.1, 0.3 - 0.5 + 0.2 + 0.1, 0], atol=1e-6)


def test_scores_are_clipped_to_zero_and_one(network: Ediffiqa) -> None:
    np.testing.assert_array_equal(network.score_chips(np.stack([chip(0, 0, 0), chip(255, 255, 255)])), [0, 1])


def test_no_crops_no_scores(network: Ediffiqa) -> None:
    assert network.score_chips(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0,)
