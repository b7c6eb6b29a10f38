"""YuNet's outputs are decoded as by its authors, whatever input size its file declares."""

from __future__ import annotations

import numpy as np
import pytest
from tests.heads import Heads

from vultus.errors import WeightsError
from vultus.models.detection.yunet import load_yunet

POINTS = [0.1, 0.2, 1.1, 0.3, 0.6, 0.7, 0.2, 1.2, 1.0, 1.3]


def network(side: int | None) -> bytes:
    """One output per cell; only those of stride 8 can be faces."""
    heads = Heads()
    for kind in range(4):
        for stride in (8, 16, 32):
            seldom = 0.0 if stride == 8 else -50.0
            size: list[float] = np.log([4, 6]).tolist()
            biases = ([seldom - 8], [seldom - 4], [0.25, 0.5, *size], POINTS)[kind]
            answers = heads.rows(heads.grid(stride, biases, [16 / 255] if kind < 2 else None), [1, -1, len(biases)])
            heads.answer(heads.sigmoid(answers) if kind < 2 else answers)
    return heads.build(side)


@pytest.mark.parametrize("side", [None, 640])
def test_a_bright_cell_is_the_face_its_answers_describe(side: int | None) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[24:32, 40:48] = 255  # row 3, column 5 of stride 8

    boxes, points, scores = load_yunet(network(side)).compute_detections(image)

    np.testing.assert_allclose(boxes, [[42 - 16, 28 - 24, 42 + 16, 28 + 24]], atol=1e-4)
    np.testing.assert_allclose(points, [np.array([40, 24]) + 8 * np.reshape(POINTS, (5, 2))], atol=1e-4)
    np.testing.assert_allclose(scores, np.sqrt(1 / (1 + np.exp(-8)) / (1 + np.exp(-12))), atol=1e-5)


def test_another_network_is_refused() -> None:
    heads = Heads()
    heads.answer(heads.grid(8, [0.0]))

    with pytest.raises(WeightsError, match="three grids"):
        load_yunet(heads.build())


def test_a_network_whose_layers_take_one_size_only_is_refused() -> None:
    heads = Heads()
    heads.answer(heads.rows(heads.grid(8, [0.0]), [1, 6400, 1]))

    with pytest.raises(WeightsError, match="does not answer as Yunet does"):
        load_yunet(heads.build(640))
