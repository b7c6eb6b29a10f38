"""RetinaFace as an ONNX graph, from PyTorch state dicts with MobileNet-0.25 or ResNet-50 below it.

Deng, Guo, Ververas, Kotsia, Zafeiriou (2020), "RetinaFace: Single-shot Multi-level Face Localisation in the Wild",
CVPR: a feature pyramid (Lin et al. 2017) with context modules (SSH, Najibi et al. 2017) over Howard et al. (2017),
"MobileNets", or He et al. (2016), "Deep Residual Learning for Image Recognition", whose stride lies on the 3 × 3
convolution here. Names of tensors are those of the published state dicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from vultus.errors import WeightsError
from vultus.models.weights.graph_cache import GraphBuilder
from vultus.models.weights.state_dicts import read_state_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

BUILDER_VERSION = 1
EPSILON = 1e-5
PIXEL_MEANS = (104.0, 117.0, 123.0)
"""Blue, green, red."""

LEAKY_UP_TO = 64
"""Networks this narrow after the backbone let a tenth of negative values pass; wider ones none."""

RESNET_STAGES = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}
MOBILENET_STAGES = {"stage1": 6, "stage2": 6, "stage3": 2}


class _Layers:
    """Turns named tensors into layers of a graph."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._tensors = tensors
        self.graph = GraphBuilder()
        self.slope = 0.1 if len(self._take("fpn.output1.1.weight")) <= LEAKY_UP_TO else 0.0

    def has(self, name: str) -> bool:
        """Say whether the state dict has a tensor."""
        return name in self._tensors

    def _take(self, name: str) -> NDArray[Any]:
        if name not in self._tensors:
            raise WeightsError(f"The RetinaFace weights cannot be read: they have no {name}. Download the file again.")
        return self._tensors[name]

    def convolution(self, tensor: str, name: str, norm: str, *, stride: int = 1) -> str:
        """Add a convolution that keeps the size but for its stride, with the batch normalisation that follows it.

        Ioffe, Szegedy (2015), "Batch Normalization"; folded into the kernels, which is exact.
        """
        kernels = self._take(f"{name}.weight").astype(np.float64)
        gain = self._take(f"{norm}.weight") / np.sqrt(self._take(f"{norm}.running_var").astype(np.float64) + EPSILON)
        biases = self._take(f"{norm}.bias") - self._take(f"{norm}.running_mean") * gain
        return self._convolve(tensor, kernels * gain[:, None, None, None], biases, stride)

    def head(self, tensor: str, name: str) -> str:
        """Add a convolution with biases of its own; return (batch, answers, width) with the cells along the rows."""
        kernels, biases = self._take(f"{name}.conv1x1.weight"), self._take(f"{name}.conv1x1.bias")
        width = len(biases) // 2
        cells = self.graph.node("Transpose", self._convolve(tensor, kernels, biases, 1), perm=[0, 2, 3, 1])
        return self.graph.node("Reshape", cells, self.graph.constant(np.array([1, -1, width], np.int64)))

    def _convolve(self, tensor: str, kernels: NDArray[Any], biases: NDArray[Any], stride: int) -> str:
        size = kernels.shape[2]
        return self.graph.node(
            "Conv",
            tensor,
            self.graph.constant(kernels.astype(np.float32)),
            self.graph.constant(biases.astype(np.float32)),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
            group=len(kernels) if kernels.shape[1] == 1 else 1,
        )

    def active(self, tensor: str, slope: float) -> str:
        """Add a rectifier that lets a share of negative values pass."""
        return self.graph.node("LeakyRelu", tensor, alpha=slope) if slope else self.graph.node("Relu", tensor)


def _mobilenet(layers: _Layers, image: str) -> list[str]:
    """Add the backbone; return its three levels, finest first."""
    tensor, levels = image, []
    for stage, blocks in MOBILENET_STAGES.items():
        for block in range(blocks):
            name = f"body.{stage}.{block}"
            first = stage == "stage1" and block == 0
            halves = first or (block == 0 if stage != "stage1" else block in {2, 4})
            tensor = layers.convolution(tensor, f"{name}.0", f"{name}.1", stride=2 if halves else 1)
            tensor = layers.active(tensor, 0.1)
            if not first:
                tensor = layers.active(layers.convolution(tensor, f"{name}.3", f"{name}.4"), 0.1)
        levels.append(tensor)
    return levels


