"""A crop is small, records where the face is, and yields the face's vector again."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from tests.faces import STRANGER, astronaut, drawn, encoded, portrait

from vultus.domain import Box, Want
from vultus.models.imaging.cropping import MAX_CROP_SIDE_PX, crop_face

if TYPE_CHECKING:
    from vultus.models.pipeline import FacePipeline


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_a_face_embedded_again_from_its_crop_has_its_vector(pipeline: FacePipeline, scale: float) -> None:
    (face,) = pipeline.analyze_photo(portrait(scale=scale), Want(crops=True)).faces
    assert face.crop is not None

    (again,) = pipeline.analyze_photo(face.crop.jpeg).faces

    assert float(again.vector @ face.vector) >= 0.99
    assert again.face.box.compute_iou(face.crop.box) > 0.8
    assert max(Image.open(io.BytesIO(face.crop.jpeg)).size) <= MAX_CROP_SIDE_PX


def test_faces_of_others_are_covered(pipeline: FacePipeline) -> None:
    two_faces = np.hstack([astronaut()[20:220, 140:300], drawn(STRANGER, side=200)[:, 30:]])
    alone = pipeline.analyze_photo(encoded(two_faces)).faces
    both = pipeline.analyze_photo(encoded(two_faces), Want(crops=True)).faces
    assert (len(alone), len(both)) == (2, 2)

    for face in both:
        assert face.crop is not None
        (again,) = pipeline.analyze_photo(face.crop.jpeg).faces
        assert again.face.box.compute_iou(face.crop.box) > 0.8
        assert float(again.vector @ face.vector) >= 0.99


def test_a_face_that_overlaps_another_keeps_its_own_box() -> None:
    pixels = np.full((90, 90, 3), 255, np.uint8)

    crop = crop_face(pixels, Box(30, 30, 60, 60), [Box(45, 0, 90, 90)])

    image = np.asarray(Image.open(io.BytesIO(crop.jpeg)).convert("L")).astype(int)
    assert image[32:58, 32:58].min() > 240
    assert abs(image[32:58, 64:] - 128).max() < 16
    assert abs(image[:26, 50:] - 128).max() < 16
    assert image[:, :40].min() > 240


def test_nothing_is_cropped_unless_requested(pipeline: FacePipeline) -> None:
    assert [face.crop for face in pipeline.analyze_photo(portrait()).faces] == [None]


def test_a_distant_face_is_cropped_from_the_photo_at_full_size(pipeline: FacePipeline) -> None:
    scene = Image.new("RGB", (3600, 2400), (90, 110, 130))
    scene.paste(Image.fromarray(astronaut()), (1500, 900))

    (face,) = pipeline.analyze_photo(encoded(scene), Want(crops=True)).faces

    assert face.crop is not None
    assert face.crop.box.width == pytest.approx(face.face.box.width, rel=0.02)  # no pixel of it was lost


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (Box(40, 30, 60, 50), (60, 60)),
        (Box(-5, -5, 15, 15), (35, 35)),  # past the corner
        (Box(0, 0, 100, 80), (100, 80)),  # the whole photo
    ],
)
def test_a_crop_is_three_boxes_wide_as_far_as_the_photo_reaches(box: Box, size: tuple[int, int]) -> None:
    pixels = np.zeros((80, 100, 3), np.uint8)
    at = int(max(0, box.top)), int(max(0, box.left))
    pixels[at[0] : int(box.bottom), at[1] : int(box.right)] = 255

    crop = crop_face(pixels, box)

    image = Image.open(io.BytesIO(crop.jpeg))
    assert image.size == size
    marked = np.argwhere(np.asarray(image.convert("L")) > 128)
    np.testing.assert_allclose(marked.max(axis=0) + 1, (crop.box.bottom, crop.box.right), atol=1)
