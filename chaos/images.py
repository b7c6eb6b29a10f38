"""Small photos of every kind a caller may send, and what damages them."""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, features
from tests.faces import astronaut, encoded

if TYPE_CHECKING:
    import random

SIDE = 96
"""Pixels of a seed: small, so that most of a file is structure."""

BOUNDARIES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@lru_cache(maxsize=1)
def build_seeds() -> dict[str, bytes]:
    """Return intact files by what they are."""
    return _build_jpegs() | _build_pngs() | _build_others()


def _get_picture() -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(astronaut()[30:330, 80:380])).resize((SIDE, SIDE))


def _build_jpegs() -> dict[str, bytes]:
    picture = _get_picture()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "chaos"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "JPEG 4:2:0": (picture, {"subsampling": 2}),
        "JPEG 4:2:2": (picture, {"subsampling": 1}),
        "JPEG 4:4:4": (picture, {"subsampling": 0}),
        "JPEG grey": (picture.convert("L"), {}),
        "JPEG CMYK": (picture.convert("CMYK"), {}),
        "JPEG RGB": (picture, {"keep_rgb": True}),
        "JPEG progressive": (picture, {"progressive": True}),
        "JPEG optimised": (picture, {"optimize": True, "quality": 20}),
        "JPEG with restarts": (picture, {"restart_marker_blocks": 1}),
        "JPEG with Exif": (picture, {"exif": exif}),
        "JPEG with profile": (picture, {"icc_profile": profile}),
        "JPEG with comment": (picture, {"comment": b"chaos" * 20}),
    }
    made = {name: encoded(image, "JPEG", **options) for name, (image, options) in kinds.items()}
    made["MPO"] = encoded(picture, "MPO", save_all=True, append_images=[picture.rotate(5)])
    return made


def _build_pngs() -> dict[str, bytes]:
    picture = _get_picture()
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "chaos " * 50, zip=True)
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    made = {f"PNG {mode}": encoded(picture.convert(mode), "PNG") for mode in ("RGB", "L", "1", "P", "LA", "RGBA")}
    made["PNG 16 bit"] = encoded(deep, "PNG")
    made["PNG with transparency"] = encoded(picture.convert("P"), "PNG", transparency=3)
    made["PNG with text"] = encoded(picture, "PNG", pnginfo=text)
    made["PNG animated"] = encoded(picture, "PNG", save_all=True, append_images=[picture.rotate(5)])
    return made


def _build_others() -> dict[str, bytes]:
    picture = _get_picture()
    turned = {"save_all": True, "append_images": [picture.rotate(5)]}
    made = {
        "WebP lossy": encoded(picture, "WEBP", quality=60),
        "WebP lossless": encoded(picture, "WEBP", lossless=True),
        "WebP with alpha": encoded(picture.convert("RGBA"), "WEBP", quality=60),
        "WebP animated": encoded(picture, "WEBP", **turned),
        "GIF": encoded(picture, "GIF", **turned),
        "BMP": encoded(picture, "BMP"),
        "TIFF": encoded(picture, "TIFF"),
    }
    if features.check("avif"):
        made["AVIF"] = encoded(picture, "AVIF", quality=50)
    return made


def damage_photo(content: bytes, chance: random.Random) -> bytes:
    """Return a file with one to four kinds of damage."""
    for _ in range(chance.randint(1, 4)):
        content = chance.choice(DAMAGES)(content, chance) or b"\0"
    return content


def _pick_run(content: bytes, chance: random.Random) -> tuple[int, int]:
    """Return start and end of a run, more often in the head of a file, where its structure is."""
    start = chance.randrange(min(len(content), 200) if chance.random() < 0.5 else len(content))
    return start, min(len(content), start + chance.choice((1, 2, 4, 16, 200)))


def _flip_bits(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 8, 64))):
        changed[_pick_run(content, chance)[0]] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _replace_run(content: bytes, chance: random.Random) -> bytes:
    start, end = _pick_run(content, chance)
    return content[:start] + chance.choice((chance.randbytes, bytes))(end - start) + content[end:]


def _cut_end(content: bytes, chance: random.Random) -> bytes:
    return content[: _pick_run(content, chance)[1]]


def _delete_run(content: bytes, chance: random.Random) -> bytes:
    start, end = _pick_run(content, chance)
    return content[:start] + content[end:]


def _insert_run(content: bytes, chance: random.Random) -> bytes:
    start, end = _pick_run(content, chance)
    return content[:start] + chance.randbytes(end - start) + content[start:]


