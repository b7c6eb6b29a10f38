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


def test_bytes_that_are_no_graph_are_a_set_up_error() -> None:
    with pytest.raises(WeightsError, match="cannot load"):
        OnnxSession(b"no graph")
