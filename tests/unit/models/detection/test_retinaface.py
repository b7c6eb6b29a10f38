"""RetinaFace's graph computes what PyTorch computed with the same weights, and its outputs are decoded as published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.faces import astronaut
from tests.heads import Heads
from tests.statedicts import saved
from tests.weights import real_weights

from vultus.errors import WeightsError
from vultus.models.detection.retinaface import convert_published_graph, load_retinaface
from vultus.models.detection.retinaface_graph import build_retinaface
from vultus.models.runtime import OnnxSession

if TYPE_CHECKING:
    from vultus.models.weights.state_dicts import Array

POINTS = [-1.0, -0.5, 1, -0.5, 0, 0.25, -0.75, 1, 0.75, 1]


class Chance:
    """Draws random tensors of layers."""

    def __init__(self) -> None:
        self.tensors: dict[str, Array] = {}
        self._chance = np.random.default_rng(3)

    def convolution(self, name: str, norm: str, inputs: int, outputs: int, side: int) -> None:
        spread = np.sqrt(2 / (inputs * side * side))
        self._draw(f"{name}.weight", (outputs, inputs, side, side), 0, spread)
        self._draw(f"{norm}.weight", (outputs,), 1, 0.2)
        self._draw(f"{norm}.bias", (outputs,), 0, 0.3)
        self._draw(f"{norm}.running_mean", (outputs,), 0, 0.3)
        self.tensors[f"{norm}.running_var"] = self._chance.uniform(0.5, 2, outputs).astype(np.float32)

    def head(self, name: str, inputs: int, outputs: int) -> None:
        self._draw(f"{name}.conv1x1.weight", (outputs, inputs, 1, 1), 0, 2e-5)
        self._draw(f"{name}.conv1x1.bias", (outputs,), 0, 0.5)

    def _draw(self, name: str, shape: tuple[int, ...], mean: float, spread: float) -> None:
        self.tensors[name] = self._chance.normal(mean, spread, shape).astype(np.float32)


def narrow_resnet(width: int = 68) -> dict[str, Array]:
    """The tensors of RetinaFace over a ResNet-50 with a thirty-second of its channels, and `width` after it."""
    chance = Chance()
    chance.convolution("body.conv1", "body.bn1", 3, 2, 7)
    inputs = 2
    for stage, (inner, blocks) in enumerate([(2, 3), (4, 4), (8, 6), (16, 3)], 1):
        for block in range(blocks):
            name = f"body.layer{stage}.{block}"
            chance.convolution(f"{name}.conv1", f"{name}.bn1", inputs, inner, 1)
            chance.convolution(f"{name}.conv2", f"{name}.bn2", inner, inner, 3)
            chance.convolution(f"{name}.conv3", f"{name}.bn3", inner, 4 * inner, 1)
            if block == 0:
                chance.convolution(f"{name}.downsample.0", f"{name}.downsample.1", inputs, 4 * inner, 1)
            inputs = 4 * inner
    for at in (1, 2, 3):
        chance.convolution(f"fpn.output{at}.0", f"fpn.output{at}.1", 8 * 2**at, width, 1)
        half, quarter = width // 2, width // 4
        chance.convolution(f"ssh{at}.conv3X3.0", f"ssh{at}.conv3X3.1", width, half, 3)
        for name, narrowed in (("5X5_1", width), ("5X5_2", quarter), ("7X7_2", quarter), ("7x7_3", quarter)):
            chance.convolution(f"ssh{at}.conv{name}.0", f"ssh{at}.conv{name}.1", narrowed, quarter, 3)
        for kind, numbers in (("Class", 4), ("Bbox", 8), ("Landmark", 20)):
            chance.head(f"{kind}Head.{at - 1}", width, numbers)
    for at in (1, 2):
        chance.convolution(f"fpn.merge{at}.0", f"fpn.merge{at}.1", width, width, 3)
    return chance.tensors


def answers(weights: bytes) -> list[Array]:
    """Return loc, conf and landm for the astronaut's head, (1260, …) each."""
    return [output[0] for output in OnnxSession(build_retinaface(weights)).run(astronaut()[None, 48:208, 128:320])]