def _resnet(layers: _Layers, image: str) -> list[str]:
    """Add the backbone; return its three coarser levels, finest first."""
    tensor = layers.active(layers.convolution(image, "body.conv1", "body.bn1", stride=2), 0)
    tensor = layers.graph.node("MaxPool", tensor, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    levels = []
    for stage, blocks in RESNET_STAGES.items():
        for block in range(blocks):
            name = f"body.{stage}.{block}"
            stride = 2 if block == 0 and stage != "layer1" else 1
            inner = layers.active(layers.convolution(tensor, f"{name}.conv1", f"{name}.bn1"), 0)
            inner = layers.active(layers.convolution(inner, f"{name}.conv2", f"{name}.bn2", stride=stride), 0)
            inner = layers.convolution(inner, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                tensor = layers.convolution(tensor, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
            tensor = layers.active(layers.graph.node("Add", inner, tensor), 0)
        levels.append(tensor)
    return levels[1:]


def _pyramid(layers: _Layers, levels: list[str]) -> list[str]:
    """Bring three levels to one width and add to each what the coarser ones saw."""

    def block(tensor: str, name: str) -> str:
        return layers.active(layers.convolution(tensor, f"fpn.{name}.0", f"fpn.{name}.1"), layers.slope)

    fine, middle, coarse = (block(level, f"output{at}") for at, level in enumerate(levels, 1))
    middle = block(layers.graph.node("Add", middle, _doubled(layers, coarse)), "merge2")
    fine = block(layers.graph.node("Add", fine, _doubled(layers, middle)), "merge1")
    return [fine, middle, coarse]


def _doubled(layers: _Layers, tensor: str) -> str:
    scales = layers.graph.constant(np.array([1, 1, 2, 2], np.float32))
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return layers.graph.node("Resize", tensor, "", scales, **nearest)


def _context(layers: _Layers, tensor: str, at: int) -> str:
    """Add a context module: fields of view of 3, 5 and 7 pixels side by side, the larger as chains of 3 × 3."""

    def block(tensor: str, name: str) -> str:
        return layers.convolution(tensor, f"ssh{at}.{name}.0", f"ssh{at}.{name}.1")

    near = layers.active(block(tensor, "conv5X5_1"), layers.slope)
    far = layers.active(block(near, "conv7X7_2"), layers.slope)
    fields = [block(tensor, "conv3X3"), block(near, "conv5X5_2"), block(far, "conv7x7_3")]
    return layers.active(layers.graph.node("Concat", *fields, axis=1), 0)


def build_retinaface(weights: bytes) -> bytes:
    """Return the network.

    Input: uint8 (1, height, width, 3), RGB, sides multiples of 32. Outputs, float32, two answers a cell, cells along
    the rows, grids of stride 8, 16 and 32 one after the other: loc (1, n, 4) box offsets, conf (1, n, 2) probabilities
    of no face and of a face, landm (1, n, 10) landmark offsets.

    Args:
        weights: State dict of a `.pth` file.

    Raises:
        WeightsError: The file is no state dict of this network.
    """
    layers = _Layers(read_state_dict(weights))
    graph = layers.graph
    blue_first, means = np.array([2, 1, 0], np.int64), np.array(PIXEL_MEANS, np.float32).reshape(1, 3, 1, 1)
    planes = graph.node("Transpose", "images", perm=[0, 3, 1, 2])
    planes = graph.node("Gather", planes, graph.constant(blue_first), axis=1)
    image = graph.node("Sub", graph.node("Cast", planes, to=TensorProto.FLOAT), graph.constant(means))
    levels = _resnet(layers, image) if layers.has("body.conv1.weight") else _mobilenet(layers, image)
    features = [_context(layers, level, at) for at, level in enumerate(_pyramid(layers, levels), 1)]
    answers = {
        output: graph.node(
            "Concat", *(layers.head(tensor, f"{name}.{at}") for at, tensor in enumerate(features)), axis=1
        )
        for output, name in (("loc", "BboxHead"), ("conf", "ClassHead"), ("landm", "LandmarkHead"))
    }
    answers["conf"] = graph.node("Softmax", answers["conf"], axis=2)
    widths = {"loc": 4, "conf": 2, "landm": 10}
    return graph.build(
        "retinaface",
        {"images": (TensorProto.UINT8, (1, "height", "width", 3))},
        {output: (tensor, (1, "answers", widths[output])) for output, tensor in answers.items()},
    )
