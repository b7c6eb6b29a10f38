"""Alignment of a face by its landmarks to the upright crop that a network takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vultus.models.imaging.geometry import (
    Floats,
    compute_transform_scale,
    estimate_similarity_transform,
    invert_transform,
    transform_points,
)

if TYPE_CHECKING:
    from vultus.domain import FloatArray, Pixels


@dataclass(frozen=True, slots=True)
class AlignmentTemplate:
    """Target positions of a detector's landmarks in a network's crop.

    Attributes:
        side: Of the square crop, pixels.
        points: Five (x, y) in pixels of the crop, in the order of `DetectedFace.landmarks`.
    """

    side: int
    points: tuple[tuple[float, float], ...]

    @property
    def array(self) -> FloatArray:
        """The points as (5, 2) float32."""
        return np.array(self.points, dtype=np.float32)

    @property
    def description(self) -> str:
        """Part of the space's id."""
        return f"{self.side} px, {' '.join(f'{x:g},{y:g}' for x, y in self.points)}"


def align_face(pixels: Pixels, landmarks: FloatArray, template: AlignmentTemplate) -> Pixels:
    """Crop a face so that its landmarks match the template's, by a least-squares similarity transform.

    A face larger than the crop is first downsampled by averaging with an integer factor: bilinear interpolation alone
    would turn fine texture into noise (aliasing).

    Args:
        pixels: (height, width, 3) uint8.
        landmarks: (5, 2) in pixels of the same image.
        template: Of the detector and the network.

    Returns:
        (side, side, 3) uint8; black outside the image.

    Raises:
        ValueError: All landmarks coincide.
    """
    matrix = estimate_similarity_transform(landmarks, template.array)
    factor = int(1 / compute_transform_scale(matrix))
    if factor >= 2:
        pixels, matrix = _downsample_region(pixels, matrix, template.side, factor)
    # OpenCV's coordinates start at the centre of the first pixel, this package's at its corner.
    centred = matrix.copy()
    centred[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    chip: Pixels = cv2.warpAffine(pixels, centred, (template.side, template.side), flags=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return chip


def _downsample_region(pixels: Pixels, matrix: Floats, side: int, factor: int) -> tuple[Pixels, Floats]:
    """Downsample the region that the crop covers by averaging; return it with the adjusted matrix."""
    corners = transform_points(
        np.array([[0, 0], [side, 0], [0, side], [side, side]], dtype=np.float64), invert_transform(matrix)
    )
    height, width = pixels.shape[:2]
    first = np.clip(np.floor(corners.min(axis=0)) - 2 * factor, 0, [width, height]).astype(int)
    last = np.clip(np.ceil(corners.max(axis=0)) + 2 * factor, 0, [width, height]).astype(int)
    size = (last - first) // factor
    if (size < 1).any():
        return pixels, matrix
    left, top = first.tolist()
    columns, rows = size.tolist()
    part = pixels[top : top + rows * factor, left : left + columns * factor]
    small: Pixels = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ first
    moved[:, :2] *= factor
    return small, moved


def compute_tilt_deg(landmarks: FloatArray) -> float:
    """Return the tilt of the line between the eyes in degrees, clockwise positive."""
    across, down = landmarks[1] - landmarks[0]
    return math.degrees(math.atan2(float(down), float(across)))
