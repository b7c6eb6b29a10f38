"""Reading the heads of detectors that answer once for every cell of a few grids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.models.imaging.geometry import Floats, Indices

STRIDES = (8, 16, 32)
"""Pixels between the cells of each grid."""


def heads(outputs: Sequence[Floats], widths: tuple[int, ...]) -> list[list[Floats]]:
    """Sort a network's outputs by grid, whatever order and batch dimension its exporter gave them.

    Args:
        outputs: One array a grid and kind of answer; the last dimension tells the kind, the others number the answers.
        widths: Last dimensions of the kinds, ascending.

    Returns:
        For each grid, finest first, its (answers, width) arrays in the order of `widths`; kinds of equal width keep the
        exporter's order.

    Raises:
        WeightsError: These are not the heads of such a detector.
    """
    flat = [output.reshape(-1, output.shape[-1]) for output in outputs]
    lengths = sorted({len(head) for head in flat}, reverse=True)
    grids = [sorted((head for head in flat if len(head) == n), key=lambda head: head.shape[1]) for n in lengths]
    found = [tuple(head.shape[1] for head in grid) for grid in grids]
    if found != [widths] * len(STRIDES):
        raise WeightsError(f"The network's answers are {found} numbers wide, not {widths} on each of three grids.")
    return grids


def corners(indices: Indices, image: tuple[int, int], stride: int, answers: int) -> Floats:
    """Return the (n, 2) corners, x then y, of the cells some answers belong to.

    Args:
        indices: (n,) of the answers; those of a cell follow each other, cells run along the rows.
        image: Height and width of what the network was shown.
        stride: Of the grid.
        answers: How many the grid gave.
    """
    rows, columns = image[0] // stride, image[1] // stride
    cells = indices // (answers // (rows * columns))
    return np.stack([cells % columns, cells // columns], axis=1) * float(stride)
