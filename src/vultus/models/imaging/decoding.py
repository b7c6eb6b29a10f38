"""Bytes to upright RGB pixels. Every limit is checked on the header, before a pixel is decoded."""

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
from vultus.models.imaging.headers import Header, read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vultus.settings import PhotoSettings

MIN_SIDE_PX = 20
"""Below this no face has enough pixels to be told from another."""

JPEG_SCALES = (8, 4, 2)
"""Divisors at which libjpeg decodes with fast code; its other fractions are slower than a full decode."""

HARMLESS = "extraneous bytes"
"""libjpeg's words for bytes between segments that no picture data is missing from."""

GREY_OR_CMYK_CHANNELS = {1: "GRAY", 3: "RGB"}

DECODER_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error, zlib.error)
"""What Pillow's decoders raise on damaged files."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded photo.

    Attributes:
        pixels: (height, width, 3) uint8, RGB, upright; maybe smaller than the photo.
        width: Of the upright photo at full size, pixels.
        height: Of the upright photo at full size, pixels.
    """

    pixels: Pixels
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo whose header was read and found within the limits; nothing is decoded yet."""

    content: bytes
    header: Header

    @classmethod
    def open(cls, content: bytes, limits: PhotoSettings) -> Photo:
        """Check bytes, format and size.

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

    def divisor(self, longer_side: int) -> int:
        """Return by how much the photo may be shrunk while decoding so that its longer side keeps `longer_side`."""
        if self.header.format != "JPEG":
            return 1
        longest = max(self.header.width, self.header.height)
        return next((scale for scale in JPEG_SCALES if longest >= scale * longer_side), 1)

    def weight(self, longer_side: int) -> int:
        """Return how many pixels the decoder will hold in memory."""
        divisor = 1 if self.header.progressive else self.divisor(longer_side)
        return math.ceil(self.header.width / divisor) * math.ceil(self.header.height / divisor)

    def decode(self, longer_side: int) -> Picture:
        """Decode and turn upright.

        Args:
            longer_side: Pixels the longer side must keep when it has them; a JPEG is decoded no larger than needed.

        Raises:
            ImageTruncatedError: The data ends early or is damaged.
        """
        header = self.header
        try:
            pixels = self._jpeg(self.divisor(longer_side)) if header.format == "JPEG" else self._pillow(1)
        except DECODER_ERRORS as error:
            raise ImageTruncatedError(f"The {header.format} file is truncated or damaged.") from error
        upright = turn_upright(pixels, header.orientation)
        width, height = (header.height, header.width) if header.turned else (header.width, header.height)
        return Picture(np.ascontiguousarray(upright), width, height)

    def _jpeg(self, divisor: int) -> Pixels:
        """Decode with simplejpeg, or with Pillow what simplejpeg does not take."""
        if self.header.channels not in GREY_OR_CMYK_CHANNELS:
            return self._pillow(divisor)
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(
                self.content,
                "RGB",
                min_height=math.ceil(self.header.height / divisor) if divisor > 1 else 0,
                min_width=math.ceil(self.header.width / divisor) if divisor > 1 else 0,
                min_factor=divisor,
            )
        except ValueError as error:
            if HARMLESS not in str(error):
                raise
            return self._pillow(divisor)
        return pixels

    def _pillow(self, divisor: int) -> Pixels:
        """Decode with the plugin of the format; Image.open would judge the size by a limit of its own."""
        plugins: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
            "JPEG": JpegImagePlugin.JpegImageFile,
            "PNG": PngImagePlugin.PngImageFile,
            "WebP": WebPImagePlugin.WebPImageFile,
        }
        with plugins[self.header.format](io.BytesIO(self.content)) as image:
            if image.size != (self.header.width, self.header.height):
                # Two headers in one file: what was judged is not what would be decoded.
                raise ImageTruncatedError(f"The {self.header.format} file contradicts itself about its size.")
            if divisor > 1:
                image.draft(None, (image.width // divisor, image.height // divisor))
            image.load()
            return to_rgb(image)


def to_rgb(image: Image.Image) -> Pixels:
    """Return the RGB pixels of a loaded image of any mode; what is transparent becomes white."""
    if image.mode.startswith("I"):  # 16 bits of grey
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, layers).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def turn_upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an Exif orientation.

    Args:
        pixels: (height, width, 3) as stored.
        orientation: 1..8 after CIPA DC-008: where the stored picture's first row and column belong.
    """
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