def _repeat_run(content: bytes, chance: random.Random) -> bytes:
    start, end = _pick_run(content, chance)
    return content[:start] + content[start:end] * chance.choice((2, 3, 50)) + content[end:]


def _swap_runs(content: bytes, chance: random.Random) -> bytes:
    (start, end), (other, last) = sorted((_pick_run(content, chance), _pick_run(content, chance)))
    if end > other:
        return content[other:] + content[:other]
    return content[:start] + content[other:last] + content[end:other] + content[start:end] + content[last:]


def _set_number(content: bytes, chance: random.Random) -> bytes:
    """Write a number at the edge of what a field can hold, of 2, 3 or 4 bytes and either order."""
    size, order = chance.choice((2, 3, 4)), chance.choice((">I", "<I"))
    packed = struct.pack(order, chance.choice(BOUNDARIES))
    number = packed[-size:] if order == ">I" else packed[:size]
    start = _pick_run(content, chance)[0]
    return content[:start] + number + content[start + size :]


def _add_number(content: bytes, chance: random.Random) -> bytes:
    """Change a byte by a little, as a length or a size is off by one."""
    start = _pick_run(content, chance)[0]
    return content[:start] + bytes([(content[start] + chance.choice((-2, -1, 1, 2))) % 256]) + content[start + 1 :]


def _splice_other(content: bytes, chance: random.Random) -> bytes:
    other = chance.choice(list(build_seeds().values()))
    return content[: _pick_run(content, chance)[0]] + other[_pick_run(other, chance)[0] :]


def _append_other(content: bytes, chance: random.Random) -> bytes:
    return content + chance.choice([*build_seeds().values(), bytes(1000), b"PK\3\4", b"\xff" * 100])


def _prepend_bytes(content: bytes, chance: random.Random) -> bytes:
    return chance.choice((b"\r\n", b"\xef\xbb\xbf", b"\0" * 16, b"\xff\xd8", b"RIFF\0\0\0\0WEBP")) + content


DAMAGES = (
    _flip_bits,
    _replace_run,
    _cut_end,
    _delete_run,
    _insert_run,
    _repeat_run,
    _swap_runs,
    _set_number,
    _add_number,
    _splice_other,
    _append_other,
    _prepend_bytes,
)


@lru_cache(maxsize=1)
def build_bombs() -> dict[str, bytes]:
    """Return valid files of a few bytes to a few hundred kilobytes that decode to tens of megapixels."""
    return {
        "WebP of one colour, 60 MP": _build_webp_bomb(16_383, 3_662),
        "WebP of one colour, 40 MP": _build_webp_bomb(8_000, 5_000),
        "WebP, animated, 33 MP": _build_animated_bomb(64, 524_000),
        "PNG, 40 MP": _build_png_bomb(8_000, 5_000, depth=8, colour=2),
        "PNG, grey, 16 bit, 60 MP": _build_png_bomb(10_000, 6_000, depth=16, colour=0),
        "PNG, colour, 16 bit, 60 MP": _build_png_bomb(10_000, 6_000, depth=16, colour=6),
        "JPEG of 190 scans, 12 MP": _build_scan_bomb(4_000, 3_000, 180),
    }


def _build_webp_bomb(width: int, height: int) -> bytes:
    """Return a lossless WebP of one colour: its codes have no bits, so that the data are the same for any size."""
    content = bytearray(encoded(Image.new("RGB", (16, 16), (90, 120, 150)), "WEBP", lossless=True))
    at = content.index(b"VP8L") + 9
    (head,) = struct.unpack_from("<I", content, at)
    struct.pack_into("<I", content, at, head & ~0xFFFFFFF | (width - 1) | (height - 1) << 14)
    return bytes(content)


def _build_animated_bomb(width: int, height: int) -> bytes:
    """Return an animated WebP with small frames on a large canvas."""
    content = bytearray(build_seeds()["WebP animated"])
    at = content.index(b"VP8X") + 12
    content[at : at + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(content)


def _build_png_bomb(width: int, height: int, *, depth: int, colour: int) -> bytes:
    """Return a PNG of zeros; `colour` is 0 for grey, 2 for RGB, 6 for RGBA."""
    row = bytes(1 + width * {0: 1, 2: 3, 6: 4}[colour] * depth // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = (b"IHDR" + head, b"IDAT" + data, b"IEND")
    packed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _build_scan_bomb(width: int, height: int, scans: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    content = encoded(Image.new("RGB", (width, height), (90, 120, 150)), "JPEG", progressive=True, quality=30)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * scans + content[-2:]
