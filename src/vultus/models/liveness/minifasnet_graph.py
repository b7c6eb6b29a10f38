"""MiniFASNet as an ONNX graph, from the state dicts of Silent-Face-Anti-Spoofing.

A pruned MobileFaceNet (Chen, Liu, Gao, Han (2018), "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face
Verification on Mobile Devices") that tells live faces from photographed ones, by Minivision (2020). Pruning left every
layer with a number of channels of its own, so channels are read from the shapes. Some blocks of the variant SE weight
their channels (Hu, Shen, Sun (2018), "Squeeze-and-Excitation Networks").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from vultus.errors import WeightsError
from vultus.models.weights.graph_cache import GraphBuilder
from vultus.models.weights.state_dicts import read_state_dict

BUILDER_VERSION = 1
SIDE = 80
CLASSES = 3
EPSILON = 1e-5
"""PyTorch's default, added to the variance where batches are normalised."""

WIDTH = 16
"""Channels ONNX Runtime computes side by side; it is slow at numbers that are no multiple of it."""

Array = NDArray[Any]


def build_minifasnet(weights: bytes) -> bytes:
    """Return the network, with or without squeeze-and-excitation as the weights have it.

    Input: float32 (n, 3, 80, 80), BGR, 0..255. Output: float32 (n, 3) logits; class 1 is a live face, 0 and 2 are
    presentation attacks. The same as in the ONNX files others publish of these weights.

    Raises:
        WeightsError: The file is no state dict of this network.
    """
    network = _Network(read_state_dict(weights))
    tensor = network.convolution("crops", "conv1", stride=2, padding=1)
    tensor = network.convolution(tensor, "conv2_dw", padding=1)
    for number, residual in ((23, 3), (34, 4), (45, 5)):
        tensor = network.block(tensor, f"conv_{number}", stride=2)
        tensor = network.residuals(tensor, f"conv_{residual}.model")
    tensor = network.convolution(tensor, "conv_6_sep")
    tensor = network.convolution(tensor, "conv_6_dw")
    return network.graph.build(
        "minifasnet",
        {"crops": (TensorProto.FLOAT, ("n", 3, SIDE, SIDE))},
        {"logits": (network.logits(tensor), ("n", CLASSES))},
    )


class _Network:
    """Turns named tensors into layers."""

    def __init__(self, tensors: dict[str, Array]) -> None:
        self._tensors = tensors
        self.graph = GraphBuilder()

    def convolution(self, tensor: str, layer: str, *, stride: int = 1, padding: int = 0) -> str:
        """Add a convolution with its batch normalisation and, where the layer has one, its PReLU."""
        kernels, biases = self._folded(f"{layer}.conv", f"{layer}.bn")
        tensor = self._convolve(tensor, kernels, biases, stride=stride, padding=padding)
        slopes = self._tensors.get(f"{layer}.prelu.weight")
        return tensor if slopes is None else self._prelu(tensor, slopes)

    def block(self, tensor: str, layer: str, *, stride: int = 1) -> str:
        """Add an inverted bottleneck: wider, each channel by itself, narrower."""
        tensor = self.convolution(tensor, f"{layer}.conv")
        tensor = self.convolution(tensor, f"{layer}.conv_dw", stride=stride, padding=1)
        return self.convolution(tensor, f"{layer}.project")

    def residuals(self, tensor: str, layers: str) -> str:
        """Add blocks that each add to their input, as many as there are."""
        at = 0
        while f"{layers}.{at}.conv.conv.weight" in self._tensors:
            change = self.block(tensor, f"{layers}.{at}")
            if f"{layers}.{at}.se_module.fc1.weight" in self._tensors:
                change = self._weighted(change, f"{layers}.{at}.se_module")
            tensor = self.graph.node("Add", tensor, change)
            at += 1
        return tensor

    def logits(self, tensor: str) -> str:
        """Add the last layers, two matrices with a normalisation between them, as one."""
        scale, shift = self._normalisation("bn")
        last = self._tensor("prob.weight").astype(np.float64)
        if len(last) != CLASSES:
            raise _unexpected(f"it knows {len(last)} classes, not {CLASSES}")
        matrix = (last * scale) @ self._tensor("linear.weight")
        flat = self.graph.node("Flatten", tensor, axis=1)
        weights = np.pad(matrix.T, ((0, -matrix.shape[1] % WIDTH), (0, 0))).astype(np.float32)
        biases = (last @ shift).astype(np.float32)
        return self.graph.node("Gemm", flat, self.graph.constant(weights), self.graph.constant(biases))

    def _weighted(self, tensor: str, layer: str) -> str:
        """Multiply each channel by a number between 0 and 1 that follows from the means of all."""
        weights = self.graph.node("GlobalAveragePool", tensor)
        weights = self._convolve(weights, *self._folded(f"{layer}.fc1", f"{layer}.bn1"))
        weights = self._convolve(self.graph.node("Relu", weights), *self._folded(f"{layer}.fc2", f"{layer}.bn2"))
        return self.graph.node("Mul", tensor, self.graph.node("Sigmoid", weights))

    def _convolve(self, tensor: str, kernels: Array, biases: Array, *, stride: int = 1, padding: int = 0) -> str:
        outputs, inputs = kernels.shape[:2]
        single = inputs == 1  # each channel by itself
        more = (-outputs % WIDTH, 0 if single or tensor == "crops" else -inputs % WIDTH)
        kernels = np.pad(kernels, ((0, more[0]), (0, more[1]), (0, 0), (0, 0)))
        return self.graph.node(
            "Conv",
            tensor,
            self.graph.constant(kernels.astype(np.float32)),
            self.graph.constant(np.pad(biases, (0, more[0])).astype(np.float32)),
            kernel_shape=list(kernels.shape[2:]),
            strides=[stride, stride],
            pads=[padding] * 4,
            group=len(kernels) if single else 1,
        )

    def _prelu(self, tensor: str, slopes: Array) -> str:
        """Add a PReLU, written as slope · x + (1 − slope) · max(x, 0): the operator itself is slower."""
        slopes = np.pad(slopes, (0, -len(slopes) % WIDTH)).reshape(-1, 1, 1)
        everywhere = self.graph.node("Mul", tensor, self.graph.constant(slopes))
        positive = self.graph.node("Mul", self.graph.node("Relu", tensor), self.graph.constant(1 - slopes))
        return self.graph.node("Add", everywhere, positive)

    def _folded(self, layer: str, normalisation: str) -> tuple[Array, Array]:
        """Return kernels and biases that do what a convolution and the normalisation after it do."""
        scale, shift = self._normalisation(normalisation)
        return self._tensor(f"{layer}.weight", 4) * scale[:, None, None, None], shift

    def _normalisation(self, layer: str) -> tuple[Array, Array]:
        """Return the factor and the summand, (channels,) each, of a batch normalisation at rest."""
        gamma, beta, mean, variance = (
            self._tensor(f"{layer}.{name}", 1).astype(np.float64)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + EPSILON)
        return scale, beta - mean * scale

    def _tensor(self, name: str, dimensions: int = 2) -> Array:
        tensor = self._tensors.get(name)
        if tensor is None or tensor.ndim != dimensions:
            raise _unexpected(f"{name} is missing or has another shape")
        return tensor


def _unexpected(what: str) -> WeightsError:
    return WeightsError(
        f"The file is not MiniFASNet: {what}. "
        "Needed are the files 2.7_80x80_MiniFASNetV2.pth and 4_0_0_80x80_MiniFASNetV1SE.pth as published."
    )
