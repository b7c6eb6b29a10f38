"""PNG files: their chunks, and their pixels.

The decoder is given the chunks that a picture needs and nothing else: texts, profiles and times are nobody's concern,
whatever their length and checksum. Source: W3C Portable Network Graphics (third edition), 5, 9 and 11.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import TYPE_CHECKING

import cv2

from vultus.errors import ImageTruncatedError, UnsupportedImageError
from vultus.models.imaging.orientation import find_orientation
from vultus.models.imaging.picture import MAX_BLOCKS, MAX_LOST_SHARE, ImageHeader
from vultus.models.imaging.pixels import convert_to_rgb, decode_with_opencv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.domain import Pixels

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Numbers per pixel, by colour type."""

PALETTE, WITH_ALPHA = 3, (4, 6)
MAX_SIDE = 2**20
"""OpenCV's limit; a photo whose pixels are within ours and whose side is beyond it is a thread."""

TEXTS_READ = (b"Raw profile type ", b"XML:com.adobe.xmp\0")
MAX_TEXT_BYTES = 2**20
"""Of a compressed text that is read: an orientation stands at the beginning of Exif and of XMP."""


class PngPicture:
    """A PNG file."""

    def __init__(self, content: bytes) -> None:
        if content[12:16] == b"CgBI":
            raise UnsupportedImageError(
                "PNG files in Apple's own variant (CgBI) are not read; save it as an ordinary PNG.", format="CgBI"
            )
        if content[12:16] != b"IHDR" or len(content) < 33:
            raise ImageTruncatedError("The PNG file does not begin with its header.")
        width, height, self._depth, self._colour, _, _, self._interlaced = struct.unpack_from(">IIBBBBB", content, 16)
        if zlib.crc32(content[12:29]) != int.from_bytes(content[29:33], "big") or self._colour not in CHANNELS:
            raise ImageTruncatedError("The header of the PNG file is damaged.")
        self._kept: list[bytes] = [content[8:33]]
        self._content = content
        self._spans: list[tuple[int, int]] = []
        self._has_transparency = self._colour in WITH_ALPHA
        exif: list[bytes] = []
        texts: list[tuple[bytes, bytes]] = []
        for kind, start, end in _list_chunks(content):
            if kind == b"IDAT":
                self._spans.append((start, end))
            elif kind == b"PLTE" or (kind == b"tRNS" and _is_intact(content, start, end)):
                self._kept.append(content[start - 8 : end + 4])
                self._has_transparency |= kind == b"tRNS"
            elif kind == b"IHDR":
                raise ImageTruncatedError("The PNG file contradicts itself: it has two headers.")
            elif kind == b"eXIf":
                exif.append(content[start:end])
            elif kind in (b"tEXt", b"zTXt", b"iTXt") and content.startswith(TEXTS_READ, start) and len(texts) < 4:
                texts.append((kind, content[start:end]))
        self.header = ImageHeader("PNG", width, height, _find_orientation(exif, texts))

    def count_bytes(self, divisor: int) -> int:
        """Return how many bytes decoding holds: OpenCV's pixels twice, and the data twice."""
        del divisor
        decoded = 6
        if self._has_transparency:
            decoded = 16 if self._depth == 16 else 8
        return decoded * self.header.width * self.header.height + 2 * len(self._content) + 2**20

    def decode(self, divisor: int) -> Pixels:
        """Return the pixels as stored, at full size, composited on white."""
        del divisor
        if max(self.header.width, self.header.height) > MAX_SIDE:
            raise UnsupportedImageError(
                f"PNG files with a side of more than {MAX_SIDE:,} pixels are not read.", format="PNG"
            )
        flags = cv2.IMREAD_UNCHANGED if self._has_transparency else cv2.IMREAD_COLOR_RGB
        decoded = decode_with_opencv(self._write_plain_file(self._list_data()), flags)
        if decoded is None:
            decoded = decode_with_opencv(self._write_plain_file([self._complete_data()]), flags)
        if decoded is None:
            raise ImageTruncatedError("The PNG file is truncated or damaged.")
        return convert_to_rgb(decoded) if self._has_transparency else decoded

    def _write_plain_file(self, data: list[memoryview] | list[bytes]) -> bytes:
        return b"".join([SIGNATURE, *self._kept, *_write_chunk(b"IDAT", *data), *_write_chunk(b"IEND")])

    def _list_data(self) -> list[memoryview]:
        return [memoryview(self._content)[start:end] for start, end in self._spans]

    def _complete_data(self) -> bytes:
        """Return the picture's data with the end that was lost, if it is short, as black pixels.

        The checksum of all data does not count if those of its chunks are right: they arrived as they were written.

        Raises:
            ImageTruncatedError: More is missing, or the data is damaged.
        """
        row = 1 + math.ceil(self.header.width * CHANNELS[self._colour] * self._depth / 8)
        needed = row * self.header.height
        rows = bytearray()
        try:
            as_written = all(_is_intact(self._content, start, end) for start, end in self._spans)
            inflating = zlib.decompressobj(-zlib.MAX_WBITS if as_written else zlib.MAX_WBITS)
            for part in _skip_bytes(self._list_data(), 2 if as_written else 0):
                rows += inflating.decompress(part, needed - len(rows)) if len(rows) < needed else b""
        except zlib.error as error:
            raise ImageTruncatedError("The data of the PNG file is damaged.") from error
        if self._interlaced or needed - len(rows) > MAX_LOST_SHARE * needed:
            raise ImageTruncatedError("The PNG file ends before its picture is complete.")
        return zlib.compress(rows.ljust(needed, b"\0"), 1)


def _skip_bytes(parts: list[memoryview], count: int) -> Iterator[memoryview]:
    for part in parts:
        yield part[count:]
        count = max(0, count - len(part))


def _list_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind and bounds of the payload of every chunk after the header; the last one may be cut."""
    at = 33
    for _ in range(MAX_BLOCKS):
        if at + 8 > len(content):
            return
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"IEND":
            return
        yield kind, at + 8, at + 8 + length
        at += 12 + length
    raise ImageTruncatedError(f"The PNG file has more than {MAX_BLOCKS:,} chunks.")


def _is_intact(content: bytes, start: int, end: int) -> bool:
    return zlib.crc32(content[start - 4 : end]) == int.from_bytes(content[end : end + 4], "big")


def _write_chunk(kind: bytes, *parts: memoryview | bytes) -> list[memoryview | bytes]:
    checksum = zlib.crc32(kind)
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return [struct.pack(">I", sum(map(len, parts))), kind, *parts, struct.pack(">I", checksum)]


def _find_orientation(exif: list[bytes], texts: list[tuple[bytes, bytes]]) -> int:
    """Return the orientation of Exif, in a chunk or in a text of ImageMagick's, else of XMP."""
    xmp: list[bytes] = []
    for kind, payload in texts:
        keyword, _, rest = payload.partition(b"\0")
        if keyword in (b"Raw profile type exif", b"Raw profile type APP1"):
            exif.append(_read_raw_profile(_read_text(kind, rest)))
        elif keyword == b"XML:com.adobe.xmp":
            xmp.append(_read_text(kind, rest))
    return find_orientation(exif, xmp)


def _read_text(kind: bytes, rest: bytes) -> bytes:
    """Return the beginning of a text, given what follows its keyword."""
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflate(rest[1:])
    is_compressed, fields = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
    text = fields[2] if len(fields) == 3 else b""
    return _inflate(text) if is_compressed else text


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def _read_raw_profile(text: bytes) -> bytes:
    """Return what ImageMagick writes as a name, a length and hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except ValueError:
        return b""
