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
from vultus.models.weights.graph_builder import GraphBuilder, TensorShape, fold_normalisation

if TYPE_CHECKING:
    from collections.abc import Iterator

PIXEL_MEAN = np.full(3, 127.5)
PIXEL_DIVISOR = 128.0

CHANNEL_MULTIPLE = 16
"""Channels that ONNX Runtime computes together; it is slow for numbers of channels that are not a multiple of this."""

Array = NDArray[Any]


class _MtcnnGraphBuilder:
    """Builds layers of a graph from the arrays, in their order."""

    def __init__(self, weights: bytes) -> None:
        # joblib files are pickles, which run code when loaded. The store has verified the file's SHA-256 against the
        # catalogue, so only the published file is ever unpickled.
        self._arrays: Iterator[Array] = iter(joblib.load(io.BytesIO(weights)))
        self.graph = GraphBuilder()

    def _read_array(self, *dimensions: int) -> Array:
        array = next(self._arrays, None)
        if array is None or array.ndim not in dimensions:
            raise _build_weights_error("a layer is missing or has another shape")
        return array

    def read_kernels(self, *, wide: bool = True) -> tuple[Array, Array]:
        """Return the next convolution's kernels as (out, in, height, width), and its biases.

        With `wide`, outputs are zero-padded to a multiple of `CHANNEL_MULTIPLE`.
        """
        kernels, biases = self._read_array(4).transpose(3, 2, 0, 1), self._read_array(1)
        outputs = -len(biases) % CHANNEL_MULTIPLE if wide else 0
        inputs = 0 if kernels.shape[1] == len(PIXEL_MEAN) else -kernels.shape[1] % CHANNEL_MULTIPLE
        return np.pad(kernels, ((0, outputs), (0, inputs), (0, 0), (0, 0))), np.pad(biases, (0, outputs))

    def add_input_convolution(self, images: str) -> str:
        """Add the first convolution, which takes raw pixels, with its PReLU."""
        kernels, biases = fold_normalisation(*self.read_kernels(), PIXEL_MEAN, PIXEL_DIVISOR)
        return self.add_prelu(self.graph.add_convolution(self.graph.add_pixel_conversion(images), kernels, biases))

    def add_convolution(self, tensor: str) -> str:
        """Add a convolution with its PReLU."""
        return self.add_prelu(self.graph.add_convolution(tensor, *self.read_kernels()))

    def add_prelu(self, tensor: str) -> str:
        """Add a PReLU with one slope per channel."""
        slopes = self._read_array(1, 3)  # (channels,) after a dense layer, (1, 1, channels) after a convolution
        if slopes.ndim == 1:
            return self.graph.add_node("PRelu", tensor, self.graph.add_constant(slopes))
        return self.graph.add_prelu(tensor, np.pad(slopes.reshape(-1), (0, -slopes.size % CHANNEL_MULTIPLE)))

    def add_pooling(self, tensor: str, size: int, *, same: bool) -> str:
        """Add a max-pooling of stride 2; with `same` the last window may extend past the edge."""
        padding = {"auto_pad": "SAME_UPPER"} if same else {}
        return self.graph.add_node("MaxPool", tensor, kernel_shape=[size, size], strides=[2, 2], **padding)

    def add_flattening(self, tensor: str) -> str:
        """Flatten width first, then height, then channels: the order the dense weights were trained with."""
        return self.graph.add_node("Flatten", self.graph.add_node("Transpose", tensor, perm=[0, 3, 2, 1]), axis=1)

    def add_dense_layer(self, tensor: str) -> str:
        """Add a dense layer."""
        return self.graph.add_node(
            "Gemm", tensor, self.graph.add_constant(self._read_array(2)), self.graph.add_constant(self._read_array(1))
        )

    def add_face_score(self, tensor: str, *, convolve: bool = False) -> str:
        """Add the layer of two classes, no face and face; return the probability of the second.

        A softmax over two classes is the logistic function of their difference, so one output is enough.
        """
        weights, biases = self._read_array(4 if convolve else 2), self._read_array(1)
        weights, biases = weights[..., 1:] - weights[..., :1], biases[1:] - biases[:1]
        if convolve:
            difference = self.graph.add_convolution(tensor, weights.transpose(3, 2, 0, 1), biases)
        else:
            difference = self.graph.add_node(
                "Gemm", tensor, self.graph.add_constant(weights), self.graph.add_constant(biases)
            )
        flat = self.graph.add_node("Squeeze", difference, self.graph.add_constant(np.array([1], dtype=np.int64)))
        return self.graph.add_node("Sigmoid", flat)


