"""How a photo is turned, as its metadata say: Exif, or XMP where Exif says nothing.

Sources: TIFF 6.0, section 2, and CIPA DC-008 (orientation: tag 274); XMP specification, part 2 (`tiff:Orientation`).
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

UPRIGHT = 1
ORIENTATION_TAG = 274

INTEGER_FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
"""TIFF's types of whole numbers, as `struct` reads them: some programs write the orientation as another than SHORT."""

XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\b""")


def find_orientation(exif_blocks: Iterable[bytes], xmp_packets: Iterable[bytes] = ()) -> int:
    """Return the orientation, 1..8: the first that an Exif block states, else the first of XMP, else 1.

    Args:
        exif_blocks: TIFF streams, with or without `Exif` before them.
        xmp_packets: RDF/XML.
    """
    stated = (*map(read_exif_orientation, exif_blocks), *map(read_xmp_orientation, xmp_packets))
    return next((orientation for orientation in stated if orientation is not None), UPRIGHT)


def read_exif_orientation(exif: bytes) -> int | None:
    """Return the orientation of an Exif block; None if it states none or is damaged: the photo is still usable.

    Of two entries the last counts, as in browsers: programs that turned the pixels added one and left the other.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    found = None
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(entries):
            at = start + 2 + 12 * entry
            tag, kind = struct.unpack_from(f"{order}HH", exif, at)
            if tag == ORIENTATION_TAG and kind in INTEGER_FORMATS:
                (value,) = struct.unpack_from(order + INTEGER_FORMATS[kind], exif, at + 8)
                found = int(value) if 1 <= value <= 8 else found
    except struct.error:
        return found
    return found


def read_xmp_orientation(xmp: bytes) -> int | None:
    """Return the orientation of an XMP packet, None if it states none."""
    match = XMP_ORIENTATION.search(xmp)
    return int(match[1]) if match else None
