"""Detectors: face boxes and landmarks. One file per detector, one Protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vultus.domain import DetectedFace, Pixels


class Detector(Protocol):
    """Finds faces with five landmarks."""

    def detect(self, pixels: Pixels, min_face_px: float) -> list[DetectedFace]:
        """Return every face once, best first, in the coordinates of `pixels`.

        Args:
            pixels: (height, width, 3) uint8, RGB, upright; any size.
            min_face_px: Smallest box side to find, in pixels of this image.
        """
        ...
