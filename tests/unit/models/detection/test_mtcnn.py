"""The detector finds every face once, with its landmarks in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from tests.faces import astronaut

from vultus.domain import Box, DetectedFace, Pixels
from vultus.errors import WeightsError
from vultus.models.catalog.packs import BUILTIN
from vultus.models.detection.mtcnn import ImagePyramid, find_distinct_faces
from vultus.models.detection.mtcnn_graph import build_pnet
from vultus.models.weights.store import WeightsStore

if TYPE_CHECKING:
    from vultus.models.pipeline import FacePipeline

Detect = Callable[[Pixels, float], list[DetectedFace]]

# Marked by hand on scikit-image's astronaut: eyes, nose, mouth corners.
EYES_NOSE_MOUTH = np.array([[204, 100], [246, 103], [225, 128], [202, 140], [245, 142]])


@pytest.fixture(scope="module")
def detect(pipeline: FacePipeline) -> Detect:
    return pipeline._finder.detector.detect


def face_picture() -> Pixels:
    """The astronaut's head and shoulders, (256, 256, 3)."""
    return astronaut()[0:256, 96:352]


def centre(box: Box) -> tuple[float, float]:
    return (box.left + box.right) / 2, (box.top + box.bottom) / 2


def sane(face: DetectedFace) -> bool:
    """Whether the eyes, seen along the face's own axis, lie above the nose and the nose above the mouth."""
    points = face.landmarks
    down = points[3:].mean(axis=0) - points[:2].mean(axis=0)
    eyes, nose, mouth = points[:2] @ down, points[2] @ down, points[3:] @ down
    return bool(eyes.max() < nose < mouth.min())


def test_landmarks_lie_where_eyes_nose_and_mouth_are(detect: Detect) -> None:
    (face,) = detect(astronaut(), 40)

    np.testing.assert_allclose(face.landmarks, EYES_NOSE_MOUTH, atol=5)
    assert face.box.left < 204 and face.box.right > 246 and face.box.top < 100 and face.box.bottom > 142
    assert face.score > 0.95


def test_a_mirrored_photo_keeps_left_and_right_of_the_image(detect: Detect) -> None:
    (face,) = detect(np.ascontiguousarray(astronaut()[:, ::-1]), 40)

    expected = np.array([512, 0]) + EYES_NOSE_MOUTH[[1, 0, 2, 4, 3]] * [-1, 1]
    np.testing.assert_allclose(face.landmarks, expected, atol=5)


@pytest.mark.parametrize("angle", [-30, -15, 15, 30])
def test_landmarks_turn_with_the_head(detect: Detect, angle: float) -> None:
    matrix = cv2.getRotationMatrix2D((225, 120), angle, 1)
    turned = cv2.warpAffine(astronaut(), matrix, (512, 512)).astype(np.uint8)

    face = detect(turned, 40)[0]

    np.testing.assert_allclose(face.landmarks, EYES_NOSE_MOUTH @ matrix[:, :2].T + matrix[:, 2], atol=6)


def test_an_upside_down_photo_never_swaps_eyes_and_mouth(detect: Detect) -> None:
    for face in detect(np.ascontiguousarray(np.rot90(astronaut(), 2)), 40):
        assert sane(face)
        np.testing.assert_allclose(512 - face.landmarks[:, ::-1][:, ::-1], EYES_NOSE_MOUTH, atol=12)


def test_twenty_faces_on_one_photo_are_all_found_once(detect: Detect) -> None:
    rng = np.random.default_rng(5)
    canvas = np.full((1000, 1600, 3), 128, np.uint8)
    centres = []
    for i in range(20):
        side = (150, 200, 250, 300)[i % 4]
        picture = cv2.resize(face_picture(), (side, side), interpolation=cv2.INTER_AREA)
        picture = np.clip(picture * rng.uniform(0.6, 1.3), 0, 255).astype(np.uint8)
        mirrored = i % 3 == 0
        left, top = 320 * (i % 5) + 10, 250 * (i // 5) if side <= 250 else 250 * (i // 5) - 25
        top = min(max(top, 0), 1000 - side)
        canvas[top : top + side, left : left + side] = picture[:, ::-1] if mirrored else picture
        x, y = (225 - 96) / 256, 120 / 256
        centres.append((left + side * ((1 - x) if mirrored else x), top + side * y))

    faces = detect(canvas, 40)

    assert len(faces) == 20
    for x, y in centres:
        assert sum(abs(centre(face.box)[0] - x) < 25 and abs(centre(face.box)[1] - y) < 25 for face in faces) == 1


@pytest.mark.parametrize(("top", "left"), [(50, 96), (0, 180), (0, 40)])
def test_a_face_cut_by_the_border_does_not_break_anything(detect: Detect, top: int, left: int) -> None:
    for face in detect(np.ascontiguousarray(astronaut()[top : top + 160, left : left + 160]), 40):
        assert np.isfinite(face.landmarks).all()
        assert 0 <= face.score <= 1


@pytest.mark.parametrize("shape", [(1, 1), (12, 12), (11, 300), (300, 11), (20, 20), (39, 41), (13, 2000)])
def test_tiny_and_narrow_images_have_no_face(detect: Detect, shape: tuple[int, ...]) -> None:
    assert detect(np.full((*shape, 3), 90, np.uint8), 40) == []


def test_a_small_face_that_fills_its_image_is_found(detect: Detect) -> None:
    small = cv2.resize(face_picture(), (60, 60), interpolation=cv2.INTER_AREA).astype(np.uint8)

    (face,) = detect(small, 20)

    np.testing.assert_allclose(face.landmarks, (EYES_NOSE_MOUTH - [96, 0]) * 60 / 256, atol=3)


def test_faces_that_share_landmarks_are_one() -> None:
    points = EYES_NOSE_MOUTH + np.array([[[0.0, 0]], [[4, 4]], [[60, 0]]])
    boxes = np.array([[180.0, 60, 270, 175], [186, 90, 270, 190], [240, 60, 330, 175]])

    assert find_distinct_faces(points, boxes, 0.25).tolist() == [0, 2]


def test_crops_past_the_border_are_black_there_and_keep_their_scale() -> None:
    white = np.full((100, 80, 3), 255, np.uint8)

    boxes, crops = ImagePyramid(white).crop_squares(np.array([[-20.0, -20, 20, 20], [300, 300, 340, 340]]), 40)

    np.testing.assert_array_equal(boxes, [[-20, -20, 20, 20]])
    assert crops[0, :20].max() == 0 and crops[0, :, :20].max() == 0
    assert crops[0, 20:, 20:].min() == 255


def test_weights_of_another_network_are_refused() -> None:
    weights = WeightsStore().read_weights(BUILTIN.detector.files["rnet"])

    with pytest.raises(WeightsError, match="cannot be read"):
        build_pnet(weights)
