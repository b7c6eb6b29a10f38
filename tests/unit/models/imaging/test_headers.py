"""Format, size and orientation are read without decoding; what is not read is named."""

from __future__ import annotations

import base64
import gzip
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.faces import astronaut, encoded

from vultus.errors import ImageTruncatedError, NotAnImageError, UnsupportedImageError
from vultus.models.imaging.decoding import open_picture
from vultus.models.imaging.jpeg import MAX_SCANS
from vultus.models.imaging.orientation import read_exif_orientation

PICTURE = astronaut()[:96, :64]
JPEG, PNG = encoded(PICTURE), encoded(PICTURE, "PNG")
IN_BASE64 = [
    *(base64.b64encode(encoded(PICTURE, form)) for form in ("JPEG", "PNG", "WEBP", "AVIF")),
    base64.urlsafe_b64encode(JPEG),
    b'"' + base64.b64encode(JPEG) + b'"',
]


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0110] = "camera"
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_size_and_orientation_are_read_from_every_format(form: str, orientation: int) -> None:
    header = open_picture(encoded(PICTURE, form, exif=exif(orientation))).header

    assert (header.width, header.height, header.orientation) == (64, 96, orientation)
    assert header.is_transposed == (orientation >= 5)


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"lossless": True, "exif": exif(1)}])
def test_every_kind_of_webp_states_its_size(options: dict[str, Any]) -> None:
    assert open_picture(encoded(PICTURE, "WEBP", **options)).header.width == 64


def test_a_jpeg_with_endless_scans_is_refused() -> None:
    content = encoded(PICTURE, progressive=True)
    scan = content[content.index(b"\xff\xda") : -2]

    with pytest.raises(UnsupportedImageError, match="scans"):
        open_picture(content[:-2] + scan * MAX_SCANS + b"\xff\xd9")


def test_scans_are_limited_by_the_pixels_they_pass_over() -> None:
    content = encoded(np.zeros((5000, 8000, 3), np.uint8), progressive=True)
    refinement = content[content.rindex(b"\xff\xda") : -2]

    assert open_picture(content).header.width == 8000
    with pytest.raises(UnsupportedImageError, match="too long"):
        open_picture(content[:-2] + refinement * 30 + b"\xff\xd9")


