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

BLOCK_SIZE = 128
"""Boxes compared with all others in one array operation."""


def compute_box_areas(boxes: Floats) -> Floats:
    """Return the areas of (n, 4) boxes given as left, top, right, bottom; inverted boxes count as empty."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas: Floats = sides[:, 0] * sides[:, 1]
    return areas


def compute_overlaps(first_boxes: Floats, second_boxes: Floats, mode: Overlap = "union") -> Floats:
    """Return the overlap of every box of one list with every box of another.

    Args:
        first_boxes: (m, 4) left, top, right, bottom.
        second_boxes: (n, 4) in the same order.
        mode: `union` divides the common area by the area covered by both (intersection over union); `min` divides it
            by the smaller of the two areas, so that a box inside another overlaps it fully.

    Returns:
        (m, n) in 0..1; 0 where a box is empty.
    """
    width = np.minimum(first_boxes[:, 2, None], second_boxes[:, 2]) - np.maximum(
        first_boxes[:, 0, None], second_boxes[:, 0]
    )
    height = np.minimum(first_boxes[:, 3, None], second_boxes[:, 3]) - np.maximum(
        first_boxes[:, 1, None], second_boxes[:, 1]
    )
    common = np.maximum(width, 0) * np.maximum(height, 0)
    first_areas, second_areas = compute_box_areas(first_boxes)[:, None], compute_box_areas(second_boxes)[None]
    whole = np.minimum(first_areas, second_areas) if mode == "min" else first_areas + second_areas - common
    shares: Floats = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return shares


def suppress_non_maxima(boxes: Floats, scores: Floats, limit: float, mode: Overlap = "union") -> Indices:
    """Return the best of every group of overlapping boxes: greedy non-maximum suppression.

    Args:
        boxes: (n, 4) left, top, right, bottom.
        scores: (n,) higher is better; ties keep the earlier box.
        limit: A box that overlaps a better kept box by more than this is dropped.
        mode: As in `compute_overlaps`.

    Returns:
        Indices of the kept boxes, best first.
    """
    remaining = np.argsort(-scores, kind="stable")
    kept = remaining[:0]
    while remaining.size:
        # In blocks: one array operation for many boxes, without the full matrix of overlaps.
        block, remaining = remaining[:BLOCK_SIZE], remaining[BLOCK_SIZE:]
        clash = compute_overlaps(boxes[block], boxes[block], mode) > limit
        dropped = np.zeros(len(block), np.bool_)
        alive: list[int] = []
        for i in range(len(block)):
            if not dropped[i]:
                alive.append(i)
                dropped |= clash[i]
        best = block[alive]
        kept = np.concatenate([kept, best])
        if remaining.size:
            remaining = remaining[~(compute_overlaps(boxes[best], boxes[remaining], mode) > limit).any(axis=0)]
    return kept


def convert_to_squares(boxes: Floats) -> Floats:
    """Return the (n, 4) squares with the centres and longer sides of the boxes."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    halves = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def shift_sides(boxes: Floats, offsets: Floats) -> Floats:
    """Move the four sides of (n, 4) boxes by (n, 4) fractions of their width and height."""
    sides = boxes[:, 2:] - boxes[:, :2]
    moved: Floats = boxes + offsets * np.concatenate([sides, sides], axis=1)
    return moved


def estimate_similarity_transform(source: Floats, target: Floats) -> Floats:
    """Return the rotation, uniform scale and shift that best maps `source` to `target`; never a reflection.

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
    source_points, target_points = source.astype(np.float64), target.astype(np.float64)
    if not (np.isfinite(source_points).all() and np.isfinite(target_points).all()):
        raise ValueError("A coordinate is not finite.")
    source_mean, target_mean = source_points.mean(axis=0), target_points.mean(axis=0)
    source_points, target_points = source_points - source_mean, target_points - target_mean
    variance = (source_points**2).sum() / len(source_points)
    if variance <= 1e-12 * max(1.0, float(np.abs(source_mean).max()) ** 2):
        raise ValueError("All source points coincide.")
    left, stretch, right = np.linalg.svd(target_points.T @ source_points / len(source_points))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    rotation = (left * signs) @ right
    scale = (stretch * signs).sum() / variance
    matrix: Floats = np.empty((2, 3))
    matrix[:, :2] = scale * rotation
    matrix[:, 2] = target_mean - matrix[:, :2] @ source_mean
    return matrix


def transform_points(points: Floats, matrix: Floats) -> Floats:
    """Transform (n, 2) points with a (2, 3) matrix."""
    moved: Floats = points @ matrix[:, :2].T + matrix[:, 2]
    return moved


def invert_transform(matrix: Floats) -> Floats:
    """Return the (2, 3) inverse of a (2, 3) affine matrix."""
    inverse: Floats = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    return inverse


def compute_transform_scale(matrix: Floats) -> float:
    """Return the factor by which a (2, 3) similarity enlarges lengths."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))
