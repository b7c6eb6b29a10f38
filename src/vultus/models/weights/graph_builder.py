"""Builder of ONNX graphs, so that the file of each network reads like a list of its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vultus.models.weights.graph_preparation import replace_prelus

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPSET = 17
TensorShape = tuple[int | str, ...]


class GraphBuilder:
    """Collects nodes and constants; every `add_` method returns the name of a tensor.

    Tensors between layers are float32 (batch, channels, height, width).
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []

    def add_node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output."""
        output = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def add_constant(self, values: NDArray[Any]) -> str:
        """Add a constant tensor."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def add_pixel_conversion(self, images: str) -> str:
        """Convert uint8 (batch, height, width, 3) to float32 (batch, 3, height, width), values 0..255."""
        return self.add_node("Transpose", self.add_node("Cast", images, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])

    def add_convolution(
        self, tensor: str, kernels: NDArray[Any], biases: NDArray[Any], *, stride: int = 1, padding: int = 0
    ) -> str:
        """Add a convolution with (out, in, height, width) kernels and (out,) biases."""
        return self.add_node(
            "Conv",
            tensor,
            self.add_constant(kernels.astype(np.float32)),
            self.add_constant(biases.astype(np.float32)),
            kernel_shape=list(kernels.shape[2:]),
            strides=[stride, stride],
            pads=[padding] * 4,
        )

    def add_prelu(self, tensor: str, slopes: NDArray[Any]) -> str:
        """Add a PReLU with (channels,) slopes; it is built as `replace_prelus` writes it."""
        return self.add_node("PRelu", tensor, self.add_constant(slopes.astype(np.float32).reshape(-1, 1, 1)))

    def build_graph(
        self, name: str, inputs: dict[str, tuple[int, TensorShape]], outputs: dict[str, tuple[str, TensorShape]]
    ) -> bytes:
        """Return the serialised graph.

        Args:
            name: Of the graph.
            inputs: Name → (element type, shape); a string in a shape is a dynamic dimension.
            outputs: Name → (tensor, shape); float32.
        """
        ends = [helper.make_node("Identity", [tensor], [output]) for output, (tensor, _) in outputs.items()]
        graph = helper.make_graph(
            [*self._nodes, *ends],
            name,
            [helper.make_tensor_value_info(key, kind, shape) for key, (kind, shape) in inputs.items()],
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, (_, shape) in outputs.items()],
            self._constants,
        )
        replace_prelus(graph)
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
        mean: (in,) of each channel.
        divisor: Of the normalisation.
    """
    scaled = kernels.astype(np.float64) / divisor
    return scaled, biases.astype(np.float64) - np.einsum("oihw,i->o", scaled, mean.astype(np.float64))