def test_scans_are_not_counted_in_metadata() -> None:
    content = encoded(PICTURE, progressive=True)
    metadata = b"\xff\xed" + struct.pack(">H", 2002) + b"\xff\xda" * 1000

    assert open_picture(content[:2] + metadata + content[2:]).header.width == 64


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "ICO", "JPEG2000", "PDF", "PPM", "QOI", "TGA", "DDS", "SGI"])
def test_other_formats_are_named_and_refused(form: str) -> None:
    with pytest.raises(UnsupportedImageError, match="send JPEG, PNG, WebP, HEIC or AVIF") as refused:
        open_picture(encoded(PICTURE, form))

    assert refused.value.facts["format"].replace(" ", "") == form


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\xff\x0a\0", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (b"<svg>", "SVG"),
        (b"<?xml version='1.0'?>\n<svg>", "SVG"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "Canon CR3"),
        (b"\0\0\0\x18ftypqt  \0\0\0\1qt  ", "video"),
        (b"\0\0\0\x14ftypmif1\0\0\0\0mif1", "HEIF"),
        (b"FUJIFILMCCD-RAW 0201", "Fujifilm RAF"),
        (b"IIU\0\x18\0\0\0", "Panasonic RW2"),
        (b"IIRO\x08\0\0\0", "Olympus ORF"),
        (b"II*\0\x10\0\0\0CR\2\0", "Canon CR2"),
        (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000"),
        (b"P5\n64 96\n255\n", "PGM"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI\x50\0\x20\2", "CgBI"),
    ],
)
def test_formats_of_cameras_and_the_web_are_named(content: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImageError) as refused:
        open_picture(content)

    assert refused.value.facts == {"format": name}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello", "not an image"),
        (b"\xff", "not an image"),
        (b"\x89PNG", "not an image"),
        (b"RIFF\0\0\0\0WAVE", "WAV audio"),
        (b"\0" * 64, "zeros alone"),
        (b"\n<!DOCTYPE html><html>", "HTML page"),
        (b"<!-- 404 --><HTML>", "HTML page"),
        (b"<?xml version='1.0'?><Error>", "XML"),
        (b' {"error": 404}', "JSON"),
        (b"data:image/jpeg;base64,/9j/", "data URL"),
        (b"data:application/octet-stream;base64,/9j/", "data URL"),
        *((text, "Base64") for text in IN_BASE64),
        (JPEG.decode("utf-8", "replace").encode(), "read as text"),
        (JPEG.decode("latin-1").encode(), "read as text"),
        (PNG.decode("utf-8", "replace").encode(), "read as text"),
        (PNG.decode("latin-1").encode(), "read as text"),
        (PNG.replace(b"\r\n", b"\n"), "line ends"),
        (repr(JPEG).encode(), "Python shows bytes"),
        (b"\r\n\r\n" + JPEG, "begins 4 bytes after"),
        (b"\xef\xbb\xbf" + PNG, "begins 3 bytes after"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + JPEG, "begins 19 bytes after"),
        (b"PK\3\4" + JPEG, "a ZIP archive"),
        (gzip.compress(JPEG), "a gzip archive"),
        (bytes(257) + b"ustar", "a tar archive"),
        (b"\xd0\xcf\x11\xe0" + bytes(500), "Thumbs.db"),
        (b"\0\5\x16\7" + bytes(400), "AppleDouble"),
        (b"bplist00" + bytes(200), "iCloud"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_other_bytes_are_no_image(content: bytes, words: str) -> None:
    with pytest.raises(NotAnImageError, match=words):
        open_picture(content)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_header_cut_short_is_truncated(form: str) -> None:
    with pytest.raises(ImageTruncatedError):
        open_picture(encoded(PICTURE, form)[:28])


@pytest.mark.parametrize(
    ("marker", "depth", "height", "channels", "word"),
    [
        (0xC3, 8, 96, 3, "Lossless"),
        (0xF7, 8, 96, 3, "JPEG-LS"),
        (0xC1, 12, 96, 3, "12 bits"),
        (0xC0, 8, 0, 3, "DNL"),
        (0xC0, 8, 96, 2, "2 channels"),
    ],
)
def test_kinds_of_jpeg_no_camera_writes_are_named(
    marker: int, depth: int, height: int, channels: int, word: str
) -> None:
    content = bytearray(encoded(PICTURE))
    frame = content.index(b"\xff\xc0")
    content[frame + 1] = marker
    struct.pack_into(">BHHB", content, frame + 4, depth, height, 64, channels)

    with pytest.raises(UnsupportedImageError, match=word):
        open_picture(bytes(content))


@pytest.mark.parametrize("block", [b"\xff\xe0\0\2", b"\0\0\0\0tEXt\0\0\0\0", b"XYZ!\0\0\0\0"])
def test_a_file_of_endless_blocks_is_refused(block: bytes) -> None:
    form, at = {b"\xff": ("JPEG", 2), b"\0": ("PNG", 33), b"X": ("WEBP", 12)}[block[:1]]
    content = encoded(PICTURE, form)

    with pytest.raises(ImageTruncatedError, match="more than 100,000"):
        open_picture(content[:at] + block * 100_001 + content[at:])


def test_a_damaged_exif_block_states_nothing() -> None:
    sound = exif(6).tobytes()

    assert read_exif_orientation(sound) == 6
    assert read_exif_orientation(sound[6:]) == 6
    assert read_exif_orientation(sound[:18]) is None
    assert read_exif_orientation(b"II*\0" + struct.pack("<I", 10**9)) is None
    assert read_exif_orientation(b"") is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(1, "B"), (3, "H"), (4, "I"), (8, "h"), (9, "i")])
def test_an_orientation_of_any_integer_type_is_read(order: str, kind: int, code: str) -> None:
    def entry(value: int) -> bytes:
        return struct.pack(f"{order}HHI", 274, kind, 1) + struct.pack(order + code, value).ljust(4, b"\0")

    def block(*values: int) -> bytes:
        magic = b"II*\0" if order == "<" else b"MM\0*"
        return magic + struct.pack(f"{order}IH", 8, len(values)) + b"".join(map(entry, values)) + bytes(4)

    assert read_exif_orientation(block(6)) == 6
    assert read_exif_orientation(block(6, 1)) == 1
    assert read_exif_orientation(block(9)) is None


def test_the_header_alone_is_enough() -> None:
    content = encoded(np.zeros((3000, 4000, 3), np.uint8))

    assert open_picture(content[:2000]).header.width == 4000
