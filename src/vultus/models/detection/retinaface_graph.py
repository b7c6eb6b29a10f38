"""RetinaFace as an ONNX graph, from PyTorch state dicts with MobileNet-0.25 or ResNet-50 as backbone.

Deng, Guo, Ververas, Kotsia, Zafeiriou (2020), "RetinaFace: Single-shot Multi-level Face Localisation in the Wild",
CVPR: a feature pyramid (Lin et al. 2017) with context modules (SSH, Najibi et al. 2017) over Howard et al. (2017),
"MobileNets", or He et al. (2016), "Deep Residual Learning for Image Recognition", here with the stride in the
3 × 3 convolution. Names of tensors are those of the published state dicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from vultus.errors import WeightsError
from vultus.models.weights.graph_builder import GraphBuilder
from vultus.models.weights.state_dicts import read_state_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

EPSILON = 1e-5
PIXEL_MEANS = (104.0, 117.0, 123.0)
"""Blue, green, red."""

MAX_LEAKY_WIDTH = 64
"""Networks at most this wide after the backbone use a leaky ReLU of slope 0.1; wider ones a ReLU."""

RESNET_STAGES = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}
MOBILENET_STAGES = {"stage1": 6, "stage2": 6, "stage3": 2}


class _RetinaFaceGraphBuilder:
    """Builds layers of a graph from named tensors."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._tensors = tensors
        self.graph = GraphBuilder()
        self.slope = 0.1 if len(self._get_tensor("fpn.output1.1.weight")) <= MAX_LEAKY_WIDTH else 0.0

    def has_tensor(self, name: str) -> bool:
        """Return whether the state dict contains a tensor."""
        return name in self._tensors

    def _get_tensor(self, name: str) -> NDArray[Any]:
        if name not in self._tensors:
            raise WeightsError(f"The RetinaFace weights cannot be read: they have no {name}. Download the file again.")
        return self._tensors[name]

    def add_convolution(self, tensor: str, name: str, norm: str, *, stride: int = 1) -> str:
        """Add a padded convolution with the batch normalisation that follows it.

        Ioffe, Szegedy (2015), "Batch Normalization"; folded into the kernels, which is exact.
        """
        kernels = self._get_tensor(f"{name}.weight").astype(np.float64)
        gain = self._get_tensor(f"{norm}.weight") / np.sqrt(
            self._get_tensor(f"{norm}.running_var").astype(np.float64) + EPSILON
        )
        biases = self._get_tensor(f"{norm}.bias") - self._get_tensor(f"{norm}.running_mean") * gain
        return self._add_convolution_node(tensor, kernels * gain[:, None, None, None], biases, stride)

    def add_head(self, tensor: str, name: str) -> str:
        """Add a head, a 1 × 1 convolution; return (batch, predictions, width), cells in row-major order."""
        kernels, biases = self._get_tensor(f"{name}.conv1x1.weight"), self._get_tensor(f"{name}.conv1x1.bias")
        width = len(biases) // 2
        cells = self.graph.add_node(
            "Transpose", self._add_convolution_node(tensor, kernels, biases, 1), perm=[0, 2, 3, 1]
        )
        return self.graph.add_node("Reshape", cells, self.graph.add_constant(np.array([1, -1, width], np.int64)))

    def _add_convolution_node(self, tensor: str, kernels: NDArray[Any], biases: NDArray[Any], stride: int) -> str:
        size = kernels.shape[2]
        return self.graph.add_node(
            "Conv",
            tensor,
            self.graph.add_constant(kernels.astype(np.float32)),
            self.graph.add_constant(biases.astype(np.float32)),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
            group=len(kernels) if kernels.shape[1] == 1 else 1,
        )

    def add_activation(self, tensor: str, slope: float) -> str:
        """Add a leaky ReLU of a slope, or a ReLU if it is 0."""
        return self.graph.add_node("LeakyRelu", tensor, alpha=slope) if slope else self.graph.add_node("Relu", tensor)


def _add_mobilenet(layers: _RetinaFaceGraphBuilder, image: str) -> list[str]:
    """Add the backbone; return its three levels, finest first."""
    tensor, levels = image, []
    for stage, blocks in MOBILENET_STAGES.items():
        for block in range(blocks):
            name = f"body.{stage}.{block}"
            first = stage == "stage1" and block == 0
            halves = first or (block == 0 if stage != "stage1" else block in {2, 4})
            tensor = layers.add_convolution(tensor, f"{name}.0", f"{name}.1", stride=2 if halves else 1)
            tensor = layers.add_activation(tensor, 0.1)
            if not first:
                tensor = layers.add_activation(layers.add_convolution(tensor, f"{name}.3", f"{name}.4"), 0.1)
        levels.append(tensor)
    return levels


