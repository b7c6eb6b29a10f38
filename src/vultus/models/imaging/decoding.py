"""Decoding of photos to upright RGB pixels. Every limit is checked on the header, before a pixel is decoded."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from vultus.domain import Pixels
from vultus.errors import ImageTooLargeError, ImageTooSmallError, ImageTruncatedError
from vultus.models.imaging.formats import build_refusal
from vultus.models.imaging.heif import open_heif
from vultus.models.imaging.jpeg import JpegPicture
from vultus.models.imaging.picture import EncodedPicture, ImageHeader
from vultus.models.imaging.png import SIGNATURE, PngPicture
from vultus.models.imaging.webp import WebpPicture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.settings import PhotoSettings

MIN_SIDE_PX = 20
"""Below this no face has enough pixels to be recognised."""

SCALES = (8, 4, 2)
"""Divisors for which libjpeg has fast code; its other fractions are slower than a full decode."""

SEARCH_COPIES = 4
"""Copies of a shrunk photo while it is searched: itself, two that are turned, and what the detector makes of one."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedPhoto:
    """A decoded photo.

    Attributes:
        pixels: (height, width, 3) uint8, RGB, upright; possibly smaller than the photo.
        width: Of the upright photo at full size, pixels.
        height: Of the upright photo at full size, pixels.
    """

    pixels: Pixels
    width: int
    height: int

    def shrink(self, longer_side: int) -> DecodedPhoto:
        """Return the photo with sides divided by the largest of `SCALES` that leave the longer one `longer_side`."""
        height, width = self.pixels.shape[:2]
        divisor = find_divisor(max(width, height), longer_side)
        if divisor == 1:
            return self
        sides = math.ceil(width / divisor), math.ceil(height / divisor)
        smaller = cast("Pixels", cv2.resize(self.pixels, sides, interpolation=cv2.INTER_AREA))
        return DecodedPhoto(smaller, self.width, self.height)


@dataclass(frozen=True, slots=True)
class EncodedPhoto:
    """A photo whose header was read and is within the limits; nothing is decoded yet."""

    picture: EncodedPicture

    @classmethod
    def open(cls, content: bytes, limits: PhotoSettings, max_pixels: int | None = None) -> EncodedPhoto:
        """Read the header and check bytes, format and size.

        Args:
            content: The file.
            limits: Of all photos.
            max_pixels: Of this one, if that is less.

        Raises:
            NotAnImageError: The bytes are no image, or there are none.
            UnsupportedImageError: An image of a format that is not read.
            ImageTruncatedError: The header is incomplete.
            ImageTooLargeError: More bytes or pixels than the limits, or decoding would need more memory.
            ImageTooSmallError: A side has fewer than `MIN_SIDE_PX` pixels.
        """
        if len(content) > limits.max_bytes:
            raise ImageTooLargeError(f"The photo has {len(content):,} bytes; the limit is {limits.max_bytes:,}.")
        picture = open_picture(content)
        header = picture.header
        pixels = header.width * header.height
        most = limits.max_pixels if max_pixels is None else min(max_pixels, limits.max_pixels)
        if pixels > most:
            raise ImageTooLargeError(f"The photo has {pixels:,} pixels; the limit is {most:,}.")
        if min(header.width, header.height) < MIN_SIDE_PX:
            raise ImageTooSmallError(
                f"The photo has {header.width} × {header.height} pixels; both sides need {MIN_SIDE_PX}."
            )
        if (needed := picture.count_bytes(1)) > limits.memory_budget:
            raise ImageTooLargeError(
                f"The photo needs {needed:,} bytes of memory to be decoded; the limit is {limits.memory_budget:,}. "
                "Make it smaller, or save it with 8 bits a channel and without transparency."
            )
        return cls(picture)

    @property
    def header(self) -> ImageHeader:
        """Format, size and orientation."""
        return self.picture.header

    def compute_divisor(self, longer_side: int) -> int:
        """Return the largest divisor for decoding at which the longer side keeps `longer_side` pixels."""
        if self.header.format != "JPEG":
            return 1
        return find_divisor(max(self.header.width, self.header.height), longer_side)

    def count_held_bytes(self, longer_side: int) -> int:
        """Return how many bytes a photo holds at most while it is decoded and searched at a longer side."""
        divisor = self.compute_divisor(longer_side)
        searched = find_divisor(max(self.header.width, self.header.height), longer_side)
        pixels = 3 * self.header.width * self.header.height
        held = max(self.picture.count_bytes(divisor), 2 * pixels // divisor**2)  # twice: turned upright
        return held + SEARCH_COPIES * pixels // searched**2

    def decode(self, longer_side: int) -> DecodedPhoto:
        """Decode the photo and turn it upright.

        Args:
            longer_side: Pixels the longer side keeps, if it has as many; a JPEG is decoded no larger than necessary.

        Raises:
            ImageTruncatedError: The data ends early or is damaged.
        """
        header = self.header
        pixels = self.picture.decode(self.compute_divisor(longer_side))
        upright = turn_upright(pixels, header.orientation)
        width, height = (header.height, header.width) if header.is_transposed else (header.width, header.height)
        return DecodedPhoto(np.ascontiguousarray(upright), width, height)


def find_divisor(longer_side: int, wanted_side: int) -> int:
    """Return the largest of `SCALES` by which a longer side can be divided and keep the wanted pixels; else 1."""
    return next((scale for scale in SCALES if longer_side >= scale * wanted_side), 1)


def open_picture(content: bytes) -> EncodedPicture:
    """Read the header of a photo.

    Raises:
        NotAnImageError: The bytes are no image, or there are none.
        UnsupportedImageError: An image of a format that is not read.
        ImageTruncatedError: The header ends too early or is damaged.
    """
    try:
        if content.startswith(b"\xff\xd8\xff"):
            return JpegPicture(content)
        if content.startswith(SIGNATURE):
            return PngPicture(content)
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return WebpPicture(content)
        if (heif := open_heif(content)) is not None:
            return heif
    except (struct.error, IndexError) as error:
        raise ImageTruncatedError("The photo ends inside its header.") from error
    raise build_refusal(content)


def turn_upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply an Exif orientation.

    Args:
        pixels: (height, width, 3) as stored.
        orientation: 1..8 as in CIPA DC-008: the position of the stored image's first row and column.
    """
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
