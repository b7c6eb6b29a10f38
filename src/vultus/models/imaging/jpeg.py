"""JPEG files: their structure, and their pixels.

The decoder is given a file of what a picture needs and nothing else, written as the standard wants it: without
metadata, with the parameters that a sequential scan must have, restart markers counted, and an end. What a decoder
would warn of there is no damage. What it warns of afterwards is missing data.

Source: ITU-T T.81, annexes B and G; JFIF 1.02; Adobe technical note 5116.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import simplejpeg

from vultus.errors import ImageTruncatedError, UnsupportedImageError
from vultus.models.imaging.orientation import find_orientation
from vultus.models.imaging.picture import MAX_BLOCKS, MAX_LOST_SHARE, ImageHeader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.domain import Pixels

START, END, SCAN, TABLES, RESTART_INTERVAL, LATE_HEIGHT = 0xD8, 0xD9, 0xDA, frozenset({0xC4, 0xCC, 0xDB}), 0xDD, 0xDC
APP0, APP1, ADOBE = 0xE0, 0xE1, 0xEE
SEQUENTIAL_FRAMES = frozenset({0xC0, 0xC1, 0xC9})
PROGRESSIVE_FRAMES = frozenset({0xC2, 0xCA})
OTHER_FRAMES = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
JPEG_LS_FRAME = 0xF7

MARKER = re.compile(rb"\xff([^\x00\xff])")
MARKER_AFTER_DATA = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""In the data of a scan FF is followed by 0 or is a restart marker. Bytes FF before a marker fill; a pattern that took
them along would go back and forth in long runs of them."""

MAX_EXIF_BYTES = 2**20
"""Of a block in several segments; the orientation stands near its beginning."""

EXIF, XMP = b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0"
JFIF_SEGMENT = b"\xff\xe0\0\x10JFIF\0\1\2\0\0\1\0\1\0\0"
END_MARKER = b"\xff\xd9"

MAX_SCANS = 200
MAX_SCANNED_PIXELS = 1_200_000_000
"""Most scans times pixels of a photo: a progressive one has about ten, and each is a pass over all pixels."""

LOSSES = ("premature end", "Premature end", "extraneous bytes", "instead of RST", "progression")
"""Warnings after which the picture is looked at: some of it may be missing, painted grey. Others are damage."""

MAX_STRAY_BYTES = 64
"""Bytes between the data and a marker that are no damage, whatever their share and besides padding."""

MISSING = 128
"""What libjpeg paints where data is missing, in every channel."""

UNKNOWN_SAMPLING = "subsampling"
"""simplejpeg's words for sampling factors that only libjpeg itself knows."""


@dataclass(frozen=True, slots=True)
class _JpegScan:
    """A scan: first and last coefficient, and how many of their low bits are left for later scans."""

    components: tuple[int, ...]
    first: int
    last: int
    low_bits: int


@dataclass(slots=True)
class _Structure:
    """What the segments of a file say."""

    tables: list[bytes] = field(default_factory=list)
    exif: list[bytes] = field(default_factory=list)
    xmp: list[bytes] = field(default_factory=list)
    scans: list[_JpegScan] = field(default_factory=list)
    frame: bytes = b""
    frame_marker: int = 0
    is_jfif: bool = False
    adobe_transform: int | None = None
    restart_interval: int = 0
    scans_start: int = 0
    scans_end: int = 0
    patches: list[tuple[int, bytes]] = field(default_factory=list)


