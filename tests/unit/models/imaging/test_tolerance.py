"""What decoders only warn of, and what no picture needs, is no damage; missing data is."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from tests import heics
from tests.faces import astronaut, encoded

from vultus.domain import Pixels
from vultus.errors import ImageTruncatedError, UnsupportedImageError
from vultus.models.imaging import heif
from vultus.models.imaging.decoding import EncodedPhoto
from vultus.settings import PhotoSettings

PICTURE = astronaut()[0:240, 96:256]
SIDEWAYS = np.ascontiguousarray(np.rot90(PICTURE, 1))
"""As a camera stores it that says orientation 6."""

EXIF = b"II*\0" + struct.pack("<IHHHIH2xI", 8, 1, 274, 3, 1, 6, 0)
XMP = b"<rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation='6'/>"


def decode(content: bytes) -> Pixels:
    return EncodedPhoto.open(content, PhotoSettings()).decode(1600).pixels


def assert_shows(content: bytes, expected: np.ndarray = PICTURE, *, difference: float = 4) -> None:
    found = decode(content)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < difference


# -- JPEG ----------------------------------------------------------------------------------------------------------


def insert(content: bytes, marker: int, payload: bytes) -> bytes:
    return content[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + content[2:]


def adobe(transform: int) -> bytes:
    return b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform)


def drop_jfif(content: bytes) -> bytes:
    return content[:2] + content[20:]


def set_scan_end(content: bytes) -> bytes:
    """Write the parameters of the scan as Samsung's cameras do: 0, 0 instead of 0, 63."""
    at = content.index(b"\xff\xda")
    return content[: at + 11] + b"\0\0\0" + content[at + 14 :]


def set_jfif_version(content: bytes) -> bytes:
    return content[:11] + b"\2\1" + content[13:]


def insert_before_scan(content: bytes, junk: bytes) -> bytes:
    at = content.index(b"\xff\xda")
    return content[:at] + junk + content[at:]


JPEGS: dict[str, Callable[[bytes], bytes]] = {
    "scan parameters of Samsung": set_scan_end,
    "JFIF 2.1": set_jfif_version,
    "unknown Adobe transform": lambda jpeg: insert(drop_jfif(jpeg), 0xEE, adobe(7)),
    "Adobe transform of CMYK": lambda jpeg: insert(drop_jfif(jpeg), 0xEE, adobe(2)),
    "no end marker": lambda jpeg: jpeg[:-2],
    "last bytes lost": lambda jpeg: jpeg[:-20],
    "padding before the end": lambda jpeg: jpeg[:-2] + bytes(4096) + jpeg[-2:],
    "fill bytes": lambda jpeg: insert_before_scan(jpeg, b"\xff\xff\xff"),
    "two megabytes of fill bytes": lambda jpeg: insert_before_scan(jpeg, b"\xff" * 2_000_000 + b"\0"),
    "junk before the scan": lambda jpeg: insert_before_scan(jpeg, b"\0\0\0\0"),
    "two start markers": lambda jpeg: b"\xff\xd8" + jpeg,
    "scans in metadata": lambda jpeg: insert(jpeg, 0xED, b"\xff\xda" * 500),
    "an end in a comment": lambda jpeg: insert(jpeg, 0xFE, b"\xff\xd9\xff\xd8"),
    "damaged Exif": lambda jpeg: insert(jpeg, 0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
    "a video behind it": lambda jpeg: jpeg + b"\0\0\0\x18ftypmp42" + bytes(5000),
}


@pytest.mark.parametrize("change", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}], ids=["4:2:0", "4:4:4"])
def test_a_jpeg_of_which_decoders_only_warn_is_read(change: Callable[[bytes], bytes], options: dict[str, Any]) -> None:
    assert_shows(change(encoded(PICTURE, **options)))


@pytest.mark.parametrize("lost", [2, 30])
def test_the_end_of_a_progressive_jpeg_may_be_lost(lost: int) -> None:
    assert_shows(encoded(PICTURE, progressive=True)[:-lost])