def _build_weights_error(reason: str) -> WeightsError:
    return WeightsError(f"The MTCNN weights cannot be read: {reason}. Reinstall mtcnn==1.0.0.")


def build_pnet(weights: bytes) -> bytes:
    """Return the proposal network.

    Input: uint8 (n, height, width, 3), RGB, both sides at least 12. Outputs: float32 scores (n, rows, columns) and
    side offsets (n, 4, rows, columns); cell (row, column) covers the 12 × 12 pixels from (2·row, 2·column) on.
    """
    layers = _MtcnnGraphBuilder(weights)
    tensor = layers.add_pooling(layers.add_input_convolution("images"), 2, same=True)
    tensor = layers.add_convolution(layers.add_convolution(tensor))
    offsets = layers.graph.add_convolution(tensor, *layers.read_kernels(wide=False))
    scores = layers.add_face_score(tensor, convolve=True)
    free: TensorShape = ("rows", "columns")
    return layers.graph.build_graph(
        "mtcnn_pnet",
        {"images": (TensorProto.UINT8, ("n", "height", "width", 3))},
        {"scores": (scores, ("n", *free)), "offsets": (offsets, ("n", 4, *free))},
    )


def build_rnet(weights: bytes) -> bytes:
    """Return the refinement network.

    Input: uint8 (n, 24, 24, 3), RGB. Outputs: float32 scores (n,) and side offsets (n, 4).
    """
    layers = _MtcnnGraphBuilder(weights)
    tensor = layers.add_pooling(layers.add_input_convolution("images"), 3, same=True)
    tensor = layers.add_pooling(layers.add_convolution(tensor), 3, same=False)
    tensor = layers.add_prelu(layers.add_dense_layer(layers.add_flattening(layers.add_convolution(tensor))))
    offsets = layers.add_dense_layer(tensor)
    scores = layers.add_face_score(tensor)
    return layers.graph.build_graph(
        "mtcnn_rnet",
        {"images": (TensorProto.UINT8, ("n", 24, 24, 3))},
        {"scores": (scores, ("n",)), "offsets": (offsets, ("n", 4))},
    )


def build_onet(weights: bytes) -> bytes:
    """Return the output network.

    Input: uint8 (n, 48, 48, 3), RGB. Outputs: float32 scores (n,), side offsets (n, 4) and landmarks (n, 10): five x,
    then five y, as fractions of the box's width and height.
    """
    layers = _MtcnnGraphBuilder(weights)
    tensor = layers.add_pooling(layers.add_input_convolution("images"), 3, same=True)
    tensor = layers.add_pooling(layers.add_convolution(tensor), 3, same=False)
    tensor = layers.add_pooling(layers.add_convolution(tensor), 2, same=True)
    tensor = layers.add_prelu(layers.add_dense_layer(layers.add_flattening(layers.add_convolution(tensor))))
    offsets = layers.add_dense_layer(tensor)
    landmarks = layers.add_dense_layer(tensor)
    scores = layers.add_face_score(tensor)
    return layers.graph.build_graph(
        "mtcnn_onet",
        {"images": (TensorProto.UINT8, ("n", 48, 48, 3))},
        {"scores": (scores, ("n",)), "offsets": (offsets, ("n", 4)), "landmarks": (landmarks, ("n", 10))},
    )
