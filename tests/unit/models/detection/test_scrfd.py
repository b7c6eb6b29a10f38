"""SCRFD's outputs are decoded as by its publisher: distances and offsets from a cell's corner, in strides."""

from __future__ import annotations

import numpy as np
import pytest
from tests.heads import Heads

from vultus.errors import WeightsError
from vultus.models.detection.scrfd import load_scrfd

POINTS = [0.1, 0.2, 1.1, 0.3, 0.6, 0.7, 0.2, 1.2, 1.0, 1.3]


def network(*, batch: bool) -> bytes:
    """Two outputs per cell; only the second of stride 16 can be a face."""
    heads = Heads()
    shape = [1, -1] if batch else [-1]
    for kind in range(3):
        for stride in (8, 16, 32):
            scores = [-50.0, 0.0 if stride == 16 else -50.0]
            biases = (scores, [9.0] * 4 + [0.5, 0.25, 1.5, 2], [9.0] * 10 + POINTS)[kind]
            grid = heads.grid(stride, biases, [8, 8] if kind == 0 else None)
            answers = heads.rows(grid, [*shape, len(biases) // 2])
            heads.answer(heads.sigmoid(answers) if kind == 0 else answers)
    return heads.build()


@pytest.mark.parametrize("batch", [True, False])
def test_a_bright_cell_is_the_face_its_answers_describe(batch: bool) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[16:32, 32:48] = 255  # row 1, column 2 of stride 16

    boxes, points, scores = load_scrfd(network(batch=batch)).compute_detections(image)

    np.testing.assert_allclose(boxes, [[32 - 8, 16 - 4, 32 + 24, 16 + 32]], atol=1e-4)
    np.testing.assert_allclose(points, [np.array([32, 16]) + 16 * np.reshape(POINTS, (5, 2))], atol=1e-4)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-8 * 127.5 / 128)), atol=1e-5)


def test_a_network_without_landmarks_is_refused() -> None:
    heads = Heads()
    for stride in (8, 16, 32):
        heads.answer(heads.rows(heads.grid(stride, [0.0]), [-1, 1]))

    with pytest.raises(WeightsError, match="three grids"):
        load_scrfd(heads.build())