@pytest.mark.parametrize("share", [0.2, 0.4, 0.55])
def test_a_progressive_jpeg_that_shows_coarse_blocks_only_is_refused(share: float) -> None:
    content = encoded(PICTURE, progressive=True)

    with pytest.raises(ImageTruncatedError):
        decode(content[: int(share * len(content))])


@pytest.mark.parametrize("first", [0, 3])
def test_restart_markers_are_counted_anew(first: int) -> None:
    content = encoded(PICTURE, restart_marker_blocks=3)
    wrong = re.sub(rb"\xff[\xd0-\xd7]", lambda _: bytes([0xFF, 0xD0 + first]), content)

    np.testing.assert_array_equal(decode(wrong), decode(content))


def test_a_jpeg_that_lost_what_is_between_restart_markers_is_refused() -> None:
    content = encoded(PICTURE, restart_marker_blocks=3)
    markers = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", content)]

    with pytest.raises(ImageTruncatedError, match="of the picture is missing"):
        decode(content[: markers[10]] + content[markers[25] :])


def test_a_jpeg_whose_data_is_of_another_coding_is_refused() -> None:
    content = bytearray(encoded(PICTURE))
    content[content.index(b"\xff\xc0") + 1] = 0xC9  # arithmetic

    with pytest.raises(ImageTruncatedError):
        decode(bytes(content))


@pytest.mark.parametrize("side", [9999, 256, 32])
def test_a_jpeg_with_sampling_that_simplejpeg_does_not_know_is_read(side: int) -> None:
    grey = np.full((256, 256, 3), 90, np.uint8)
    content = bytearray(encoded(grey, subsampling=0))
    content[content.index(b"\xff\xc0") + 14] = 0x12  # of the second channel, which has more blocks than those

    found = EncodedPhoto.open(bytes(content), PhotoSettings()).decode(side).pixels

    assert max(found.shape[:2]) == min(256, side)
    assert np.abs(found.astype(int) - 90).mean() < 4


@pytest.mark.parametrize("progressive", [False, True])
def test_a_cmyk_jpeg_is_read_as_pillow_reads_it(progressive: bool) -> None:
    content = encoded(Image.fromarray(PICTURE).convert("CMYK"), progressive=progressive)

    assert_shows(content, difference=5)
    assert_shows(insert(content, 0xE0, b"JFIF\0\2\1\0\0\1\0\1\0\0"), difference=5)