class JpegPicture:
    """A JPEG file."""

    def __init__(self, content: bytes) -> None:
        self._structure = structure = _read_structure(content)
        depth, height, width, channels = struct.unpack_from(">BHHB", structure.frame)
        _refuse_variants(depth, height, channels, len(structure.frame))
        self._is_progressive = structure.frame_marker in PROGRESSIVE_FRAMES
        self._channels = channels
        self._samplings = [structure.frame[7 + 3 * at] for at in range(channels)]
        self.header = ImageHeader("JPEG", width, height, find_orientation(structure.exif, structure.xmp))
        scans = len(structure.scans)
        if scans > MAX_SCANS or (scans > channels and scans * width * height > MAX_SCANNED_PIXELS):
            raise UnsupportedImageError(
                f"The JPEG file has {scans} scans over {width * height:,} pixels, which would take too long; save it "
                "as an ordinary JPEG.",
                format="JPEG",
            )
        self._content = content

    def count_bytes(self, divisor: int) -> int:
        """Return how many bytes decoding holds: pixels, and all coefficients if there are several scans."""
        width, height = math.ceil(self.header.width / divisor), math.ceil(self.header.height / divisor)
        pixels = width * height * (12 if self._channels == 4 else 3)
        coefficients = 0
        if self._is_progressive or len(self._structure.scans) > 1:
            coefficients = sum(
                2 * 64 * across * down for across, down in map(self._count_blocks, range(self._channels))
            )
        return pixels + coefficients + len(self._content)

    def decode(self, divisor: int) -> Pixels:
        """Return the pixels as stored, their sides divided by `divisor`."""
        content = self._write_plain_file()
        try:
            pixels = self._decode_plain_file(content, divisor, strict=True)
            complete = self._structure.scans
        except ValueError as error:
            if UNKNOWN_SAMPLING in str(error):
                return _decode_with_libjpeg(content, divisor)
            self._refuse_damage(str(error))
            pixels = self._decode_plain_file(content, divisor, strict=False)
            complete = self._structure.scans[:-1]
            _refuse_losses(pixels)
        if self._is_progressive and not _have_all_coefficients(complete):
            raise ImageTruncatedError("The JPEG file ends before its picture is complete.")
        return _convert_cmyk(pixels) if self._channels == 4 else pixels

    def _refuse_damage(self, warning: str) -> None:
        """Raise if a warning means damage wherever it is, or much data that belongs to no pixel."""
        data = self._content[self._structure.scans_start : self._structure.scans_end]
        padding = len(data) - len(data.rstrip(b"\0\xff"))
        skipped = re.search(r"(\d+) extraneous bytes", warning)
        if not any(words in warning for words in LOSSES) or (
            skipped and int(skipped[1]) - padding > max(MAX_STRAY_BYTES, MAX_LOST_SHARE * len(data))
        ):
            raise ImageTruncatedError("The data of the JPEG file is damaged.")

    def _decode_plain_file(self, content: bytes, divisor: int, *, strict: bool) -> Pixels:
        least = 0 if divisor == 1 else 1
        pixels: Pixels = simplejpeg.decode_jpeg(
            content,
            "CMYK" if self._channels == 4 else "RGB",
            min_height=least * math.ceil(self.header.height / divisor),
            min_width=least * math.ceil(self.header.width / divisor),
            min_factor=divisor,
            strict=strict,
        )
        return pixels

    def _write_plain_file(self) -> bytes:
        """Return the file as the decoder shall see it."""
        structure = self._structure
        head = [b"\xff\xd8"]
        if structure.is_jfif:
            head.append(JFIF_SEGMENT)
        if structure.adobe_transform is not None:
            # libjpeg takes unknown transforms for those of most files, and warns.
            known, usual = ((0, 2), 2) if self._channels == 4 else ((0, 1), 1)
            transform = structure.adobe_transform if structure.adobe_transform in known else usual
            head.append(_write_segment(ADOBE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform)))
        scans = bytearray(self._content[structure.scans_start : structure.scans_end])
        for at, value in structure.patches:
            scans[at : at + len(value)] = value
        self._number_restarts(scans)
        return b"".join([*head, *structure.tables, scans, END_MARKER])

    def _number_restarts(self, scans: bytearray) -> None:
        """Number the restart markers of a single scan in turn, if none is missing: some encoders do not count."""
        interval = self._structure.restart_interval
        if not interval or len(self._structure.scans) != 1:
            return
        data = np.frombuffer(scans, np.uint8)
        at = np.flatnonzero((data[:-1] == 0xFF) & (data[1:] & 0xF8 == 0xD0)) + 1
        numbers = (0xD0 + np.arange(len(at)) % 8).astype(np.uint8)
        if len(at) == math.ceil(self._count_units() / interval) - 1:
            data[at] = numbers

    def _count_units(self) -> int:
        """Return the number of minimum coded units of an interleaved scan, or of the only component."""
        if self._channels == 1:
            across, down = self._count_blocks(0)
            return across * down
        widest, highest = self._get_largest_sampling()
        return math.ceil(self.header.width / (8 * widest)) * math.ceil(self.header.height / (8 * highest))

    def _count_blocks(self, component: int) -> tuple[int, int]:
        """Return the blocks of 8 × 8 coefficients of a component, across and down."""
        widest, highest = self._get_largest_sampling()
        sampling = self._samplings[component]
        across = math.ceil(math.ceil(self.header.width * (sampling >> 4) / widest) / 8)
        return across, math.ceil(math.ceil(self.header.height * (sampling & 15) / highest) / 8)

    def _get_largest_sampling(self) -> tuple[int, int]:
        return max(1, *(one >> 4 for one in self._samplings)), max(1, *(one & 15 for one in self._samplings))


