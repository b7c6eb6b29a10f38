"""Boxes, suppression and similarity transforms: pure NumPy, sources cited.

Coordinates are continuous: (0, 0) is the outer corner of the first pixel, whose centre is (0.5, 0.5). Scaling an image
by s therefore scales every coordinate by s, without half-pixel shifts.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]
Overlap = Literal["union", "min"]

BLOCK = 128
"""Boxes compared with all others at once."""


def box_areas(boxes: Floats) -> Floats:
    """Return the areas of (n, 4) boxes given as left, top, right, bottom; inverted boxes count as empty."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas: Floats = sides[:, 0] * sides[:, 1]
    return areas


def overlaps(these: Floats, those: Floats, mode: Overlap = "union") -> Floats:
    """Return how much every box of one list overlaps every box of another.

    Args:
        these: (m, 4) left, top, right, bottom.
        those: (n, 4) in the same order.
        mode: `union` divides the common area by the area covered by both (intersection over union); `min` divides it
            by the smaller of the two, so that a box inside another overlaps it fully.

    Returns:
        (m, n) in 0..1; 0 where a box is empty.
    """
    width = np.minimum(these[:, 2, None], those[:, 2]) - np.maximum(these[:, 0, None], those[:, 0])
    height = np.minimum(these[:, 3, None], those[:, 3]) - np.maximum(these[:, 1, None], those[:, 1])
    common = np.maximum(width, 0) * np.maximum(height, 0)
    mine, theirs = box_areas(these)[:, None], box_areas(those)[None]
    whole = np.minimum(mine, theirs) if mode == "min" else mine + theirs - common
    shares: Floats = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return shares


def suppress(boxes: Floats, scores: Floats, limit: float, mode: Overlap = "union") -> Indices:
    """Keep the best of every group of overlapping boxes: greedy non-maximum suppression.

    Args:
        boxes: (n, 4) left, top, right, bottom.
        scores: (n,) higher is better; ties keep the earlier box.
        limit: A box that overlaps a better kept one by more than this is dropped.
        mode: As in `overlaps`.

    Returns:
        Indices of the kept boxes, best first.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept = waiting[:0]
    while waiting.size:
        # In blocks: one array operation for many boxes, without a matrix of all against all.
        block, waiting = waiting[:BLOCK], waiting[BLOCK:]
        clash = overlaps(boxes[block], boxes[block], mode) > limit
        dropped = np.zeros(len(block), np.bool_)
        alive: list[int] = []
        for i in range(len(block)):
            if not dropped[i]:
                alive.append(i)
                dropped |= clash[i]
        best = block[alive]
        kept = np.concatenate([kept, best])
        if waiting.size:
            waiting = waiting[~(overlaps(boxes[best], boxes[waiting], mode) > limit).any(axis=0)]
    return kept


def squares(boxes: Floats) -> Floats:
    """Return the (n, 4) squares with the centres and longer sides of the boxes."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    halves = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def shift_sides(boxes: Floats, offsets: Floats) -> Floats:
    """Move the four sides of (n, 4) boxes by (n, 4) fractions of their width and height."""
    sides = boxes[:, 2:] - boxes[:, :2]
    moved: Floats = boxes + offsets * np.concatenate([sides, sides], axis=1)
    return moved


def similarity_transform(source: Floats, target: Floats) -> Floats:
    """Find the rotation, uniform scale and shift that best carries `source` onto `target`; never a reflection.

    Least squares after Umeyama (1991), "Least-squares estimation of transformation parameters between two point
    patterns", IEEE PAMI 13(4), eq. 40 to 42.

    Args:
        source: (n, 2) points, x then y, n ≥ 2.
        target: (n, 2) points in the same order.

    Returns:
        A (2, 3) float64 matrix m such that target ≈ source @ m[:, :2].T + m[:, 2].

    Raises:
        ValueError: The shapes differ or are not (n, 2), a number is not finite, or all source points coincide.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or len(source) < 2:
        raise ValueError(f"Need two (n, 2) arrays of points, not {source.shape} and {target.shape}.")
    here, there = source.astype(np.float64), target.astype(np.float64)
    if not (np.isfinite(here).all() and np.isfinite(there).all()):
        raise ValueError("A coordinate is not finite.")
    here_mean, there_mean = here.mean(axis=0), there.mean(axis=0)
    here, there = here - here_mean, there - there_mean
    variance = (here**2).sum() / len(here)
    if variance <= 1e-12 * max(1.0, float(np.abs(here_mean).max()) ** 2):
        raise ValueError("All source points coincide.")
    left, stretch, right = np.linalg.svd(there.T @ here / len(here))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    rotation = (left * signs) @ right
    scale = (stretch * signs).sum() / variance
    matrix: Floats = np.empty((2, 3))
    matrix[:, :2] = scale * rotation
    matrix[:, 2] = there_mean - matrix[:, :2] @ here_mean
    return matrix


def transform(points: Floats, matrix: Floats) -> Floats:
    """Carry (n, 2) points through a (2, 3) matrix."""
    moved: Floats = points @ matrix[:, :2].T + matrix[:, 2]
    return moved


def inverse(matrix: Floats) -> Floats:
    """Return the (2, 3) matrix that undoes a (2, 3) matrix."""
    undone: Floats = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    return undone


def scale_of(matrix: Floats) -> float:
    """Return the factor by which a (2, 3) similarity enlarges lengths."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))
