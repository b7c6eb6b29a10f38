"""CenterFace's outputs are decoded as by its publisher: y before x, sizes as logarithms of quarters."""

from __future__ import annotations

import numpy as np
import pytest
from tests.heads import Heads

from vultus.errors import WeightsError
from vultus.models.detection.centerface import load_centerface

POINTS_YX = [0.4, 0.3, 0.35, 0.7, 0.55, 0.5, 0.8, 0.35, 0.75, 0.65]


def network(channels: int = 10) -> bytes:
    heads = Heads()
    heads.answer(heads.sigmoid(heads.grid(4, [-8.0], [16 / 255])))
    heads.answer(heads.grid(4, np.log([10, 5]).tolist()))
    heads.answer(heads.grid(4, [0.25, -0.125]))
    heads.answer(heads.grid(4, POINTS_YX[:channels]))
    return heads.build(32)


def test_a_bright_cell_is_the_face_its_answers_describe() -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[12:16, 40:44] = 255  # row 3, column 10

    boxes, points, scores = load_centerface(network()).compute_detections(image)

    x, y, width, height = (10 + 0.5 - 0.125) * 4, (3 + 0.5 + 0.25) * 4, 20, 40
    np.testing.assert_allclose(boxes, [[x - width / 2, y - height / 2, x + width / 2, y + height / 2]], atol=1e-4)
    fractions = np.reshape(POINTS_YX, (5, 2))[:, ::-1]
    np.testing.assert_allclose(points, [boxes[0, :2] + fractions * [width, height]], atol=1e-4)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-8)), atol=1e-5)


def test_a_network_without_landmarks_is_refused() -> None:
    with pytest.raises(WeightsError, match="CenterFace"):
        load_centerface(network(channels=4))
