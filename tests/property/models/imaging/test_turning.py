"""A face found in a turned photo is put back where it is in the photo as it was sent."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vultus.domain import Box, DetectedFace
from vultus.models.imaging.decoding import DecodedPhoto
from vultus.models.imaging.turning import turn_face_back, turn_photo

quarters = st.integers(0, 3)
sides = st.integers(8, 60)
shares = st.lists(st.integers(0, 7), min_size=2, max_size=2)


@given(quarters, sides, sides, st.integers(1, 3), st.data())
def test_a_point_of_the_turned_photo_is_the_same_pixel_of_the_photo(
    turns: int, width: int, height: int, scale: int, data: st.DataObject
) -> None:
    column, row = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[row, column] = 255
    photo = DecodedPhoto(pixels, width * scale, height * scale)

    turned = turn_photo(photo, turns)
    ((y, x),) = np.argwhere(turned.pixels[..., 0])
    box = Box(float(x * scale), float(y * scale), float((x + 1) * scale), float((y + 1) * scale))
    points = np.full((5, 2), [(x + 0.5) * scale, (y + 0.5) * scale], np.float32)
    back = turn_face_back(DetectedFace(box, points, 0.9), turns, photo.width, photo.height)

    assert (turned.width, turned.height) == (turned.pixels.shape[1] * scale, turned.pixels.shape[0] * scale)
    assert back.box == Box(column * scale, row * scale, (column + 1) * scale, (row + 1) * scale)
    np.testing.assert_allclose(back.landmarks, np.full((5, 2), [(column + 0.5) * scale, (row + 0.5) * scale]))


@given(quarters, sides, sides, shares)
def test_a_box_keeps_its_area_and_its_order_of_sides(turns: int, width: int, height: int, sizes: list[int]) -> None:
    left, top = 1.0, 2.0
    box = Box(left, top, left + sizes[0], top + sizes[1])

    back = turn_face_back(DetectedFace(box, np.zeros((5, 2), np.float32), 0.9), turns, width, height).box

    assert sorted((back.width, back.height)) == sorted(map(float, sizes))