def _refuse_variants(depth: int, height: int, channels: int, length: int) -> None:
    """Raise unless the frame is of the kind that photos are."""
    if depth != 8:
        raise UnsupportedImageError(f"JPEG files of {depth} bits a channel are not read.", format="JPEG")
    if height == 0:
        raise UnsupportedImageError(
            "JPEG files that state their height after the picture (DNL) are not read; save it as an ordinary JPEG.",
            format="JPEG",
        )
    if channels not in (1, 3, 4):
        raise UnsupportedImageError(f"JPEG files of {channels} channels are not read.", format="JPEG")
    if length < 6 + 3 * channels:
        raise ImageTruncatedError("The header of the JPEG file is damaged.")


def _read_structure(content: bytes) -> _Structure:
    """Read the segments of a file, up to its first end marker.

    Raises:
        UnsupportedImageError: A kind of JPEG that is not read.
        ImageTruncatedError: There is no picture.
    """
    found = _Structure(scans_end=len(content))
    for marker, start, payload in _list_segments(content):
        if marker == SCAN:
            if not found.frame:
                break
            found.scans_start = found.scans_start or start
            _add_scan(found, payload, start)
        elif marker == END:
            found.scans_end = start
        elif not found.scans:
            _add_segment(found, marker, payload)
    if not found.scans:
        raise ImageTruncatedError("The JPEG file ends before its picture begins.")
    return found


