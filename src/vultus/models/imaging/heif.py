"""HEIC and AVIF files, as phones write them: read by libheif and by Pillow's libavif.

How a picture is turned stands in the container (`irot`, `imir`); Exif inside is not to be followed (ISO/IEC 23008-12).
Thumbnails, depth maps and further pictures are not looked at; of a sequence the first picture counts.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
from PIL import AvifImagePlugin, ExifTags

from vultus.errors import ImageTruncatedError, UnsupportedImageError
from vultus.models.imaging.orientation import UPRIGHT
from vultus.models.imaging.picture import ImageHeader
from vultus.models.imaging.pixels import convert_to_rgb

try:
    import pi_heif
except ImportError:  # whoever may not decode HEVC, for its patents, removes the package
    pi_heif = None

if TYPE_CHECKING:
    from vultus.domain import Pixels
    from vultus.models.imaging.picture import EncodedPicture

AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
CONTAINER_BRANDS = frozenset({b"mif1", b"msf1", b"mif2", b"miaf", b"MiHE", b"MiHB", b"1pic"})
"""Of the container alone: another brand says how the picture is coded."""

DECODER_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, IndexError)

AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a worker has one thread
if pi_heif is not None:
    pi_heif.options.DECODE_THREADS = 1
    pi_heif.options.THUMBNAILS = pi_heif.options.DEPTH_IMAGES = pi_heif.options.AUX_IMAGES = False


def open_heif(content: bytes) -> EncodedPicture | None:
    """Return the picture of a HEIC or AVIF file; None if the bytes are none.

    Raises:
        UnsupportedImageError: A file of the container whose picture is coded otherwise, or no decoder is installed.
        ImageTruncatedError: The header ends early or is damaged.
    """
    if content[4:8] != b"ftyp":
        return None
    length = min(int.from_bytes(content[:4], "big"), 1024)
    brands = [content[8:12], *(content[at : at + 4] for at in range(16, length, 4))]
    if brands[0] not in AVIF_BRANDS | HEIC_BRANDS | CONTAINER_BRANDS:
        return None
    if AVIF_BRANDS.intersection(brands):
        return AvifPicture(content)
    if HEIC_BRANDS.intersection(brands):
        return HeicPicture(content)
    raise UnsupportedImageError(
        "HEIF files are read if their picture is coded as HEIC or AVIF; this one names neither.", format="HEIF"
    )


class HeicPicture:
    """A HEIC file; libheif turns its pixels."""

    def __init__(self, content: bytes) -> None:
        if pi_heif is None:
            raise UnsupportedImageError(
                "HEIC files are not read here: the package pi-heif is not installed. Send JPEG, PNG, WebP or AVIF.",
                format="HEIC",
            )
        try:
            self._file = pi_heif.open_heif(content, convert_hdr_to_8bit=True)
            width, height = self._file.size
        except DECODER_ERRORS as error:
            raise ImageTruncatedError("The HEIC file is truncated or damaged, or its picture is not HEVC.") from error
        self._content_bytes = len(content)
        self.header = ImageHeader("HEIC", width, height, UPRIGHT)

    def count_bytes(self, divisor: int) -> int:
        """Return how many bytes decoding holds, as measured."""
        del divisor
        return (
            (17 if self._file.has_alpha else 10) * self.header.width * self.header.height
            + 2 * self._content_bytes
            + 2**22
        )

    def decode(self, divisor: int) -> Pixels:
        """Return the upright pixels, at full size, composited on white."""
        del divisor
        try:
            pixels = np.array(self._file)  # a copy: the file owns the memory that its arrays show
        except DECODER_ERRORS as error:
            raise ImageTruncatedError("The HEIC file is truncated or damaged.") from error
        if pixels.shape[:2] != (self.header.height, self.header.width):
            raise ImageTruncatedError("The HEIC file contradicts itself about its size.")
        return _convert_rgb_order(pixels)


class AvifPicture:
    """An AVIF file."""

    def __init__(self, content: bytes) -> None:
        try:
            self._image = AvifImagePlugin.AvifImageFile(io.BytesIO(content))
            orientation = self._image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
        except DECODER_ERRORS as error:
            raise ImageTruncatedError("The AVIF file is truncated or damaged.") from error
        self._content_bytes = len(content)
        # Pillow states here what the container says, whatever Exif says.
        self.header = ImageHeader(
            "AVIF", *self._image.size, int(orientation) if orientation in range(1, 9) else UPRIGHT
        )

    def count_bytes(self, divisor: int) -> int:
        """Return how many bytes decoding holds, as measured: planes, interleaved pixels, and Pillow's copies."""
        del divisor
        return 16 * self.header.width * self.header.height + 2 * self._content_bytes + 2**22

    def decode(self, divisor: int) -> Pixels:
        """Return the pixels as stored, at full size, composited on white."""
        del divisor
        try:
            self._image.load()
        except DECODER_ERRORS as error:
            raise ImageTruncatedError("The AVIF file is truncated or damaged.") from error
        return _convert_rgb_order(np.asarray(self._image))


def _convert_rgb_order(pixels: Pixels) -> Pixels:
    """Return RGB of grey, RGB or RGBA."""
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return pixels
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = cast("Pixels", cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))
    return convert_to_rgb(pixels)