@pytest.mark.parametrize(
    "segments",
    [
        [(0xE1, b"Exif\0\0" + EXIF)],
        [(0xE1, b"Exif\0\xff" + EXIF)],
        [(0xE1, b"Exif\0\0" + EXIF), (0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")],
        [(0xE1, b"Exif\0\0" + EXIF[:16]), (0xE1, b"Exif\0\0" + EXIF[16:])],
        [(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)],
        [(0xE1, b"http://ns.adobe.com/xap/1.0/\0<tiff:Orientation>6</tiff:Orientation>")],
        [(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP.replace(b"6", b"3")), (0xE1, b"Exif\0\0" + EXIF)],
    ],
    ids=[
        "Exif",
        "Exif and another padding",
        "two blocks",
        "two segments",
        "XMP attribute",
        "XMP element",
        "Exif before XMP",
    ],
)
def test_the_orientation_of_a_jpeg_is_read_wherever_it_stands(segments: list[tuple[int, bytes]]) -> None:
    content = encoded(SIDEWAYS)
    for marker, payload in reversed(segments):
        content = insert(content, marker, payload)

    assert_shows(content)


def test_exif_behind_the_frame_header_is_read() -> None:
    segment = struct.pack(">BBH", 0xFF, 0xE1, len(EXIF) + 8) + b"Exif\0\0" + EXIF

    assert_shows(insert_before_scan(encoded(SIDEWAYS), segment))


# -- PNG -----------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, payload: bytes, *, damage: int = 0) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload) ^ damage)


LONG = zlib.compress(b"layer " * 500_000)
ANCILLARY = {
    "zTXt": b"history\0\0" + LONG,
    "iTXt": b"XML:com.adobe.xmp\0\1\0\0\0" + LONG,
    "iCCP": b"profile\0\0" + LONG,
    "tEXt": b"Software\0somebody",
    "pHYs": bytes(9),
    "gAMA": bytes(4),
    "tIME": bytes(7),
    "acTL": bytes(8),
    "zzZz": b"?",
}


@pytest.mark.parametrize("damage", [0, 1], ids=["sound", "damaged"])
@pytest.mark.parametrize("at", ["before", "after"])
@pytest.mark.parametrize("kind", ANCILLARY)
def test_chunks_that_no_picture_needs_do_no_harm(kind: str, at: str, damage: int) -> None:
    content = encoded(PICTURE, "PNG")
    start = 33 if at == "before" else len(content) - 12
    added = chunk(kind.encode(), ANCILLARY[kind], damage=damage)

    assert_shows(content[:start] + added + content[start:], difference=0.01)


def test_transparency_with_a_wrong_checksum_is_left_out() -> None:
    content = encoded(PICTURE, "PNG")
    colour = struct.pack(">HHH", *PICTURE[0, 0].tolist())

    whole = decode(content)
    transparent = decode(content[:33] + chunk(b"tRNS", colour) + content[33:])
    damaged = decode(content[:33] + chunk(b"tRNS", colour, damage=1) + content[33:])

    assert transparent[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(damaged, whole)


@pytest.mark.parametrize("lost", [1, 12, 14, 20, 1500])
def test_the_end_of_a_png_may_be_lost(lost: int) -> None:
    assert_shows(encoded(PICTURE, "PNG")[:-lost], difference=2)


def test_a_wrong_checksum_of_data_that_arrived_as_it_was_written_does_no_harm() -> None:
    data = bytearray(zlib.compress(b"".join(b"\0" + row.tobytes() for row in PICTURE)))
    data[-1] ^= 1
    head = encoded(PICTURE, "PNG")[:33]
    chunks = [chunk(b"IDAT", bytes(data[:1])), chunk(b"IDAT", bytes(data[1:])), chunk(b"IEND", b"")]

    assert_shows(head + b"".join(chunks), difference=0.01)


@pytest.mark.parametrize("colour", ["header", "palette", "data"])
def test_a_png_with_damage_to_its_picture_is_refused(colour: str) -> None:
    content = bytearray(encoded(Image.fromarray(PICTURE).quantize(64), "PNG"))
    at = {"header": 20, "palette": content.index(b"PLTE") + 20, "data": content.index(b"IDAT") + 3000}[colour]
    content[at] ^= 0x55

    with pytest.raises(ImageTruncatedError):
        decode(bytes(content))


def raw_profile(kind: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    block = b"Exif\0\0" + EXIF
    info.add_text(f"Raw profile type {kind}", f"\n{kind}\n{len(block):8d}\n{block.hex()}\n", zip=kind == "exif")
    return info


@pytest.mark.parametrize("at", ["before", "after"])
@pytest.mark.parametrize(
    ("kind", "payload"),
    [(b"eXIf", EXIF), (b"eXIf", b"Exif\0\0" + EXIF), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)],
)
def test_the_orientation_of_a_png_is_read_wherever_it_stands(kind: bytes, payload: bytes, at: str) -> None:
    content = encoded(SIDEWAYS, "PNG")
    start = 33 if at == "before" else len(content) - 12

    assert_shows(content[:start] + chunk(kind, payload) + content[start:])


@pytest.mark.parametrize("kind", ["exif", "APP1"])
def test_exif_in_a_text_of_imagemagick_is_read(kind: str) -> None:
    assert_shows(encoded(SIDEWAYS, "PNG", pnginfo=raw_profile(kind)))


def test_only_the_first_texts_of_a_png_are_unpacked() -> None:
    """Thousands of them would be a megabyte each."""
    content = encoded(PICTURE, "PNG")
    text = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n   9\n" + b"00" * 2**19))

    assert_shows(content[:33] + 20_000 * text + content[33:], difference=0.01)


@pytest.mark.parametrize("text", [b"zTXt", b"iTXt", b"tEXt"])
def test_a_damaged_text_is_left_out(text: bytes) -> None:
    content = encoded(PICTURE, "PNG")

    assert_shows(content[:33] + chunk(text, b"Raw profile type exif\0\1\1\1zzz") + content[33:])


# -- WebP, HEIC, AVIF ----------------------------------------------------------------------------------------------


def riff(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


WEBPS: dict[str, Callable[[bytes], bytes]] = {
    "an unknown chunk": lambda webp: webp[:12] + riff(b"XYZ!", b"abc") + webp[12:],
    "a wrong length": lambda webp: webp[:4] + b"\xff\xff\xff\x7f" + webp[8:],
    "last bytes lost": lambda webp: webp[:-4],
    "a damaged profile": lambda webp: webp[:12] + riff(b"ICCP", b"?") + webp[12:],
}


@pytest.mark.parametrize("change", WEBPS.values(), ids=WEBPS)
def test_a_webp_with_odd_chunks_is_read(change: Callable[[bytes], bytes]) -> None:
    assert_shows(change(encoded(PICTURE, "WEBP", quality=95)))


def test_the_orientation_of_a_webp_is_read_from_xmp() -> None:
    assert_shows(encoded(SIDEWAYS, "WEBP", quality=95, xmp=XMP))


@pytest.mark.parametrize("lossless", [True, False])
def test_transparent_webp_is_composited_on_white(lossless: bool) -> None:
    layers = np.dstack([PICTURE, np.zeros_like(PICTURE[:, :, :1])])

    assert decode(encoded(layers, "WEBP", lossless=lossless)).min() == 255


def test_a_frame_of_an_animation_stands_where_the_canvas_says() -> None:
    still = encoded(PICTURE, "WEBP", quality=95)
    place = (10).to_bytes(3, "little") + (20).to_bytes(3, "little")  # halves
    sides = (159).to_bytes(3, "little") + (239).to_bytes(3, "little")
    frame = riff(b"ANMF", place + sides + bytes(4) + still[12:])
    canvas = riff(b"VP8X", b"\x02\0\0\0" + (399).to_bytes(3, "little") + (299).to_bytes(3, "little"))
    body = b"WEBP" + canvas + riff(b"ANIM", bytes(6)) + frame

    expected = np.full((300, 400, 3), 255, np.uint8)
    expected[40:280, 20:180] = PICTURE
    assert_shows(riff(b"RIFF", body), expected)


def test_a_heic_is_read_and_turned_once() -> None:
    upright, turned = decode(heics.UPRIGHT), decode(heics.TURNED)

    assert upright.shape == turned.shape == (64, 48, 3)
    assert np.abs(upright.astype(int) - turned).mean() < 4
    assert upright[:8].mean() < 60 < 200 < upright[-8:].mean()


@pytest.mark.parametrize("length", [40, 300, len(heics.UPRIGHT) - 10])
def test_a_heic_that_ends_early_is_refused(length: int) -> None:
    with pytest.raises(ImageTruncatedError, match="HEIC"):
        decode(heics.UPRIGHT[:length])


def test_without_its_decoder_a_heic_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heif, "pi_heif", None)

    with pytest.raises(UnsupportedImageError, match="pi-heif is not installed"):
        decode(heics.UPRIGHT)


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_an_avif_that_ends_early_is_refused(share: float) -> None:
    content = encoded(PICTURE, "AVIF")

    with pytest.raises(ImageTruncatedError, match="AVIF"):
        decode(content[: int(share * len(content))])


def test_of_a_sequence_the_first_picture_counts() -> None:
    frames = [Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)]

    assert_shows(encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:]), difference=5)
