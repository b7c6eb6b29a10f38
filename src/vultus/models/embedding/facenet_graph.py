"""FaceNet as an ONNX graph, from the state dict that facenet-pytorch publishes.

The loss is that of Schroff, Kalenichenko, Philbin (2015), "FaceNet: A Unified Embedding for Face Recognition and
Clustering"; the network is the Inception-ResNet-v1 of Szegedy, Ioffe, Vanhoucke, Alemi (2017), "Inception-v4,
Inception-ResNet and the Impact of Residual Connections on Learning", figures 10 to 14. Here every layer's width comes
from the weights; the code says how layers are connected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from vultus.errors import WeightsError
from vultus.models.weights.graph_cache import GraphBuilder, fold_normalisation
from vultus.models.weights.state_dicts import read_state_dict

if TYPE_CHECKING:
    from collections.abc import Iterable

BUILDER_VERSION = 1
SIDE = 160
PIXEL_MEAN = np.full(3, 127.5)
PIXEL_DIVISOR = 128.0
EPSILON = 0.001

Array = NDArray[Any]


class _Network:
    """Builds the graph while taking tensors out of the state dict."""

    def __init__(self, weights: bytes) -> None:
        self._tensors = read_state_dict(weights)
        self.graph = GraphBuilder()

    def _take(self, name: str) -> Array:
        if name not in self._tensors:
            raise WeightsError(f"The FaceNet weights cannot be used: the tensor {name} is missing.")
        return self._tensors[name].astype(np.float64)

    def _folded(self, kernels: Array, name: str) -> tuple[Array, Array]:
        """Return kernels and biases that do what follows them, a normalisation over the batch, as well."""
        factor = self._take(f"{name}.weight") / np.sqrt(self._take(f"{name}.running_var") + EPSILON)
        biases = self._take(f"{name}.bias") - self._take(f"{name}.running_mean") * factor
        return kernels * factor.reshape(-1, *[1] * (kernels.ndim - 1)), biases

    def _convolve(self, tensor: str, kernels: Array, biases: Array, *, stride: int = 1, padded: bool = True) -> str:
        high, wide = kernels.shape[2:]
        return self.graph.node(
            "Conv",
            tensor,
            self.graph.constant(kernels.astype(np.float32)),
            self.graph.constant(biases.astype(np.float32)),
            kernel_shape=[high, wide],
            strides=[stride, stride],
            pads=[high // 2, wide // 2] * 2 if padded else [0] * 4,
        )

    def layer(self, tensor: str, name: str, *, stride: int = 1, padded: bool = True, pixels: bool = False) -> str:
        """Add a convolution with its normalisation and a ReLU; with `pixels` that of the input is folded in too."""
        kernels, biases = self._folded(self._take(f"{name}.conv.weight"), f"{name}.bn")
        if pixels:
            kernels, biases = fold_normalisation(kernels, biases, PIXEL_MEAN, PIXEL_DIVISOR)
        return self.graph.node("Relu", self._convolve(tensor, kernels, biases, stride=stride, padded=padded))

    def pool(self, tensor: str) -> str:
        """Add the pooling that halves the resolution."""
        return self.graph.node("MaxPool", tensor, kernel_shape=[3, 3], strides=[2, 2])

    def branches(self, tensor: str, name: str, depths: Iterable[int], *, last_stride: int = 1) -> list[str]:
        """Add chains of layers side by side; return their ends.

        Args:
            tensor: What all chains start from.
            name: Of the block.
            depths: Layers of each chain; the name of a lone layer has no number.
            last_stride: Of each chain's last layer; a stride of 2 does not pad.
        """
        ends = []
        for at, depth in enumerate(depths):
            end = tensor
            for layer in range(depth):
                path = f"{name}.branch{at}" if depth == 1 else f"{name}.branch{at}.{layer}"
                stride = last_stride if layer == depth - 1 else 1
                end = self.layer(end, path, stride=stride, padded=stride == 1)
            ends.append(end)
        return ends

    def residual(self, tensor: str, name: str, depths: Iterable[int], scale: float, *, relu: bool = True) -> str:
        """Add chains, joined and brought back to the width of their input, times `scale`, to their input."""
        joined = self.graph.node("Concat", *self.branches(tensor, name, depths), axis=1)
        kernels, biases = self._take(f"{name}.conv2d.weight"), self._take(f"{name}.conv2d.bias")
        total = self.graph.node("Add", self._convolve(joined, kernels * scale, biases * scale), tensor)
        return self.graph.node("Relu", total) if relu else total

    def reduction(self, tensor: str, name: str, depths: Iterable[int]) -> str:
        """Add chains that halve the resolution, and a pooling beside them."""
        ends = self.branches(tensor, name, depths, last_stride=2)
        return self.graph.node("Concat", *ends, self.pool(tensor), axis=1)

    def dense(self, tensor: str) -> tuple[str, int]:
        """Add the last layer with its normalisation; return its tensor and its width."""
        weights, biases = self._folded(self._take("last_linear.weight"), "last_bn")
        constants = [self.graph.constant(values.astype(np.float32)) for values in (weights, biases)]
        return self.graph.node("Gemm", tensor, *constants, transB=1), len(biases)


def build_facenet(weights: bytes) -> bytes:
    """Return the embedding network.

    Input: uint8 (n, 160, 160, 3), RGB. Output: float32 (n, 512), not normalised.

    Args:
        weights: A `.pt` file of facenet-pytorch; the classifier in it is left out.

    Raises:
        WeightsError: The file is not the expected network.
    """
    network = _Network(weights)
    tensor = network.layer(network.graph.pixels("chips"), "conv2d_1a", stride=2, padded=False, pixels=True)
    tensor = network.layer(tensor, "conv2d_2a", padded=False)
    tensor = network.pool(network.layer(tensor, "conv2d_2b"))
    tensor = network.layer(tensor, "conv2d_3b")
    tensor = network.layer(tensor, "conv2d_4a", padded=False)
    tensor = network.layer(tensor, "conv2d_4b", stride=2, padded=False)
    for at in range(5):
        tensor = network.residual(tensor, f"repeat_1.{at}", (1, 2, 3), 0.17)
    tensor = network.reduction(tensor, "mixed_6a", (1, 3))
    for at in range(10):
        tensor = network.residual(tensor, f"repeat_2.{at}", (1, 3), 0.1)
    tensor = network.reduction(tensor, "mixed_7a", (2, 2, 3))
    for at in range(5):
        tensor = network.residual(tensor, f"repeat_3.{at}", (1, 3), 0.2)
    tensor = network.residual(tensor, "block8", (1, 3), 1.0, relu=False)
    tensor = network.graph.node("Flatten", network.graph.node("GlobalAveragePool", tensor), axis=1)
    vectors, dimension = network.dense(tensor)
    return network.graph.build(
        "facenet",
        {"chips": (TensorProto.UINT8, ("n", SIDE, SIDE, 3))},
        {"vectors": (vectors, ("n", dimension))},
    )
