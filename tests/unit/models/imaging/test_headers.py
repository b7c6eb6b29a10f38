"""Format, size and orientation are read without decoding."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.faces import astronaut, encoded

from vultus.errors import ImageTruncatedError, NotAnImageError, UnsupportedImageError
from vultus.models.imaging.headers import JPEG_MAX_SCANS, read_exif_orientation, read_header

PICTURE = astronaut()[:96, :64]


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0110] = "camera"
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_size_and_orientation_are_read_from_every_format(form: str, orientation: int) -> None:
    header = read_header(encoded(PICTURE, form, exif=exif(orientation)))

    assert (header.width, header.height, header.orientation) == (64, 96, orientation)
    assert header.is_transposed == (orientation >= 5)


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"lossless": True, "exif": exif(1)}])
def test_every_kind_of_webp_states_its_size(options: dict[str, Any]) -> None:
    assert read_header(encoded(PICTURE, "WEBP", **options)).width == 64


def test_a_progressive_jpeg_is_identified() -> None:
    assert read_header(encoded(PICTURE, progressive=True)).is_progressive
    assert not read_header(encoded(PICTURE)).is_progressive


def test_a_jpeg_with_endless_scans_is_refused() -> None:
    content = encoded(PICTURE, progressive=True)
    scan = content[content.index(b"\xff\xda") : -2]

    with pytest.raises(UnsupportedImageError, match="scans"):
        read_header(content[:-2] + scan * JPEG_MAX_SCANS + b"\xff\xd9")


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "ICO", "JPEG2000", "PDF"])
def test_other_formats_are_named_and_refused(form: str) -> None:
    with pytest.raises(UnsupportedImageError, match="JPEG, PNG or WebP"):
        read_header(encoded(PICTURE, form))


@pytest.mark.parametrize(
    ("content", "name"),
    [(b"\0\0\0\x1cftypheic", "HEIC"), (b"\0\0\0\x1cftypavif", "AVIF"), (b"\xff\x0a\0", "JPEG XL"), (b"<svg>", "SVG")],
)
def test_formats_of_phones_and_the_web_are_named(content: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImageError, match=name):
        read_header(content)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff", b"\x89PNG", b"RIFF\0\0\0\0WAVE", b"\0" * 64])
def test_other_bytes_are_no_image(content: bytes) -> None:
    with pytest.raises(NotAnImageError):
        read_header(content)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_header_cut_short_is_truncated(form: str) -> None:
    with pytest.raises(ImageTruncatedError):
        read_header(encoded(PICTURE, form)[:20])


@pytest.mark.parametrize(("marker", "depth", "word"), [(0xC3, 8, "Lossless"), (0xC1, 12, "12 bits")])
def test_kinds_of_jpeg_no_camera_writes_are_refused(marker: int, depth: int, word: str) -> None:
    content = bytearray(encoded(PICTURE))
    frame = content.index(b"\xff\xc0")
    content[frame + 1], content[frame + 4] = marker, depth

    with pytest.raises(UnsupportedImageError, match=word):
        read_header(bytes(content))


def test_a_damaged_exif_block_counts_as_upright() -> None:
    sound = exif(6).tobytes().removeprefix(b"Exif\0\0")

    assert read_exif_orientation(sound) == 6
    assert read_exif_orientation(sound[:12]) == 1
    assert read_exif_orientation(b"II*\0" + struct.pack("<I", 10**9)) == 1
    assert read_exif_orientation(b"") == 1


def test_the_header_alone_is_enough() -> None:
    content = encoded(np.zeros((3000, 4000, 3), np.uint8))

    assert read_header(content[:2000]).width == 4000
