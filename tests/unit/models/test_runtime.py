"""Sessions run graphs on one thread each."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from vultus.errors import WeightsError
from vultus.models.graphs import GraphBuilder
from vultus.models.runtime import OnnxSession


def test_outputs_come_in_the_order_of_the_graph() -> None:
    graph = GraphBuilder()
    double = graph.node("Add", "x", "x")
    square = graph.node("Mul", "x", "x")
    model = graph.build(
        "two", {"x": (TensorProto.FLOAT, ("n",))}, {"double": (double, ("n",)), "square": (square, ("n",))}
    )

    outputs = OnnxSession(model).run(np.array([3.0, 5.0], np.float32))

    np.testing.assert_array_equal(outputs, [[6, 10], [9, 25]])


@pytest.mark.parametrize("batch", ["n", 1, 2, 5, 8])
def test_any_number_of_images_runs_in_a_graph_made_for_a_fixed_one(batch: int | str) -> None:
    graph = GraphBuilder()
    double, sums = graph.node("Add", "x", "x"), graph.node("ReduceSum", "x", graph.constant(np.array([1])))
    model = graph.build(
        "two", {"x": (TensorProto.FLOAT, (batch, 3))}, {"double": (double, (batch, 3)), "sums": (sums, (batch, 1))}
    )
    values = np.arange(15, dtype=np.float32).reshape(5, 3)

    doubled, summed = OnnxSession(model).run(values)

    np.testing.assert_array_equal(doubled, 2 * values)
    np.testing.assert_array_equal(summed, values.sum(axis=1, keepdims=True))


def test_bytes_that_are_no_graph_are_a_set_up_error() -> None:
    with pytest.raises(WeightsError, match="cannot load"):
        OnnxSession(b"no graph")
