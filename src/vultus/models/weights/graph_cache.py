"""A small builder of ONNX graphs, so that each network's file reads like its layer list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPSET = 17
Shape = tuple[int | str, ...]


class GraphBuilder:
    """Collects nodes and constants; every method returns the name of a tensor.

    Tensors between layers are float32 (batch, channels, height, width).
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output."""
        output = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values: NDArray[Any]) -> str:
        """Add a constant tensor."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def pixels(self, images: str) -> str:
        """Turn uint8 (batch, height, width, 3) into float32 (batch, 3, height, width), values 0..255."""
        return self.node("Transpose", self.node("Cast", images, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])

    def convolution(
        self, tensor: str, kernels: NDArray[Any], biases: NDArray[Any], *, stride: int = 1, padding: int = 0
    ) -> str:
        """Add a convolution with (out, in, height, width) kernels and (out,) biases."""
        return self.node(
            "Conv",
            tensor,
            self.constant(kernels.astype(np.float32)),
            self.constant(biases.astype(np.float32)),
            kernel_shape=list(kernels.shape[2:]),
            strides=[stride, stride],
            pads=[padding] * 4,
        )

    def build(self, name: str, inputs: dict[str, tuple[int, Shape]], outputs: dict[str, tuple[str, Shape]]) -> bytes:
        """Return the serialised graph.

        Args:
            name: Of the graph.
            inputs: Name → (element type, shape); a word in a shape is a free dimension.
            outputs: Name → (tensor, shape); float32.
        """
        ends = [helper.make_node("Identity", [tensor], [output]) for output, (tensor, _) in outputs.items()]
        graph = helper.make_graph(
            [*self._nodes, *ends],
            name,
            [helper.make_tensor_value_info(word, kind, shape) for word, (kind, shape) in inputs.items()],
            [helper.make_tensor_value_info(word, TensorProto.FLOAT, shape) for word, (_, shape) in outputs.items()],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))


def fold_normalisation(
    kernels: NDArray[Any], biases: NDArray[Any], mean: NDArray[Any], divisor: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return kernels and biases that take raw pixels instead of (pixel − mean) / divisor.

    Exact only for a convolution without padding: padded zeros would not be normalised.

    Args:
        kernels: (out, in, height, width).
        biases: (out,).
        mean: (in,) subtracted from each channel.
        divisor: What the difference was divided by.
    """
    wide = kernels.astype(np.float64) / divisor
    return wide, biases.astype(np.float64) - np.einsum("oihw,i->o", wide, mean.astype(np.float64))
