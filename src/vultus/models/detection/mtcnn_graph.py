"""The three networks of MTCNN as ONNX graphs, from the weights of the `mtcnn` package.

Zhang, Zhang, Li, Qiao (2016), "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
IEEE Signal Processing Letters 23(10). Weights: lists of float arrays, kernels as (height, width, in, out), dense
matrices as (in, out).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from vultus.errors import WeightsError
from vultus.models.weights.graph_cache import GraphBuilder, Shape, fold_normalisation

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILDER_VERSION = 2
PIXEL_MEAN = np.full(3, 127.5)
PIXEL_DIVISOR = 128.0

WIDTH = 16
"""Channels ONNX Runtime computes side by side; it is slow at numbers that are no multiple of it."""

Array = NDArray[Any]


class _Layers:
    """Takes the arrays in order and turns them into layers of a graph."""

    def __init__(self, weights: bytes) -> None:
        # joblib files are pickles, which run code when loaded: the store has compared the file's SHA-256 with the
        # catalog's before these bytes came here, so only the exact published file is ever unpickled.
        self._arrays: Iterator[Array] = iter(joblib.load(io.BytesIO(weights)))
        self.graph = GraphBuilder()

    def _take(self, *dimensions: int) -> Array:
        array = next(self._arrays, None)
        if array is None or array.ndim not in dimensions:
            raise _unexpected("a layer is missing or has another shape")
        return array

    def kernels(self, *, wide: bool = True) -> tuple[Array, Array]:
        """Return the next convolution's kernels as (out, in, height, width), and its biases.

        With `wide`, channels of zeros fill the outputs up to a multiple of `WIDTH`.
        """
        kernels, biases = self._take(4).transpose(3, 2, 0, 1), self._take(1)
        outputs = -len(biases) % WIDTH if wide else 0
        inputs = 0 if kernels.shape[1] == len(PIXEL_MEAN) else -kernels.shape[1] % WIDTH
        return np.pad(kernels, ((0, outputs), (0, inputs), (0, 0), (0, 0))), np.pad(biases, (0, outputs))

    def first(self, images: str) -> str:
        """Add the first convolution, which takes raw pixels, with its PReLU."""
        kernels, biases = fold_normalisation(*self.kernels(), PIXEL_MEAN, PIXEL_DIVISOR)
        return self.prelu(self.graph.convolution(self.graph.pixels(images), kernels, biases))

    def convolution(self, tensor: str) -> str:
        """Add a convolution with its PReLU."""
        return self.prelu(self.graph.convolution(tensor, *self.kernels()))

    def prelu(self, tensor: str) -> str:
        """Add a PReLU with one slope a channel, written as slope · x + (1 − slope) · max(x, 0).

        ONNX Runtime computes its PRelu operator more slowly than these four.
        """
        slopes = self._take(1, 3)  # (channels,) after a dense layer, (1, 1, channels) after a convolution
        if slopes.ndim > 1:
            slopes = slopes.reshape(-1, 1, 1)
            slopes = np.pad(slopes, ((0, -len(slopes) % WIDTH), (0, 0), (0, 0)))
        everywhere = self.graph.node("Mul", tensor, self.graph.constant(slopes))
        positive = self.graph.node("Mul", self.graph.node("Relu", tensor), self.graph.constant(1 - slopes))
        return self.graph.node("Add", everywhere, positive)

    def pool(self, tensor: str, size: int, *, same: bool) -> str:
        """Add a max-pooling of stride 2; `same` lets the last window reach past the edge."""
        padding = {"auto_pad": "SAME_UPPER"} if same else {}
        return self.graph.node("MaxPool", tensor, kernel_shape=[size, size], strides=[2, 2], **padding)

    def flatten(self, tensor: str) -> str:
        """Flatten width first, then height, then channels: the order the dense weights were trained with."""
        return self.graph.node("Flatten", self.graph.node("Transpose", tensor, perm=[0, 3, 2, 1]), axis=1)

    def dense(self, tensor: str) -> str:
        """Add a dense layer."""
        return self.graph.node("Gemm", tensor, self.graph.constant(self._take(2)), self.graph.constant(self._take(1)))

    def face_score(self, tensor: str, *, convolve: bool = False) -> str:
        """Add the layer of two classes, not face and face; return the probability of the second.

        A softmax over two classes is the logistic function of their difference, so one output is enough.
        """
        weights, biases = self._take(4 if convolve else 2), self._take(1)
        weights, biases = weights[..., 1:] - weights[..., :1], biases[1:] - biases[:1]
        if convolve:
            difference = self.graph.convolution(tensor, weights.transpose(3, 2, 0, 1), biases)
        else:
            difference = self.graph.node("Gemm", tensor, self.graph.constant(weights), self.graph.constant(biases))
        flat = self.graph.node("Squeeze", difference, self.graph.constant(np.array([1], dtype=np.int64)))
        return self.graph.node("Sigmoid", flat)


def _unexpected(what: str) -> WeightsError:
    return WeightsError(f"The MTCNN weights cannot be read: {what}. Reinstall mtcnn==1.0.0.")


def build_pnet(weights: bytes) -> bytes:
    """Return the proposal network.

    Input: uint8 (n, height, width, 3), RGB, both sides at least 12. Outputs: float32 scores (n, rows, columns) and
    side offsets (n, 4, rows, columns); cell (row, column) looks at the 12 × 12 pixels from (2·row, 2·column) on.
    """
    layers = _Layers(weights)
    tensor = layers.pool(layers.first("images"), 2, same=True)
    tensor = layers.convolution(layers.convolution(tensor))
    offsets = layers.graph.convolution(tensor, *layers.kernels(wide=False))
    scores = layers.face_score(tensor, convolve=True)
    free: Shape = ("rows", "columns")
    return layers.graph.build(
        "mtcnn_pnet",
        {"images": (TensorProto.UINT8, ("n", "height", "width", 3))},
        {"scores": (scores, ("n", *free)), "offsets": (offsets, ("n", 4, *free))},
    )


def build_rnet(weights: bytes) -> bytes:
    """Return the refinement network.

    Input: uint8 (n, 24, 24, 3), RGB. Outputs: float32 scores (n,) and side offsets (n, 4).
    """
    layers = _Layers(weights)
    tensor = layers.pool(layers.first("images"), 3, same=True)
    tensor = layers.pool(layers.convolution(tensor), 3, same=False)
    tensor = layers.prelu(layers.dense(layers.flatten(layers.convolution(tensor))))
    offsets = layers.dense(tensor)
    scores = layers.face_score(tensor)
    return layers.graph.build(
        "mtcnn_rnet",
        {"images": (TensorProto.UINT8, ("n", 24, 24, 3))},
        {"scores": (scores, ("n",)), "offsets": (offsets, ("n", 4))},
    )


def build_onet(weights: bytes) -> bytes:
    """Return the output network.

    Input: uint8 (n, 48, 48, 3), RGB. Outputs: float32 scores (n,), side offsets (n, 4) and landmarks (n, 10): five x,
    then five y, as fractions of the box's width and height.
    """
    layers = _Layers(weights)
    tensor = layers.pool(layers.first("images"), 3, same=True)
    tensor = layers.pool(layers.convolution(tensor), 3, same=False)
    tensor = layers.pool(layers.convolution(tensor), 2, same=True)
    tensor = layers.prelu(layers.dense(layers.flatten(layers.convolution(tensor))))
    offsets = layers.dense(tensor)
    landmarks = layers.dense(tensor)
    scores = layers.face_score(tensor)
    return layers.graph.build(
        "mtcnn_onet",
        {"images": (TensorProto.UINT8, ("n", 48, 48, 3))},
        {"scores": (scores, ("n",)), "offsets": (offsets, ("n", 4)), "landmarks": (landmarks, ("n", 10))},
    )
