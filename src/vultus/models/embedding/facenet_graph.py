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
from vultus.models.weights.graph_builder import GraphBuilder, fold_normalisation
from vultus.models.weights.state_dicts import read_state_dict

if TYPE_CHECKING:
    from collections.abc import Iterable

SIDE = 160
PIXEL_MEAN = np.full(3, 127.5)
PIXEL_DIVISOR = 128.0
EPSILON = 0.001

Array = NDArray[Any]


class _FacenetGraphBuilder:
    """Builds the graph from the tensors of the state dict."""

    def __init__(self, weights: bytes) -> None:
        self._tensors = read_state_dict(weights)
        self.graph = GraphBuilder()

    def _get_tensor(self, name: str) -> Array:
        if name not in self._tensors:
            raise WeightsError(f"The FaceNet weights cannot be used: the tensor {name} is missing.")
        return self._tensors[name].astype(np.float64)

    def _fold_batch_normalisation(self, kernels: Array, name: str) -> tuple[Array, Array]:
        """Return kernels and biases with the batch normalisation that follows them folded in."""
        factor = self._get_tensor(f"{name}.weight") / np.sqrt(self._get_tensor(f"{name}.running_var") + EPSILON)
        biases = self._get_tensor(f"{name}.bias") - self._get_tensor(f"{name}.running_mean") * factor
        return kernels * factor.reshape(-1, *[1] * (kernels.ndim - 1)), biases

    def _add_convolution_node(
        self, tensor: str, kernels: Array, biases: Array, *, stride: int = 1, padded: bool = True
    ) -> str:
        high, wide = kernels.shape[2:]
        return self.graph.add_node(
            "Conv",
            tensor,
            self.graph.add_constant(kernels.astype(np.float32)),
            self.graph.add_constant(biases.astype(np.float32)),
            kernel_shape=[high, wide],
            strides=[stride, stride],
            pads=[high // 2, wide // 2] * 2 if padded else [0] * 4,
        )

    def add_convolution(
        self, tensor: str, name: str, *, stride: int = 1, padded: bool = True, raw_pixels: bool = False
    ) -> str:
        """Add a convolution with batch normalisation and ReLU; `raw_pixels` folds in the input's normalisation too."""
        kernels, biases = self._fold_batch_normalisation(self._get_tensor(f"{name}.conv.weight"), f"{name}.bn")
        if raw_pixels:
            kernels, biases = fold_normalisation(kernels, biases, PIXEL_MEAN, PIXEL_DIVISOR)
        return self.graph.add_node(
            "Relu", self._add_convolution_node(tensor, kernels, biases, stride=stride, padded=padded)
        )

    def add_pooling(self, tensor: str) -> str:
        """Add a max-pooling that halves the resolution."""
        return self.graph.add_node("MaxPool", tensor, kernel_shape=[3, 3], strides=[2, 2])

    def add_branches(self, tensor: str, name: str, depths: Iterable[int], *, last_stride: int = 1) -> list[str]:
        """Add parallel chains of layers; return their output tensors.

        Args:
            tensor: Input of every chain.
            name: Of the block.
            depths: Layers of each chain; the name of a single layer has no number.
            last_stride: Of each chain's last layer; a stride of 2 does not pad.
        """
        ends = []
        for at, depth in enumerate(depths):
            end = tensor
            for layer in range(depth):
                path = f"{name}.branch{at}" if depth == 1 else f"{name}.branch{at}.{layer}"
                stride = last_stride if layer == depth - 1 else 1
                end = self.add_convolution(end, path, stride=stride, padded=stride == 1)
            ends.append(end)
        return ends

    def add_residual_block(
        self, tensor: str, name: str, depths: Iterable[int], scale: float, *, relu: bool = True
    ) -> str:
        """Add parallel chains, concatenated, projected to the input's width, scaled, and added to the input."""
        joined = self.graph.add_node("Concat", *self.add_branches(tensor, name, depths), axis=1)
        kernels, biases = self._get_tensor(f"{name}.conv2d.weight"), self._get_tensor(f"{name}.conv2d.bias")
        total = self.graph.add_node("Add", self._add_convolution_node(joined, kernels * scale, biases * scale), tensor)
        return self.graph.add_node("Relu", total) if relu else total

    def add_reduction_block(self, tensor: str, name: str, depths: Iterable[int]) -> str:
        """Add parallel chains and a pooling, all of which halve the resolution, concatenated."""
        ends = self.add_branches(tensor, name, depths, last_stride=2)
        return self.graph.add_node("Concat", *ends, self.add_pooling(tensor), axis=1)

    def add_dense_layer(self, tensor: str) -> tuple[str, int]:
        """Add the last layer with its normalisation; return its output tensor and width."""
        weights, biases = self._fold_batch_normalisation(self._get_tensor("last_linear.weight"), "last_bn")
        constants = [self.graph.add_constant(values.astype(np.float32)) for values in (weights, biases)]
        return self.graph.add_node("Gemm", tensor, *constants, transB=1), len(biases)


def build_facenet(weights: bytes) -> bytes:
    """Return the embedding network.

    Input: uint8 (n, 160, 160, 3), RGB. Output: float32 (n, 512), not normalised.

    Args:
        weights: A `.pt` file of facenet-pytorch; its classifier is ignored.

    Raises:
        WeightsError: The file is not the expected network.
    """
    network = _FacenetGraphBuilder(weights)
    tensor = network.add_convolution(
        network.graph.add_pixel_conversion("chips"), "conv2d_1a", stride=2, padded=False, raw_pixels=True
    )
    tensor = network.add_convolution(tensor, "conv2d_2a", padded=False)
    tensor = network.add_pooling(network.add_convolution(tensor, "conv2d_2b"))
    tensor = network.add_convolution(tensor, "conv2d_3b")
    tensor = network.add_convolution(tensor, "conv2d_4a", padded=False)
    tensor = network.add_convolution(tensor, "conv2d_4b", stride=2, padded=False)
    for at in range(5):
        tensor = network.add_residual_block(tensor, f"repeat_1.{at}", (1, 2, 3), 0.17)
    tensor = network.add_reduction_block(tensor, "mixed_6a", (1, 3))
    for at in range(10):
        tensor = network.add_residual_block(tensor, f"repeat_2.{at}", (1, 3), 0.1)
    tensor = network.add_reduction_block(tensor, "mixed_7a", (2, 2, 3))
    for at in range(5):
        tensor = network.add_residual_block(tensor, f"repeat_3.{at}", (1, 3), 0.2)
    tensor = network.add_residual_block(tensor, "block8", (1, 3), 1.0, relu=False)
    tensor = network.graph.add_node("Flatten", network.graph.add_node("GlobalAveragePool", tensor), axis=1)
    vectors, dimension = network.add_dense_layer(tensor)
    return network.graph.build_graph(
        "facenet",
        {"chips": (TensorProto.UINT8, ("n", SIDE, SIDE, 3))},
        {"vectors": (vectors, ("n", dimension))},
    )
