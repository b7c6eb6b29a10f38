"""Format, size and orientation from a photo's header, before any decoder runs.

Sources: JPEG: ITU-T T.81, annex B. PNG: W3C Portable Network Graphics (third edition), 5 and 11. WebP: RFC 9649.
Exif: TIFF 6.0, section 2, and CIPA DC-008 (orientation: tag 274).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vultus.errors import ImageTruncatedError, NotAnImageError, UnsupportedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

ImageFormat = Literal["JPEG", "PNG", "WebP"]

UPRIGHT = 1
ORIENTATION_TAG = 274
TIFF_SHORT = 3

JPEG_START, JPEG_SCAN, JPEG_END, JPEG_APP1 = 0xD8, 0xDA, 0xD9, 0xE1
JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
JPEG_PROGRESSIVE = frozenset({0xC2, 0xCA})
JPEG_OTHER_FRAMES = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF})
JPEG_MAX_SCANS = 200
"""A progressive photo has about ten; each costs a pass over all pixels, so a small file could take hours."""

OTHER_FORMATS = (
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftyp", "video"),
    (4, b"jP  ", "JPEG 2000"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Format, size and orientation from the header of a photo.

    Attributes:
        format: Of the file.
        width: In pixels as stored, before the Exif orientation is applied.
        height: In pixels as stored.
        orientation: The Exif orientation, 1..8; 1 is upright.
        is_progressive: Whether it is a JPEG whose decoder holds all coefficients in memory.
        channels: Colour components of a JPEG; 0 for other formats.
    """

    format: ImageFormat
    width: int
    height: int
    orientation: int
    is_progressive: bool = False
    channels: int = 0

    @property
    def is_transposed(self) -> bool:
        """Whether width and height are swapped by the Exif orientation."""
        return self.orientation >= 5


def read_header(content: bytes) -> ImageHeader:
    """Return the header of a photo.

    Raises:
        NotAnImageError: The bytes are no image, or there are none.
        UnsupportedImageError: An image of a format that is not read.
        ImageTruncatedError: The header ends too early or is damaged.
    """
    try:
        if content.startswith(b"\xff\xd8\xff"):
            return _read_jpeg_header(content)
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            return _read_png_header(content)
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return _read_webp_header(content)
    except (struct.error, IndexError) as error:
        raise ImageTruncatedError("The photo ends inside its header.") from error
    for at, signature, name in OTHER_FORMATS:
        if content.startswith(signature, at):
            raise UnsupportedImageError(f"{name} files are not read; send JPEG, PNG or WebP.", format=name)
    raise NotAnImageError("The file is not an image; send JPEG, PNG or WebP." if content else "The file is empty.")


def _read_jpeg_header(content: bytes) -> ImageHeader:
    orientation = UPRIGHT
    for marker, segment in _read_jpeg_segments(content):
        if marker == JPEG_APP1 and segment.startswith(b"Exif\0\0") and orientation == UPRIGHT:
            orientation = read_exif_orientation(segment[6:])
        elif marker in JPEG_OTHER_FRAMES:
            raise UnsupportedImageError("Lossless and hierarchical JPEG files are not read.", format="JPEG")
        elif marker in JPEG_FRAMES:
            depth, height, width, channels = struct.unpack_from(">BHHB", segment)
            if depth != 8:
                raise UnsupportedImageError(f"JPEG files of {depth} bits a channel are not read.", format="JPEG")
            progressive = marker in JPEG_PROGRESSIVE
            if progressive and content.count(b"\xff\xda") > JPEG_MAX_SCANS:
                raise UnsupportedImageError(f"JPEG files of more than {JPEG_MAX_SCANS} scans are not read.")
            return ImageHeader("JPEG", width, height, orientation, progressive, channels)
    raise ImageTruncatedError("The JPEG file ends before its picture begins.")


def _read_jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, payload) of every segment before the first scan."""
    at = 2
    while True:
        at = content.find(b"\xff", at)
        if at < 0:
            return
        while content[at] == 0xFF:
            at += 1
        marker = content[at]
        at += 1
        if marker in (JPEG_SCAN, JPEG_END):
            return
        if marker == 0 or JPEG_START >= marker >= 0xD0:
            continue
        (length,) = struct.unpack_from(">H", content, at)
        yield marker, content[at + 2 : at + length]
        at += max(length, 2)


def _read_png_header(content: bytes) -> ImageHeader:
    if content[12:16] != b"IHDR":
        raise ImageTruncatedError("The PNG file does not begin with its header.")
    width, height = struct.unpack_from(">II", content, 16)
    return ImageHeader("PNG", width, height, _find_png_orientation(content))


def _find_png_orientation(content: bytes) -> int:
    """Return the orientation of the eXIf chunk, which may precede or follow the image data."""
    at = 8
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"eXIf":
            return read_exif_orientation(content[at + 8 : at + 8 + length])
        at += 12 + length
    return UPRIGHT


def _read_webp_header(content: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    orientation = UPRIGHT
    at = 12
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, at)
        if size is None:
            size = _read_webp_size(kind, content, at + 8)
        if kind == b"EXIF":
            exif = content[at + 8 : at + 8 + length]
            orientation = read_exif_orientation(exif.removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    if size is None:
        raise ImageTruncatedError("The WebP file ends before its picture begins.")
    return ImageHeader("WebP", *size, orientation)


def _read_webp_size(kind: bytes, content: bytes, at: int) -> tuple[int, int] | None:
    """Return the width and height in pixels that a chunk states, or None if it states none."""
    if kind == b"VP8X":
        flags_to_height = content[at : at + 10]
        if len(flags_to_height) < 10:
            raise IndexError
        return 1 + int.from_bytes(flags_to_height[4:7], "little"), 1 + int.from_bytes(flags_to_height[7:10], "little")
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, at + 6)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, at + 1)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def read_exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1..8, of an Exif block; 1 if it has none or is damaged: the photo is still usable."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * entry)
            if tag == ORIENTATION_TAG and kind == TIFF_SHORT and 1 <= value <= 8:
                return int(value)
    except struct.error:
        return UPRIGHT
    return UPRIGHT
