"""MiniFASNet as an ONNX graph, from the state dicts of Silent-Face-Anti-Spoofing.

A pruned MobileFaceNet (Chen, Liu, Gao, Han (2018), "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face
Verification on Mobile Devices") that detects presentation attacks, by Minivision (2020). Pruning left every layer with
a different number of channels, so channels are read from the shapes. Some blocks of the variant SE weight their
channels (Hu, Shen, Sun (2018), "Squeeze-and-Excitation Networks").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from vultus.errors import WeightsError
from vultus.models.weights.graph_builder import GraphBuilder
from vultus.models.weights.state_dicts import read_state_dict

SIDE = 80
CLASSES = 3
EPSILON = 1e-5
"""PyTorch's default, added to the variance in batch normalisation."""

CHANNEL_MULTIPLE = 16
"""Channels that ONNX Runtime computes together; it is slow for numbers of channels that are not a multiple of this."""

Array = NDArray[Any]


def build_minifasnet(weights: bytes) -> bytes:
    """Return the network, with squeeze-and-excitation if the weights contain it.

    Input: float32 (n, 3, 80, 80), BGR, 0..255. Output: float32 (n, 3) logits; class 1 is a live face, 0 and 2 are
    presentation attacks, as in the published ONNX exports of these weights.

    Raises:
        WeightsError: The file is no state dict of this network.
    """
    network = _MinifasnetGraphBuilder(read_state_dict(weights))
    tensor = network.add_convolution("crops", "conv1", stride=2, padding=1)
    tensor = network.add_convolution(tensor, "conv2_dw", padding=1)
    for number, residual in ((23, 3), (34, 4), (45, 5)):
        tensor = network.add_bottleneck(tensor, f"conv_{number}", stride=2)
        tensor = network.add_residual_blocks(tensor, f"conv_{residual}.model")
    tensor = network.add_convolution(tensor, "conv_6_sep")
    tensor = network.add_convolution(tensor, "conv_6_dw")
    return network.graph.build_graph(
        "minifasnet",
        {"crops": (TensorProto.FLOAT, ("n", 3, SIDE, SIDE))},
        {"logits": (network.add_classifier(tensor), ("n", CLASSES))},
    )


class _MinifasnetGraphBuilder:
    """Builds layers from named tensors."""

    def __init__(self, tensors: dict[str, Array]) -> None:
        self._tensors = tensors
        self.graph = GraphBuilder()

    def add_convolution(self, tensor: str, layer: str, *, stride: int = 1, padding: int = 0) -> str:
        """Add a convolution with its batch normalisation and its PReLU, if the layer has one."""
        kernels, biases = self._fold_batch_normalisation(f"{layer}.conv", f"{layer}.bn")
        tensor = self._add_convolution_node(tensor, kernels, biases, stride=stride, padding=padding)
        slopes = self._tensors.get(f"{layer}.prelu.weight")
        if slopes is None:
            return tensor
        return self.graph.add_prelu(tensor, np.pad(slopes, (0, -len(slopes) % CHANNEL_MULTIPLE)))

    def add_bottleneck(self, tensor: str, layer: str, *, stride: int = 1) -> str:
        """Add an inverted bottleneck: expansion, depthwise convolution, projection."""
        tensor = self.add_convolution(tensor, f"{layer}.conv")
        tensor = self.add_convolution(tensor, f"{layer}.conv_dw", stride=stride, padding=1)
        return self.add_convolution(tensor, f"{layer}.project")

    def add_residual_blocks(self, tensor: str, layers: str) -> str:
        """Add the residual blocks whose weights exist."""
        index = 0
        while f"{layers}.{index}.conv.conv.weight" in self._tensors:
            residual = self.add_bottleneck(tensor, f"{layers}.{index}")
            if f"{layers}.{index}.se_module.fc1.weight" in self._tensors:
                residual = self._add_squeeze_excitation(residual, f"{layers}.{index}.se_module")
            tensor = self.graph.add_node("Add", tensor, residual)
            index += 1
        return tensor

    def add_classifier(self, tensor: str) -> str:
        """Add the last two dense layers and the normalisation between them, folded into one matrix."""
        scale, shift = self._compute_normalisation("bn")
        last = self._get_tensor("prob.weight").astype(np.float64)
        if len(last) != CLASSES:
            raise _build_weights_error(f"it knows {len(last)} classes, not {CLASSES}")
        matrix = (last * scale) @ self._get_tensor("linear.weight")
        flat = self.graph.add_node("Flatten", tensor, axis=1)
        weights = np.pad(matrix.T, ((0, -matrix.shape[1] % CHANNEL_MULTIPLE), (0, 0))).astype(np.float32)
        biases = (last @ shift).astype(np.float32)
        return self.graph.add_node("Gemm", flat, self.graph.add_constant(weights), self.graph.add_constant(biases))

    def _add_squeeze_excitation(self, tensor: str, layer: str) -> str:
        """Add squeeze-and-excitation: each channel times a weight, 0..1, computed from the means of all channels."""
        weights = self.graph.add_node("GlobalAveragePool", tensor)
        weights = self._add_convolution_node(weights, *self._fold_batch_normalisation(f"{layer}.fc1", f"{layer}.bn1"))
        weights = self._add_convolution_node(
            self.graph.add_node("Relu", weights), *self._fold_batch_normalisation(f"{layer}.fc2", f"{layer}.bn2")
        )
        return self.graph.add_node("Mul", tensor, self.graph.add_node("Sigmoid", weights))

    def _add_convolution_node(
        self, tensor: str, kernels: Array, biases: Array, *, stride: int = 1, padding: int = 0
    ) -> str:
        outputs, inputs = kernels.shape[:2]
        depthwise = inputs == 1
        padded = (-outputs % CHANNEL_MULTIPLE, 0 if depthwise or tensor == "crops" else -inputs % CHANNEL_MULTIPLE)
        kernels = np.pad(kernels, ((0, padded[0]), (0, padded[1]), (0, 0), (0, 0)))
        return self.graph.add_node(
            "Conv",
            tensor,
            self.graph.add_constant(kernels.astype(np.float32)),
            self.graph.add_constant(np.pad(biases, (0, padded[0])).astype(np.float32)),
            kernel_shape=list(kernels.shape[2:]),
            strides=[stride, stride],
            pads=[padding] * 4,
            group=len(kernels) if depthwise else 1,
        )

    def _fold_batch_normalisation(self, layer: str, normalisation: str) -> tuple[Array, Array]:
        """Return the kernels and biases of a convolution with the batch normalisation after it folded in."""
        scale, shift = self._compute_normalisation(normalisation)
        return self._get_tensor(f"{layer}.weight", 4) * scale[:, None, None, None], shift

    def _compute_normalisation(self, layer: str) -> tuple[Array, Array]:
        """Return the scale and the shift, (channels,) each, of a batch normalisation in inference mode."""
        gamma, beta, mean, variance = (
            self._get_tensor(f"{layer}.{name}", 1).astype(np.float64)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + EPSILON)
        return scale, beta - mean * scale

    def _get_tensor(self, name: str, dimensions: int = 2) -> Array:
        tensor = self._tensors.get(name)
        if tensor is None or tensor.ndim != dimensions:
            raise _build_weights_error(f"{name} is missing or has another shape")
        return tensor


def _build_weights_error(reason: str) -> WeightsError:
    return WeightsError(
        f"The file is not MiniFASNet: {reason}. "
        "Needed are the files 2.7_80x80_MiniFASNetV2.pth and 4_0_0_80x80_MiniFASNetV1SE.pth as published."
    )
