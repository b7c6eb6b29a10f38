"""A crop shows the face where the network expects it, at any size of the photo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from tests.faces import astronaut

from vultus.models.catalog.measured import DLIB_CHIPS
from vultus.models.imaging.alignment import AlignmentTemplate, align_face, compute_tilt_deg

TEMPLATE = DLIB_CHIPS["mtcnn"]
FACE = np.array([[204, 100], [246, 103], [225, 128], [202, 140], [245, 142]], np.float32)


def test_landmarks_land_on_the_template() -> None:
    picture = np.zeros((400, 400, 3), np.uint8)
    landmarks = TEMPLATE.array * 0.9 + [120, 80]
    for x, y in np.floor(landmarks).astype(int):
        picture[y, x] = 255

    chip = align_face(picture, np.floor(landmarks) + np.float32(0.5), TEMPLATE)

    for x, y in TEMPLATE.points:
        near = chip[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3, 0]
        assert near.max() > 60


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_larger_photo_of_the_same_face_gives_the_same_crop(factor: int) -> None:
    larger = np.repeat(np.repeat(astronaut(), factor, axis=0), factor, axis=1)

    small, large = align_face(astronaut(), FACE, TEMPLATE), align_face(larger, FACE * factor, TEMPLATE)

    assert np.abs(small.astype(int) - large).mean() < 3


def test_fine_texture_of_a_large_face_becomes_grey_not_noise() -> None:
    y, x = np.mgrid[0:1200, 0:1200]
    checks = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[:, :, None], 3, axis=2)

    chip = align_face(checks, TEMPLATE.array * 7 + 80, TEMPLATE)

    assert chip.std() < 3
    assert chip.mean() == pytest.approx(127.5, abs=2)


def test_a_face_at_the_corner_is_black_where_the_photo_ends() -> None:
    white = np.full((100, 100, 3), 255, np.uint8)

    chip = align_face(white, TEMPLATE.array - np.float32(75), TEMPLATE)

    assert chip[:70, :70].max() == 0
    assert chip[80:, 80:].min() == 255


def test_a_large_face_far_outside_is_black() -> None:
    chip = align_face(np.full((60, 60, 3), 255, np.uint8), TEMPLATE.array * 4 + 5000, TEMPLATE)

    assert chip.max() == 0


def test_landmarks_in_one_point_are_refused() -> None:
    with pytest.raises(ValueError, match="coincide"):
        align_face(astronaut(), np.full((5, 2), 7, np.float32), TEMPLATE)


def test_a_head_tilted_clockwise_has_a_positive_tilt() -> None:
    matrix = cv2.getRotationMatrix2D((225, 120), -30, 1)

    turned = FACE @ matrix[:, :2].T + matrix[:, 2]

    assert compute_tilt_deg(turned) == pytest.approx(compute_tilt_deg(FACE) + 30, abs=0.1)


def test_a_template_gives_its_points_as_an_array() -> None:
    template = AlignmentTemplate(10, ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10)))

    np.testing.assert_array_equal(template.array, [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]])
