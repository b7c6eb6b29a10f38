"""Photos turned by quarters of a circle: their pixels upright, and faces found there in the photo as it was sent.

Many programs drop the Exif orientation of a photo without turning its pixels, and no detector finds a face that lies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import Box

if TYPE_CHECKING:
    from vultus.domain import DetectedFace
    from vultus.models.imaging.decoding import DecodedPhoto

QUARTER_TURNS = (1, 3, 2)
"""The turns of a photo that is not upright: counterclockwise, in quarters of a circle."""


def turn_photo(photo: DecodedPhoto, quarters: int) -> DecodedPhoto:
    """Return a photo turned counterclockwise by quarters of a circle, 0..3."""
    if not quarters:
        return photo
    sides = (photo.width, photo.height) if quarters % 2 == 0 else (photo.height, photo.width)
    return type(photo)(np.ascontiguousarray(np.rot90(photo.pixels, quarters)), *sides)


def turn_face_back(face: DetectedFace, quarters: int, width: int, height: int) -> DetectedFace:
    """Return a face in pixels of the photo as it was sent; its landmarks keep their order.

    Args:
        face: Found in the turned photo.
        quarters: By which the photo was turned counterclockwise, 0..3.
        width: Of the photo as it was sent, pixels.
        height: Of the photo as it was sent, pixels.
    """
    for turned_back in range(quarters):
        # Before its last quarter turn the photo had this width; the turn moved (x, y) to (y, width − x).
        across = width if (quarters - turned_back) % 2 else height
        box, points = face.box, face.landmarks
        face = replace(
            face,
            box=Box(across - box.bottom, box.left, across - box.top, box.right),
            landmarks=np.stack([across - points[:, 1], points[:, 0]], axis=1).astype(np.float32),
        )
    return face
