"""Networks of one layer with the inputs and outputs of published detectors: a cell's score is its brightness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence


class Heads:
    """A graph under construction; takes float32 (1, 3, height, width)."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []
        self._outputs: list[str] = []

    def _add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, list(inputs), [f"t{len(self._nodes)}"], **attributes))
        return f"t{len(self._nodes) - 1}"

    def _constant(self, values: Any, dtype: Any = np.float32) -> str:
        self._constants.append(numpy_helper.from_array(np.array(values, dtype), f"c{len(self._constants)}"))
        return f"c{len(self._constants) - 1}"

    def grid(self, stride: int, biases: Sequence[float], gains: Sequence[float] | None = None) -> str:
        """Return (1, numbers, rows, columns): per cell, a bias plus a gain times the mean of its pixels."""
        mean = self._add("AveragePool", "input", kernel_shape=[stride, stride], strides=[stride, stride])
        kernels = np.repeat(np.array(gains or [0.0] * len(biases))[:, None], 3, axis=1)[..., None, None] / 3
        return self._add("Conv", mean, self._constant(kernels), self._constant(biases))

    def rows(self, grid: str, shape: list[int]) -> str:
        """Return a grid as (cells, numbers) outputs, row by row."""
        return self._add("Reshape", self._add("Transpose", grid, perm=[0, 2, 3, 1]), self._constant(shape, np.int64))

    def sigmoid(self, tensor: str) -> str:
        """Return the logistic function of a tensor."""
        return self._add("Sigmoid", tensor)

    def softmax(self, tensor: str) -> str:
        """Return the softmax over the last dimension."""
        return self._add("Softmax", tensor, axis=-1)

    def joined(self, *tensors: str) -> str:
        """Concatenate the outputs of several grids along the cells."""
        return self._add("Concat", *tensors, axis=-2)

    def answer(self, tensor: str) -> None:
        """Add a tensor as the next output."""
        self._outputs.append(tensor)

    def build(self, side: int | None = None) -> bytes:
        """Return the file.

        Args:
            side: The fixed input size that the file declares; any size unless given.
        """
        sides: list[int | str] = ["height", "width"] if side is None else [side, side]
        graph = helper.make_graph(
            self._nodes,
            "heads",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *sides])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self._outputs],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return bytes(model.SerializeToString())