def _add_resnet(layers: _RetinaFaceGraphBuilder, image: str) -> list[str]:
    """Add the backbone; return its three coarser levels, finest first."""
    tensor = layers.add_activation(layers.add_convolution(image, "body.conv1", "body.bn1", stride=2), 0)
    tensor = layers.graph.add_node("MaxPool", tensor, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    levels = []
    for stage, blocks in RESNET_STAGES.items():
        for block in range(blocks):
            name = f"body.{stage}.{block}"
            stride = 2 if block == 0 and stage != "layer1" else 1
            inner = layers.add_activation(layers.add_convolution(tensor, f"{name}.conv1", f"{name}.bn1"), 0)
            inner = layers.add_activation(
                layers.add_convolution(inner, f"{name}.conv2", f"{name}.bn2", stride=stride), 0
            )
            inner = layers.add_convolution(inner, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                tensor = layers.add_convolution(tensor, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
            tensor = layers.add_activation(layers.graph.add_node("Add", inner, tensor), 0)
        levels.append(tensor)
    return levels[1:]


def _add_feature_pyramid(layers: _RetinaFaceGraphBuilder, levels: list[str]) -> list[str]:
    """Project three levels to one width and add the features of coarser levels to each; return them, finest first."""

    def add_layer(tensor: str, name: str) -> str:
        return layers.add_activation(layers.add_convolution(tensor, f"fpn.{name}.0", f"fpn.{name}.1"), layers.slope)

    fine, middle, coarse = (add_layer(level, f"output{at}") for at, level in enumerate(levels, 1))
    middle = add_layer(layers.graph.add_node("Add", middle, _add_upsampling(layers, coarse)), "merge2")
    fine = add_layer(layers.graph.add_node("Add", fine, _add_upsampling(layers, middle)), "merge1")
    return [fine, middle, coarse]


def _add_upsampling(layers: _RetinaFaceGraphBuilder, tensor: str) -> str:
    scales = layers.graph.add_constant(np.array([1, 1, 2, 2], np.float32))
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return layers.graph.add_node("Resize", tensor, "", scales, **nearest)


def _add_context_module(layers: _RetinaFaceGraphBuilder, tensor: str, level: int) -> str:
    """Add a context module: parallel receptive fields of 3, 5 and 7 pixels, the larger as chains of 3 × 3."""

    def add_layer(tensor: str, name: str) -> str:
        return layers.add_convolution(tensor, f"ssh{level}.{name}.0", f"ssh{level}.{name}.1")

    near = layers.add_activation(add_layer(tensor, "conv5X5_1"), layers.slope)
    far = layers.add_activation(add_layer(near, "conv7X7_2"), layers.slope)
    fields = [add_layer(tensor, "conv3X3"), add_layer(near, "conv5X5_2"), add_layer(far, "conv7x7_3")]
    return layers.add_activation(layers.graph.add_node("Concat", *fields, axis=1), 0)


def build_retinaface(weights: bytes) -> bytes:
    """Return the network.

    Input: uint8 (1, height, width, 3), RGB, sides multiples of 32. Outputs, float32, two predictions per cell, cells
    in row-major order, concatenated over the grids of stride 8, 16 and 32: loc (1, n, 4) box offsets, conf (1, n, 2)
    probabilities of no face and of a face, landm (1, n, 10) landmark offsets.

    Args:
        weights: State dict of a `.pth` file.

    Raises:
        WeightsError: The file is no state dict of this network.
    """
    layers = _RetinaFaceGraphBuilder(read_state_dict(weights))
    graph = layers.graph
    blue_first, means = np.array([2, 1, 0], np.int64), np.array(PIXEL_MEANS, np.float32).reshape(1, 3, 1, 1)
    planes = graph.add_node("Transpose", "images", perm=[0, 3, 1, 2])
    planes = graph.add_node("Gather", planes, graph.add_constant(blue_first), axis=1)
    image = graph.add_node("Sub", graph.add_node("Cast", planes, to=TensorProto.FLOAT), graph.add_constant(means))
    levels = _add_resnet(layers, image) if layers.has_tensor("body.conv1.weight") else _add_mobilenet(layers, image)
    features = [
        _add_context_module(layers, level, at) for at, level in enumerate(_add_feature_pyramid(layers, levels), 1)
    ]
    answers = {
        output: graph.add_node(
            "Concat", *(layers.add_head(tensor, f"{name}.{at}") for at, tensor in enumerate(features)), axis=1
        )
        for output, name in (("loc", "BboxHead"), ("conf", "ClassHead"), ("landm", "LandmarkHead"))
    }
    answers["conf"] = graph.add_node("Softmax", answers["conf"], axis=2)
    widths = {"loc": 4, "conf": 2, "landm": 10}
    return graph.build_graph(
        "retinaface",
        {"images": (TensorProto.UINT8, (1, "height", "width", 3))},
        {output: (tensor, (1, "answers", widths[output])) for output, tensor in answers.items()},
    )
