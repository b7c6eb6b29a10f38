"""Photos of every kind are recognised; files that are none get a clear answer."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from tests.faces import astronaut, encoded, portrait

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.api.conftest import Api


def sixteen_bit() -> bytes:
    grey = np.asarray(Image.fromarray(astronaut()).convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey), "PNG")


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    return encoded(Image.fromarray(astronaut()).transpose(undo), exif=exif)


def mode(name: str, form: str, **options: Any) -> bytes:
    return encoded(Image.fromarray(astronaut()).convert(name), form, **options)


def frames(form: str) -> bytes:
    image = Image.fromarray(astronaut())
    return encoded(image, form, save_all=True, append_images=[image.rotate(90), image.rotate(180)])


@pytest.mark.parametrize(
    "photo",
    [
        pytest.param(lambda: mode("RGB", "PNG"), id="png"),
        pytest.param(lambda: mode("RGB", "WEBP"), id="webp"),
        pytest.param(lambda: mode("L", "JPEG"), id="grey"),
        pytest.param(lambda: mode("CMYK", "JPEG"), id="cmyk"),
        pytest.param(lambda: mode("RGBA", "PNG"), id="alpha"),
        pytest.param(lambda: mode("P", "PNG"), id="palette"),
        pytest.param(sixteen_bit, id="16-bit"),
        pytest.param(lambda: frames("WEBP"), id="animated-webp"),
        pytest.param(lambda: frames("PNG"), id="animated-png"),
        pytest.param(lambda: frames("MPO"), id="mpo"),
        pytest.param(lambda: turned(3), id="exif-180"),
        pytest.param(lambda: turned(6), id="exif-90"),
        pytest.param(lambda: turned(8), id="exif-270"),
    ],
)
async def test_photos_of_every_kind_are_recognised(api: Api, photo: Callable[[], bytes]) -> None:
    await api.register(portrait(), name="Ada")

    (face,) = (await api.recognize(photo()))["faces"]

    assert face["verdict"] == "match"


def bomb() -> bytes:
    stream = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(stream, "PNG")
    return stream.getvalue()


def two_headers() -> bytes:
    """Return a PNG whose first header says 100×100 and whose second says 8000×8000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def header(side: int) -> bytes:
        return chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))

    picture = chunk(b"IDAT", zlib.compress(bytes(8001) * 8000))
    return b"\x89PNG\r\n\x1a\n" + header(100) + header(8000) + picture + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("photo", "status", "code"),
    [
        pytest.param(lambda: b"", 422, "not_an_image", id="empty"),
        pytest.param(lambda: b"nothing of an image", 422, "not_an_image", id="text"),
        pytest.param(lambda: portrait()[:20_000], 422, "image_truncated", id="cut-jpeg"),
        pytest.param(lambda: mode("RGB", "PNG")[:50_000], 422, "image_truncated", id="cut-png"),
        pytest.param(lambda: mode("RGB", "BMP"), 415, "unsupported_image", id="bmp"),
        pytest.param(lambda: mode("P", "GIF"), 415, "unsupported_image", id="gif"),
        pytest.param(lambda: encoded(np.zeros((1, 1, 3), np.uint8), "PNG"), 422, "image_too_small", id="1x1"),
        pytest.param(bomb, 413, "image_too_large", id="bomb"),
        pytest.param(two_headers, 422, "image_truncated", id="two-headers"),
    ],
)
async def test_a_file_that_is_no_photo_gets_a_clear_answer(
    api: Api, photo: Callable[[], bytes], status: int, code: str
) -> None:
    refused = await api.recognize(photo(), status=status)

    assert refused["code"] == code
    assert refused["detail"]


async def test_a_photo_over_its_byte_limit_is_not_decoded(serve: Callable[..., Any]) -> None:
    api = await serve(photos={"max_bytes": 10_000})

    assert (await api.recognize(portrait(), status=413))["code"] == "image_too_large"
