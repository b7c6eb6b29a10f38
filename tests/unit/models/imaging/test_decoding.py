"""Every kind of photo becomes upright RGB, or is refused with the right reason."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.faces import astronaut, encoded

from vultus.errors import (
    ImageTooLargeError,
    ImageTooSmallError,
    ImageTruncatedError,
    NotAnImageError,
)
from vultus.models.imaging.decoding import DecodedPhoto, EncodedPhoto
from vultus.settings import PhotoSettings

LIMITS = PhotoSettings()
PICTURE = astronaut()[0:240, 96:256]


def decode(content: bytes, longer_side: int = 1600, limits: PhotoSettings = LIMITS) -> DecodedPhoto:
    return EncodedPhoto.open(content, limits).decode(longer_side)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found.astype(int) - expected).mean())


def grey() -> np.ndarray:
    return np.asarray(Image.fromarray(PICTURE).convert("L"))


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"quality": 95}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_photos_of_every_format_are_decoded(form: str, options: dict[str, Any]) -> None:
    picture = decode(encoded(PICTURE, form, **options))

    assert difference(picture.pixels, PICTURE) < 4
    assert (picture.width, picture.height) == (160, 240)
    assert picture.pixels.dtype == np.uint8 and picture.pixels.flags.c_contiguous


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "CMYK", "YCbCr"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    form = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    image = Image.fromarray(PICTURE).convert(mode)

    pixels = decode(encoded(image, form)).pixels

    assert difference(pixels, np.asarray(image.convert("RGB"))) < 5


def test_a_grey_jpeg_is_decoded() -> None:
    assert difference(decode(encoded(grey())).pixels, np.repeat(grey()[..., None], 3, axis=2)) < 4


def test_sixteen_bits_of_grey_are_scaled_to_eight() -> None:
    deep = (grey().astype(np.uint16) << 8) | 0x7F

    pixels = decode(encoded(Image.fromarray(deep), "PNG")).pixels

    np.testing.assert_array_equal(pixels[:, :, 0], grey())


def test_sixteen_bits_of_colour_are_scaled_to_eight() -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in PICTURE.astype(np.uint16) * 257)
    pixels = decode(png(160, 240, depth=16, kind=2, data=rows)).pixels

    np.testing.assert_array_equal(pixels, PICTURE)


def png(width: int, height: int, *, depth: int, kind: int, data: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_transparent_pixels_are_composited_on_white() -> None:
    image = Image.fromarray(PICTURE).convert("RGBA")
    image.putalpha(0)
    palette = Image.fromarray(PICTURE).convert("P")

    assert decode(encoded(image, "PNG")).pixels.min() == 255
    assert decode(encoded(palette, "PNG", transparency=bytes(256))).pixels.min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_every_exif_orientation_is_applied(form: str, orientation: int) -> None:
    # How a camera stores the picture so that showing it by this orientation is right (CIPA DC-008, 4.6.5.1).
    stored = {
        1: PICTURE,
        2: PICTURE[:, ::-1],
        3: PICTURE[::-1, ::-1],
        4: PICTURE[::-1],
        5: PICTURE.transpose(1, 0, 2),
        6: np.rot90(PICTURE, 1),
        7: np.rot90(PICTURE, 2).transpose(1, 0, 2),
        8: np.rot90(PICTURE, -1),
    }[orientation]
    tags = Image.Exif()
    tags[0x0112] = orientation

    picture = decode(encoded(np.ascontiguousarray(stored), form, exif=tags))

    assert difference(picture.pixels, PICTURE) < 5
    assert (picture.width, picture.height) == (160, 240)


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_of_an_animation_the_first_picture_counts(form: str) -> None:
    frames = [Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)]
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:])

    assert difference(decode(content).pixels, PICTURE) < 5


def test_of_a_multi_picture_jpeg_the_first_counts() -> None:
    stream = io.BytesIO()
    Image.fromarray(PICTURE).save(
        stream, "MPO", save_all=True, append_images=[Image.fromarray(255 - PICTURE)], quality=92
    )

    assert difference(decode(stream.getvalue()).pixels, PICTURE) < 5


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_photo_that_ends_early_is_refused(form: str, share: float) -> None:
    content = encoded(PICTURE, form)

    with pytest.raises(ImageTruncatedError):
        decode(content[: int(len(content) * share)])


def test_a_jpeg_with_a_hole_in_its_data_is_refused() -> None:
    content = bytearray(encoded(PICTURE))
    middle = len(content) // 2
    content[middle : middle + 2000] = b"\xff\xd9" * 1000

    with pytest.raises(ImageTruncatedError):
        decode(bytes(content))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_bytes_after_the_end_do_no_harm(form: str) -> None:
    content = encoded(PICTURE, form)

    np.testing.assert_array_equal(decode(content + b"trailing" * 99).pixels, decode(content).pixels)


def test_stray_bytes_between_segments_of_a_jpeg_do_no_harm() -> None:
    content = encoded(PICTURE)
    end = len(content) - 2

    picture = decode(content[:end] + b"\0\0\0" + content[end:])

    np.testing.assert_array_equal(picture.pixels, decode(content).pixels)


def test_limits_are_checked_before_anything_is_decoded() -> None:
    bomb = png(60_000, 60_000, depth=8, kind=2, data=b"")

    with pytest.raises(ImageTooLargeError, match=r"3,600,000,000 pixels"):
        decode(bomb)
    with pytest.raises(ImageTooLargeError, match="bytes"):
        decode(encoded(PICTURE), limits=PhotoSettings(max_bytes=100))
    with pytest.raises(ImageTooLargeError, match="pixels"):
        decode(encoded(PICTURE), limits=PhotoSettings(max_pixels=160 * 240 - 1))


@pytest.mark.parametrize("shape", [(1, 1, 3), (19, 300, 3), (300, 19, 3)])
def test_photos_with_too_few_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageTooSmallError):
        decode(encoded(np.zeros(shape, np.uint8), "PNG"))


@pytest.mark.parametrize("content", [b"", b"not a photo"])
def test_other_bytes_are_no_image(content: bytes) -> None:
    with pytest.raises(NotAnImageError):
        decode(content)


@pytest.mark.parametrize(
    ("size", "longer_side", "decoded"),
    [((1600, 1200), 400, (400, 300)), ((1601, 1201), 400, (401, 301)), ((1600, 1200), 900, (1600, 1200))],
)
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_jpeg_is_decoded_no_larger_than_needed(
    mode: str, size: tuple[int, int], longer_side: int, decoded: tuple[int, int]
) -> None:
    image = Image.fromarray(astronaut()).convert(mode).resize(size)

    picture = decode(encoded(image), longer_side)

    assert (picture.pixels.shape[1], picture.pixels.shape[0]) == decoded
    assert (picture.width, picture.height) == size


@pytest.mark.usefixtures("unmeasured_processes")
def test_a_photo_weighs_what_decoding_it_holds(tmp_path: Path) -> None:
    picture = np.asarray(Image.fromarray(astronaut()).resize((2100, 1500)))
    layers = np.dstack([picture, picture[:, :, :1]])
    files = {
        "jpeg": encoded(picture),
        "progressive": encoded(picture, progressive=True, subsampling=0),
        "cmyk": encoded(Image.fromarray(picture).convert("CMYK"), progressive=True),
        "png": encoded(picture, "PNG", compress_level=1),
        "png-alpha": encoded(layers, "PNG", compress_level=1),
        "png-grey-16": encoded(Image.fromarray(picture[:, :, 0].astype(np.uint16)), "PNG", compress_level=1),
        "webp": encoded(picture, "WEBP", method=0),
        "webp-alpha": encoded(layers, "WEBP", method=0),
        "webp-lossless": encoded(np.full_like(layers, 90), "WEBP", lossless=True, method=0),
        "avif": encoded(picture, "AVIF", speed=10),
        "avif-alpha": encoded(layers, "AVIF", speed=10),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    for side in (9999, 700):
        measured = subprocess.run(
            [sys.executable, "-c", MEASURE, str(side), *(str(tmp_path / name) for name in files)],
            capture_output=True,
            text=True,
            check=True,
        )
        held = dict(zip(files, map(int, measured.stdout.split()), strict=True))
        weights = {name: EncodedPhoto.open(content, LIMITS).count_held_bytes(side) for name, content in files.items()}
        assert {name: bytes_ for name, bytes_ in held.items() if bytes_ > weights[name] + 4_000_000} == {}


MEASURE = """
import sys
from pathlib import Path
from vultus.models.imaging.decoding import EncodedPhoto
from vultus.settings import PhotoSettings

def read_kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

for path in (sys.argv[2], *sys.argv[2:]):  # the first one twice: it also loads what decoders load
    content = Path(path).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before = read_kilobytes("VmRSS")
    EncodedPhoto.open(content, PhotoSettings()).decode(int(sys.argv[1]))
    if path is not sys.argv[2] or "seen" in globals():
        print(1024 * (read_kilobytes("VmHWM") - before))
    seen = True
"""


def test_a_photo_that_needs_more_memory_than_the_budget_is_refused() -> None:
    layers = encoded(np.zeros((1000, 1000, 4), np.uint8), "PNG")

    assert decode(layers, limits=PhotoSettings(memory_budget=10 * 2**20)).width == 1000
    with pytest.raises(ImageTooLargeError, match="memory"):
        decode(layers, limits=PhotoSettings(memory_budget=8 * 2**20))
