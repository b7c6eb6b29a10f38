"""Decoding of photos to upright RGB pixels. Every limit is checked on the header, before a pixel is decoded."""

from __future__ import annotations

import io
import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from vultus.domain import Pixels
from vultus.errors import ImageTooLargeError, ImageTooSmallError, ImageTruncatedError
from vultus.models.imaging.headers import ImageHeader, read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vultus.settings import PhotoSettings

MIN_SIDE_PX = 20
"""Below this no face has enough pixels to be recognised."""

JPEG_SCALES = (8, 4, 2)
"""Divisors for which libjpeg has fast code; its other fractions are slower than a full decode."""

HARMLESS_WARNING = "extraneous bytes"
"""libjpeg's warning about bytes between segments, when no image data is missing."""

SIMPLEJPEG_COLOUR_SPACES = {1: "GRAY", 3: "RGB"}

DECODER_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error, zlib.error)
"""Exceptions that Pillow's decoders raise on damaged files."""


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


@dataclass(frozen=True, slots=True)
class EncodedPhoto:
    """A photo whose header was read and is within the limits; nothing is decoded yet."""

    content: bytes
    header: ImageHeader

    @classmethod
    def open(cls, content: bytes, limits: PhotoSettings) -> EncodedPhoto:
        """Read the header and check bytes, format and size.

        Raises:
            NotAnImageError: The bytes are no image, or there are none.
            UnsupportedImageError: An image of a format that is not read.
            ImageTruncatedError: The header is incomplete.
            ImageTooLargeError: More bytes or pixels than the limits.
            ImageTooSmallError: A side has fewer than `MIN_SIDE_PX` pixels.
        """
        if len(content) > limits.max_bytes:
            raise ImageTooLargeError(f"The photo has {len(content):,} bytes; the limit is {limits.max_bytes:,}.")
        header = read_header(content)
        pixels = header.width * header.height
        if pixels > limits.max_pixels:
            raise ImageTooLargeError(f"The photo has {pixels:,} pixels; the limit is {limits.max_pixels:,}.")
        if min(header.width, header.height) < MIN_SIDE_PX:
            raise ImageTooSmallError(
                f"The photo has {header.width} × {header.height} pixels; both sides need {MIN_SIDE_PX}."
            )
        return cls(content, header)

    def compute_divisor(self, longer_side: int) -> int:
        """Return the largest divisor for decoding at which the longer side keeps `longer_side` pixels."""
        if self.header.format != "JPEG":
            return 1
        longest = max(self.header.width, self.header.height)
        return next((scale for scale in JPEG_SCALES if longest >= scale * longer_side), 1)

    def count_decoded_pixels(self, longer_side: int) -> int:
        """Return how many pixels the decoder holds in memory."""
        divisor = 1 if self.header.is_progressive else self.compute_divisor(longer_side)
        return math.ceil(self.header.width / divisor) * math.ceil(self.header.height / divisor)

    def decode(self, longer_side: int) -> DecodedPhoto:
        """Decode the photo and apply the Exif orientation.

        Args:
            longer_side: Pixels the longer side keeps, if it has as many; a JPEG is decoded no larger than necessary.

        Raises:
            ImageTruncatedError: The data ends early or is damaged.
        """
        header = self.header
        try:
            pixels = (
                self._decode_jpeg(self.compute_divisor(longer_side))
                if header.format == "JPEG"
                else self._decode_with_pillow(1)
            )
        except DECODER_ERRORS as error:
            raise ImageTruncatedError(f"The {header.format} file is truncated or damaged.") from error
        upright = turn_upright(pixels, header.orientation)
        width, height = (header.height, header.width) if header.is_transposed else (header.width, header.height)
        return DecodedPhoto(np.ascontiguousarray(upright), width, height)

    def _decode_jpeg(self, divisor: int) -> Pixels:
        """Decode with simplejpeg, or with Pillow if simplejpeg does not support the file."""
        if self.header.channels not in SIMPLEJPEG_COLOUR_SPACES:
            return self._decode_with_pillow(divisor)
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(
                self.content,
                "RGB",
                min_height=math.ceil(self.header.height / divisor) if divisor > 1 else 0,
                min_width=math.ceil(self.header.width / divisor) if divisor > 1 else 0,
                min_factor=divisor,
            )
        except ValueError as error:
            if HARMLESS_WARNING not in str(error):
                raise
            return self._decode_with_pillow(divisor)
        return pixels

    def _decode_with_pillow(self, divisor: int) -> Pixels:
        """Decode with the plugin of the format; `Image.open` would apply its own limit to the size."""
        plugins: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
            "JPEG": JpegImagePlugin.JpegImageFile,
            "PNG": PngImagePlugin.PngImageFile,
            "WebP": WebPImagePlugin.WebPImageFile,
        }
        with plugins[self.header.format](io.BytesIO(self.content)) as image:
            if image.size != (self.header.width, self.header.height):
                # Two headers in one file: the size that was checked is not that of the image to decode.
                raise ImageTruncatedError(f"The {self.header.format} file contradicts itself about its size.")
            if divisor > 1:
                image.draft(None, (image.width // divisor, image.height // divisor))
            image.load()
            return to_rgb(image)


def to_rgb(image: Image.Image) -> Pixels:
    """Return the RGB pixels of a loaded image of any mode, composited on white."""
    if image.mode.startswith("I"):  # 16 bits of grey
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, layers).convert("RGB"))
    return np.asarray(image.convert("RGB"))


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
