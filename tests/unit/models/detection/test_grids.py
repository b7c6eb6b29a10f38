"""Heads are identified by their shapes, in any order and with any leading dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from vultus.errors import WeightsError
from vultus.models.detection.grids import compute_cell_corners, group_heads_by_grid


def test_heads_are_sorted_by_grid_and_width() -> None:
    outputs = [np.full((1, n, width), n + width, np.float32) for width in (10, 4) for n in (6, 96, 24)]
    outputs += [np.full((n, 1), n + 1, np.float32) for n in (24, 6, 96)]

    found = group_heads_by_grid(outputs, (1, 4, 10))

    assert [[head[0, 0] for head in grid] for grid in found] == [[n + 1, n + 4, n + 10] for n in (96, 24, 6)]


def test_outputs_of_another_network_are_refused() -> None:
    with pytest.raises(WeightsError, match="three grids"):
        group_heads_by_grid([np.zeros((1, 128), np.float32)], (1, 4, 10))


def test_two_outputs_per_cell_share_its_corner() -> None:
    found = compute_cell_corners(np.array([0, 1, 5, 23]), (48, 64), 16, 24)

    np.testing.assert_array_equal(found, [[0, 0], [0, 0], [32, 0], [48, 32]])
