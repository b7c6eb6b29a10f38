"""Landmarks to an upright crop that a network was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vultus.models.imaging.geometry import Floats, inverse, scale_of, similarity_transform, transform

if TYPE_CHECKING:
    from vultus.domain import FloatArray, Pixels


@dataclass(frozen=True, slots=True)
class Template:
    """Where the landmarks of one detector belong in the crop of one network.

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
    def words(self) -> str:
        """For a contract."""
        return f"{self.side} px, {' '.join(f'{x:g},{y:g}' for x, y in self.points)}"


def align(pixels: Pixels, landmarks: FloatArray, template: Template) -> Pixels:
    """Cut a face out so that its landmarks fall on the template's as well as a similarity allows.

    A face larger than the crop is first averaged down by a whole factor: interpolating between four pixels far apart
    would turn fine texture into noise.

    Args:
        pixels: (height, width, 3) uint8.
        landmarks: (5, 2) in pixels of the same image.
        template: Of the detector and the network.

    Returns:
        (side, side, 3) uint8; black where the crop reaches past the image.

    Raises:
        ValueError: All landmarks coincide.
    """
    matrix = similarity_transform(landmarks, template.array)
    factor = int(1 / scale_of(matrix))
    if factor >= 2:
        pixels, matrix = _shrink(pixels, matrix, template.side, factor)
    # OpenCV counts from the centre of the first pixel, this package from its corner.
    centred = matrix.copy()
    centred[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    chip: Pixels = cv2.warpAffine(pixels, centred, (template.side, template.side), flags=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return chip


def _shrink(pixels: Pixels, matrix: Floats, side: int, factor: int) -> tuple[Pixels, Floats]:
    """Average the part of the image that the crop covers; return it with the matrix that goes with it."""
    corners = transform(np.array([[0, 0], [side, 0], [0, side], [side, side]], dtype=np.float64), inverse(matrix))
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


def tilt_deg(landmarks: FloatArray) -> float:
    """Return the tilt of the line between the eyes in degrees, clockwise positive."""
    across, down = landmarks[1] - landmarks[0]
    return math.degrees(math.atan2(float(down), float(across)))
