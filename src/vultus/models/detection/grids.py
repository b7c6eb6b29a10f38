"""Reading the heads of detectors that predict for every cell of three grids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.models.imaging.geometry import Floats, Indices

STRIDES = (8, 16, 32)
"""Pixels between the cells of each grid."""


def group_heads_by_grid(outputs: Sequence[Floats], widths: tuple[int, ...]) -> list[list[Floats]]:
    """Return a network's outputs grouped by grid, independent of the exporter's order and batch dimension.

    Args:
        outputs: One array per grid and head; the last dimension identifies the head, the others count the predictions.
        widths: Last dimensions of the heads, ascending.

    Returns:
        For each grid, finest first, its (predictions, width) arrays in the order of `widths`; heads of equal width keep
        the exporter's order.

    Raises:
        WeightsError: The outputs are not the heads of such a detector.
    """
    flat = [output.reshape(-1, output.shape[-1]) for output in outputs]
    lengths = sorted({len(head) for head in flat}, reverse=True)
    grids = [sorted((head for head in flat if len(head) == n), key=lambda head: head.shape[1]) for n in lengths]
    found = [tuple(head.shape[1] for head in grid) for grid in grids]
    if found != [widths] * len(STRIDES):
        raise WeightsError(f"The network's answers are {found} numbers wide, not {widths} on each of three grids.")
    return grids


def compute_cell_corners(indices: Indices, image: tuple[int, int], stride: int, answers: int) -> Floats:
    """Return the (n, 2) top left corners, x then y in pixels, of the cells of some predictions.

    Args:
        indices: (n,) of the predictions; those of a cell are adjacent, cells are in row-major order.
        image: Height and width of the network's input image, pixels.
        stride: Of the grid, pixels.
        answers: Number of predictions of the grid.
    """
    rows, columns = image[0] // stride, image[1] // stride
    cells = indices // (answers // (rows * columns))
    return np.stack([cells % columns, cells // columns], axis=1) * float(stride)
