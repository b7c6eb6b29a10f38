"""WebP files: their chunks, and the pixels of their first picture.

The decoder is given the chunks of one picture and nothing else; of an animation its first frame, since a decoder of
animations holds the whole canvas several times. Source: RFC 9649.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vultus.errors import ImageTruncatedError
from vultus.models.imaging.orientation import find_orientation
from vultus.models.imaging.picture import MAX_BLOCKS, MAX_LOST_SHARE, ImageHeader
from vultus.models.imaging.pixels import convert_to_rgb, decode_with_opencv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.domain import Pixels

HAS_ALPHA = 0x10
FRAME_HEADER_BYTES = 16
SPARE_BYTES = 1024
"""Zeros beyond those that are missing: other values than these would have taken fewer."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """A picture in the file: where it stands on the canvas, its size in pixels, its bitstream, and its transparency."""

    left: int
    top: int
    width: int
    height: int
    kind: bytes
    bitstream: bytes
    alpha: bytes | None

    @property
    def has_alpha(self) -> bool:
        return self.alpha is not None or (self.kind == b"VP8L" and bool(self.bitstream[4] & HAS_ALPHA))


class WebpPicture:
    """A WebP file."""

    def __init__(self, content: bytes) -> None:
        canvas: tuple[int, int] | None = None
        frame: _Frame | None = None
        alpha: bytes | None = None
        exif: list[bytes] = []
        xmp: list[bytes] = []
        for kind, payload in _list_chunks(content, 12):
            if kind == b"VP8X" and canvas is None:
                canvas = _read_canvas(payload)
            elif kind == b"ALPH":
                alpha = alpha or payload
            elif kind in (b"VP8 ", b"VP8L") and frame is None:
                frame = _read_frame(0, 0, kind, payload, alpha)
            elif kind == b"ANMF" and frame is None:
                frame = _read_animation_frame(payload)
            elif kind == b"EXIF":
                exif.append(payload)
            elif kind == b"XMP ":
                xmp.append(payload)
        if frame is None:
            raise ImageTruncatedError("The WebP file ends before its picture begins.")
        width, height = canvas or (frame.width, frame.height)
        if frame.left + frame.width > width or frame.top + frame.height > height:
            raise ImageTruncatedError("The WebP file contradicts itself about its size.")
        self._frame = frame
        self._is_part = (frame.width, frame.height) != (width, height)
        self.header = ImageHeader("WebP", width, height, find_orientation(exif, xmp))

    def count_bytes(self, divisor: int) -> int:
        """Return how many bytes decoding holds, as measured, and the canvas of a frame that is smaller."""
        del divisor
        frame = self._frame
        bytes_per_pixel = (11 if frame.kind == b"VP8L" else 9) if frame.has_alpha else 7
        canvas = 3 * self.header.width * self.header.height
        return bytes_per_pixel * frame.width * frame.height + canvas * self._is_part + 2 * len(frame.bitstream) + 2**20

    def decode(self, divisor: int) -> Pixels:
        """Return the pixels as stored, at full size, composited on white."""
        del divisor
        frame = self._frame
        flags = cv2.IMREAD_UNCHANGED if frame.has_alpha else cv2.IMREAD_COLOR_RGB
        decoded = decode_with_opencv(_write_plain_file(frame), flags)
        if decoded is None or decoded.shape[:2] != (frame.height, frame.width):
            raise ImageTruncatedError("The WebP file is truncated or damaged.")
        pixels = convert_to_rgb(decoded) if frame.has_alpha else decoded
        if not self._is_part:
            return pixels
        canvas = np.full((self.header.height, self.header.width, 3), 255, np.uint8)
        canvas[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width] = pixels
        return canvas


def _list_chunks(content: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and payload of every chunk; a short end that the file lacks is zeros."""
    for _ in range(MAX_BLOCKS):
        if at + 8 > len(content):
            return
        kind, length = struct.unpack_from("<4sI", content, at)
        payload = content[at + 8 : at + 8 + length]
        if 0 < length - len(payload) <= MAX_LOST_SHARE * length:
            payload += bytes(length - len(payload) + SPARE_BYTES)
        yield kind, payload
        at += 8 + length + length % 2
    raise ImageTruncatedError(f"The WebP file has more than {MAX_BLOCKS:,} chunks.")


def _read_canvas(payload: bytes) -> tuple[int, int]:
    """Return the width and height of the canvas, pixels."""
    if len(payload) < 10:
        raise ImageTruncatedError("The photo ends inside its header.")
    return 1 + int.from_bytes(payload[4:7], "little"), 1 + int.from_bytes(payload[7:10], "little")


def _read_animation_frame(payload: bytes) -> _Frame | None:
    left, top = 2 * int.from_bytes(payload[:3], "little"), 2 * int.from_bytes(payload[3:6], "little")
    alpha = None
    for kind, chunk in _list_chunks(payload, FRAME_HEADER_BYTES):
        if kind == b"ALPH":
            alpha = chunk
        elif kind in (b"VP8 ", b"VP8L"):
            return _read_frame(left, top, kind, chunk, alpha)
    return None


def _read_frame(left: int, top: int, kind: bytes, bitstream: bytes, alpha: bytes | None) -> _Frame:
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", bitstream, 6)
        return _Frame(left, top, width & 0x3FFF, height & 0x3FFF, kind, bitstream, alpha)
    (bits,) = struct.unpack_from("<I", bitstream, 1)
    return _Frame(left, top, 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), kind, bitstream, None)


def _write_plain_file(frame: _Frame) -> bytes:
    """Return a file of one picture."""
    chunks = [(frame.kind, frame.bitstream)]
    if frame.alpha is not None:
        sides = (frame.width - 1).to_bytes(3, "little") + (frame.height - 1).to_bytes(3, "little")
        chunks = [(b"VP8X", bytes([HAS_ALPHA, 0, 0, 0]) + sides), (b"ALPH", frame.alpha), *chunks]
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