def test_mobilenet_outputs_equal_pytorchs() -> None:
    loc, conf, landm = answers(real_weights("retinaface_mobilenet0.25_Final.pth"))

    # PyTorch's numbers, of the best detection and of the last.
    assert conf[:, 1].argmax() == 1069
    np.testing.assert_allclose(conf[[1069, 1259], 1], [0.99968, 6e-5], atol=1e-5)
    np.testing.assert_allclose(loc[1069], [-0.6698, -0.1658, -1.5888, -0.3917], atol=1e-3)
    np.testing.assert_allclose(loc[1259], [0.1188, 0.8660, -1.9983, -1.8921], atol=1e-3)
    np.testing.assert_allclose(landm[1069, :6], [-2.3018, -1.3956, 1.0732, -1.2958, -0.5416, 0.7803], atol=1e-3)
    np.testing.assert_allclose([np.abs(loc).mean(), np.abs(landm).mean()], [0.8545, 1.74027], atol=1e-3)


def test_resnet_outputs_equal_pytorchs() -> None:
    loc, conf, landm = answers(saved(narrow_resnet()))

    # PyTorch's numbers, of the same random weights.
    np.testing.assert_allclose(conf[[0, 65, 1259], 1], [0.48988, 0.92131, 0.22378], atol=1e-4)
    np.testing.assert_allclose(loc[65], [-1.0113, 0.3515, -0.7598, -0.2001], atol=1e-3)
    np.testing.assert_allclose(landm[1259, :4], [-1.1746, -0.1552, 0.7277, -0.5557], atol=1e-3)
    np.testing.assert_allclose([np.abs(loc).mean(), np.abs(landm).mean()], [0.53371, 0.61609], atol=1e-3)


def published(*, grids: tuple[int, ...] = (8, 16, 32)) -> bytes:
    """A file as others publish it; the small anchor of a bright cell of stride 8 is a face."""
    heads = Heads()
    loc, conf, landm = [], [], []
    for stride in grids:
        face = -8 if stride == 8 else -50
        gains = [0.0, 16 / 230 if stride == 8 else 0, 0, 0]
        conf.append(heads.rows(heads.grid(stride, [0, face, 0, -50], gains), [1, -1, 2]))
        loc.append(heads.rows(heads.grid(stride, [5, -2.5, *(5 * np.log([2, 3])), 9, 9, 9, 9]), [1, -1, 4]))
        landm.append(heads.rows(heads.grid(stride, [10 * value for value in POINTS] + [9.0] * 10), [1, -1, 10]))
    heads.answer(heads.joined(*landm))
    heads.answer(heads.joined(*loc))
    heads.answer(heads.softmax(heads.joined(*conf)))
    return heads.build(640)


def test_a_file_of_another_publisher_is_read_alike() -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[24:32, 40:48] = 255  # row 3, column 5 of stride 8

    boxes, points, scores = load_retinaface(convert_published_graph(published())).compute_detections(image)

    np.testing.assert_allclose(boxes, [[44 + 8 - 16, 28 - 4 - 24, 44 + 8 + 16, 28 - 4 + 24]], atol=1e-3)
    np.testing.assert_allclose(points, [np.array([44, 28]) + 16 * np.reshape(POINTS, (5, 2))], atol=1e-3)
    assert 0.6 < scores[0] < 1


def test_other_weights_and_networks_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"no fpn\.output1"):
        build_retinaface(saved({"conv.weight": np.zeros((1, 1), np.float32)}))
    with pytest.raises(WeightsError, match="RetinaFace"):
        load_retinaface(convert_published_graph(published(grids=(8, 16))))
