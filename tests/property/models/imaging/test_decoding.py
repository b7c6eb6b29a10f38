"""Any bytes are decoded or refused with a reason."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.faces import astronaut, encoded

from vultus.errors import VultusError
from vultus.models.imaging.decoding import EncodedPhoto
from vultus.models.imaging.orientation import find_orientation
from vultus.settings import PhotoSettings

# A damaged header may claim any size; that is checked, and small limits keep the test quick.
LIMITS = PhotoSettings(max_pixels=1_000_000)
FORMS = ["JPEG", "PROGRESSIVE", "PNG", "WEBP", "AVIF"]
STARTS = (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"RIFF\0\0\0\0WEBPVP8 ", b"RIFF\0\0\0\0WEBPVP8X")


@cache
def sound(form: str) -> bytes:
    picture = astronaut()[60:140, 180:270]
    return encoded(picture, progressive=True) if form == "PROGRESSIVE" else encoded(picture, form)


def attempt(content: bytes) -> np.ndarray | None:
    try:
        return EncodedPhoto.open(content, LIMITS).decode(1600).pixels
    except VultusError:
        return None


@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=400))
def test_random_bytes_are_refused_with_a_reason(start: bytes, rest: bytes) -> None:
    assert attempt(start + rest) is None


@given(form=st.sampled_from(FORMS), data=st.data())
def test_a_photo_cut_anywhere_is_refused_or_nearly_whole(form: str, data: st.DataObject) -> None:
    content = sound(form)
    cut = data.draw(st.integers(0, len(content) - 1))

    pixels = attempt(content[:cut])

    whole = attempt(content)
    assert whole is not None
    if pixels is not None:
        # Of 80 rows the last 5 may be missing: a strip, and the blocks around it.
        assert np.abs(pixels[:-21].astype(int) - whole[:-21]).mean() < 4


@given(form=st.sampled_from(FORMS), data=st.data())
def test_damaged_bytes_never_break_the_decoder(form: str, data: st.DataObject) -> None:
    content = bytearray(sound(form))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    pixels = attempt(bytes(content))

    assert pixels is None or (pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8)


@given(exif=st.binary(max_size=200), order=st.sampled_from([b"", b"II*\0", b"MM\0*"]))
def test_any_exif_block_has_an_orientation(exif: bytes, order: bytes) -> None:
    assert 1 <= find_orientation([order + exif], [exif]) <= 8
