"""A face with its surroundings as a small photo, from which any detector and network can describe it again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import simplejpeg

from vultus.domain import Box, Crop, Pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

ENLARGED = 3.0
"""Side of a crop, in longer sides of the face's box.

Measured on 300 photos of LFW with the pack `builtin`: described from its crop, every face had a cosine of 0.9922 or
more to its own vector; with 1.5, 2 and 2.5 single faces fell to 0.986.
"""

MOST_PX = 512
"""Longest side of a crop, pixels: a face of 170, more than the networks look at."""

QUALITY = 95

GREY = 128
"""Covers the faces of others: they gave no consent to being kept."""


def scale_of_crop(box: Box) -> float:
    """Return by how much a face is enlarged in a crop that has `MOST_PX`."""
    return MOST_PX / (ENLARGED * max(box.width, box.height))


def cut(pixels: Pixels, box: Box, others: Sequence[Box] = ()) -> Crop:
    """Cut the square around a face out of a photo, as far as the photo reaches, with other faces covered in grey.

    Args:
        pixels: (height, width, 3) RGB.
        box: Of the face, in pixels of the same image.
        others: Boxes of the other faces; where one overlaps the face's own box, that part stays.
    """
    (across, down), half = box.centre, ENLARGED * max(box.width, box.height) / 2
    height, width = pixels.shape[:2]
    left, top = max(0, math.floor(across - half)), max(0, math.floor(down - half))
    part = pixels[top : min(height, math.ceil(down + half)), left : min(width, math.ceil(across + half))].copy()
    own = _within(part, box, left, top)
    kept = own.copy()
    for other in others:
        _within(part, other, left, top)[:] = GREY
    own[:] = kept
    factor = min(1.0, MOST_PX / max(part.shape[:2]))
    if factor < 1:
        size = (max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor)))
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    inside = [
        (at - start) * factor
        for at, start in zip((box.left, box.top, box.right, box.bottom), (left, top) * 2, strict=True)
    ]
    return Crop(simplejpeg.encode_jpeg(part, quality=QUALITY, colorspace="RGB", colorsubsampling="444"), Box(*inside))


def _within(part: Pixels, box: Box, left: int, top: int) -> Pixels:
    """Return the view of a box in a part of an image whose corner is at (left, top); empty if it lies outside."""
    across = [min(max(at - left, 0), part.shape[1]) for at in (math.floor(box.left), math.ceil(box.right))]
    down = [min(max(at - top, 0), part.shape[0]) for at in (math.floor(box.top), math.ceil(box.bottom))]
    return part[slice(*down), slice(*across)]