def _list_segments(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield marker, position and payload of every segment, up to the first end marker."""
    at = 2
    pattern = MARKER
    for _ in range(MAX_BLOCKS):
        match = pattern.search(content, at)
        if match is None:
            return
        marker, start, at = match[1][0], match.start(), match.end()
        if marker == END:
            yield marker, start, b""
            return
        if marker == 0x01 or 0xD0 <= marker <= START:
            continue
        length = int.from_bytes(content[at : at + 2], "big")
        if at + max(length, 2) > len(content):
            return
        yield marker, start, content[at + 2 : at + length]
        at += max(length, 2)
        pattern = MARKER_AFTER_DATA if marker == SCAN else pattern
    raise ImageTruncatedError(f"The JPEG file has more than {MAX_BLOCKS:,} segments.")


def _add_segment(found: _Structure, marker: int, payload: bytes) -> None:
    """Note what a segment before the first scan says."""
    if marker in OTHER_FRAMES:
        kind = "JPEG-LS" if marker == JPEG_LS_FRAME else "JPEG"
        raise UnsupportedImageError(f"Lossless and hierarchical {kind} files are not read.", format=kind)
    if marker in SEQUENTIAL_FRAMES | PROGRESSIVE_FRAMES:
        if found.frame or len(payload) < 6:
            raise ImageTruncatedError("The header of the JPEG file is damaged.")
        found.frame, found.frame_marker = payload, marker
    elif marker == RESTART_INTERVAL:
        found.restart_interval = int.from_bytes(payload[:2], "big")
    elif marker not in TABLES:
        _add_metadata(found, marker, payload)
        return
    found.tables.append(_write_segment(marker, payload))


def _add_metadata(found: _Structure, marker: int, payload: bytes) -> None:
    """Note what a segment of an application says about colours and orientation."""
    if marker == APP1 and payload.startswith(EXIF):
        exif = payload[len(EXIF) + 1 :]  # and a byte of padding, of any value
        if not found.exif or exif[:2] in (b"II", b"MM"):
            found.exif.append(exif)
        elif len(found.exif[-1]) < MAX_EXIF_BYTES:
            found.exif[-1] += exif  # a block of more than a segment
    elif marker == APP1 and payload.startswith(XMP):
        found.xmp.append(payload)
    elif marker == APP0 and payload.startswith(b"JFIF\0") and len(payload) >= 14:
        found.is_jfif = True
    elif marker == ADOBE and payload.startswith(b"Adobe") and len(payload) >= 12:
        found.adobe_transform = payload[11]


def _add_scan(found: _Structure, payload: bytes, start: int) -> None:
    """Note a scan; of a sequential file the parameters that it must have, which some cameras do not write."""
    count = payload[0] if payload else 0
    at = 1 + 2 * count
    if len(payload) < at + 3:
        raise ImageTruncatedError("A scan of the JPEG file is damaged.")
    first, last, bits = payload[at : at + 3]
    if found.frame_marker in SEQUENTIAL_FRAMES:
        found.patches.append((start + 4 + at - found.scans_start, b"\0\x3f\0"))
    found.scans.append(_JpegScan(tuple(payload[1:at:2]), first, last, bits & 15))


def _write_segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _have_all_coefficients(scans: list[_JpegScan]) -> bool:
    """Return whether scans of a progressive file give every coefficient of its first component, to a bit."""
    missing_bits = [99] * 64
    for scan in scans:
        if scan.components[:1] == scans[0].components[:1]:
            for at in range(scan.first, min(scan.last, 63) + 1):
                missing_bits[at] = min(missing_bits[at], scan.low_bits)
    return max(missing_bits) <= 1


def _refuse_losses(pixels: Pixels) -> None:
    """Raise if more than a narrow strip of the picture is missing."""
    missing = np.count_nonzero((pixels == MISSING).all(axis=2))
    if missing > MAX_LOST_SHARE * pixels.shape[0] * pixels.shape[1]:
        raise ImageTruncatedError(
            f"The JPEG file is truncated or damaged: {100 * missing // (pixels.shape[0] * pixels.shape[1])} % of the "
            "picture is missing."
        )


def _decode_with_libjpeg(content: bytes, divisor: int) -> Pixels:
    """Decode a file with sampling factors that simplejpeg does not know."""
    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    flag = flags.get(divisor, cv2.IMREAD_REDUCED_COLOR_8) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error as error:
        raise ImageTruncatedError("The JPEG file is damaged.") from error
    if decoded is None:
        raise ImageTruncatedError("The JPEG file is damaged.")
    pixels = cast("Pixels", cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, decoded))
    _refuse_losses(pixels)
    return pixels


def _convert_cmyk(pixels: Pixels) -> Pixels:
    """Return the RGB of CMYK whose values are inverted, as Adobe's are and, in practice, everybody's."""
    black = np.ascontiguousarray(pixels[:, :, 3])
    channels = [cv2.multiply(np.ascontiguousarray(pixels[:, :, at]), black, scale=1 / 255) for at in range(3)]
    return cast("Pixels", cv2.merge(channels))
