"""The search finds faces of any size and position, once, in the image's own coordinates."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.faces import astronaut, nobody
from tests.weights import real_weights

from vultus.domain import DetectedFace, Pixels
from vultus.models.detection.oneshot import DetectionParameters, Detections, SingleShotDetector
from vultus.models.detection.retinaface import load_retinaface
from vultus.models.detection.retinaface_graph import build_retinaface
from vultus.models.detection.yunet import load_yunet
from vultus.models.runtime import NetworkSession

# Marked by hand on scikit-image's astronaut: eyes, nose, mouth corners.
EYES_NOSE_MOUTH = np.array([[204, 100], [246, 103], [225, 128], [202, 140], [245, 142]])

IN_SQUARE = np.array([[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.75, 0.75]])


class Squares(SingleShotDetector):
    """Detects bright squares as faces, if they are complete and of a detectable size."""

    passes = 0
    input_px = 0
    uncertain_px = 0

    def compute_detections(self, image: Pixels) -> Detections:
        assert image.shape[0] % 32 == 0 and image.shape[1] % 32 == 0 and max(image.shape) <= 1312
        self.passes += 1
        self.input_px += image.shape[0] * image.shape[1]
        boxes = []
        _, _, stats, _ = cv2.connectedComponentsWithStats((image[..., 0] > 127).astype(np.uint8))
        for left, top, width, height, _ in stats[1:].tolist():
            right, bottom = left + width, top + height
            inside = left > 0 and top > 0 and right < image.shape[1] and bottom < image.shape[0]
            if inside and 8 <= max(width, height) <= 200:
                boxes.append([left, top, right, bottom])
        corners = np.array(boxes, np.float64).reshape(-1, 4)
        points = corners[:, None, :2] + IN_SQUARE * (corners[:, None, 2:] - corners[:, None, :2])
        # As with real networks, very small detections have low confidence.
        scores = np.where(corners[:, 2] - corners[:, 0] < self.uncertain_px, 0.3, 0.9)
        return Detections(corners, points, scores)


def squares() -> Squares:
    session: NetworkSession = None  # type: ignore[assignment]
    parameters = DetectionParameters(
        threshold=0.5, max_overlap=0.4, min_detectable_px=12, max_detectable_px=200, refinement_px=64
    )
    return Squares(session, parameters)


@settings(max_examples=40)
@given(st.integers(100, 2500), st.integers(100, 1500), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_square_of_any_size_and_place_is_found_there(
    width: int, height: int, size: float, across: float, down: float
) -> None:
    # Not at the border, where a large image loses an odd row.
    room = min(width, height) - 8
    side = round(40 * (room / 40) ** size)
    left, top = 4 + round(across * (width - 8 - side)), 4 + round(down * (height - 8 - side))
    image = np.zeros((height, width, 3), np.uint8)
    image[top : top + side, left : left + side] = 255

    (face,) = squares().detect(image, 38)

    found = [face.box.left, face.box.top, face.box.right, face.box.bottom]
    np.testing.assert_allclose(found, [left, top, left + side, top + side], atol=1.5 + side / 30)
    np.testing.assert_allclose(face.landmarks, [left, top] + IN_SQUARE * side, atol=1.5 + side / 30)


@pytest.mark.parametrize("shape", [(300, 300), (1000, 700)])
def test_a_face_that_fills_the_image_is_found(shape: tuple[int, int]) -> None:
    (face,) = squares().detect(np.full((*shape, 3), 255, np.uint8), 40)

    np.testing.assert_allclose([face.box.left, face.box.top], 0, atol=8)
    np.testing.assert_allclose([face.box.right, face.box.bottom], shape[::-1], atol=8)


def test_large_and_small_faces_of_one_photo_are_found_down_to_the_smallest_requested() -> None:
    image = np.zeros((900, 1400, 3), np.uint8)
    for left, top, side in ((100, 100, 700), (1000, 300, 45), (1200, 600, 25)):
        image[top : top + side, left : left + side] = 255

    faces = squares().detect(image, 38)

    np.testing.assert_allclose(sorted(face.box.width for face in faces), [45, 700], rtol=0.05)


def test_full_resolution_is_used_only_where_half_the_pixels_leave_low_confidence() -> None:
    image = np.zeros((900, 1400, 3), np.uint8)
    image[100:400, 100:400] = 255
    sure, unsure = squares(), squares()
    unsure.uncertain_px = 11

    assert len(sure.detect(image, 38)) == 1
    image[300:338, 1000:1038] = 255
    assert len(unsure.detect(image, 38)) == 2
    assert unsure.input_px > 2 * sure.input_px


def test_the_network_input_is_bounded() -> None:
    assert squares().detect(np.zeros((3000, 5000, 3), np.uint8), 5) == []


def test_an_unconfirmed_detection_is_dropped() -> None:
    class Once(Squares):
        def compute_detections(self, image: Pixels) -> Detections:
            found = super().compute_detections(image)
            return found if self.passes == 1 else found.select(np.arange(0))

    image = np.zeros((200, 200, 3), np.uint8)
    image[50:100, 50:100] = 255
    session: NetworkSession = None  # type: ignore[assignment]

    assert Once(session, squares()._parameters).detect(image, 40) == []


def test_agreeing_candidates_are_averaged_and_impossible_ones_dropped() -> None:
    boxes = np.array([[0.0, 0, 100, 100], [10, 0, 110, 100], [200, 0, 300, 100], [50, 50, 40, 40], [0, 0, np.inf, 9]])
    points = boxes[:, None, :2] + np.zeros((1, 5, 2))

    found = squares()._merge_by_voting(Detections(boxes, points, np.array([0.9, 0.6, 0.5, 0.9, 0.9])))

    np.testing.assert_allclose(found.boxes, [[4, 0, 104, 100], [200, 0, 300, 100]])
    np.testing.assert_allclose(found.landmarks[:, 0, 0], [4, 200])
    np.testing.assert_allclose(found.scores, [0.9, 0.5])


Detect = Callable[[Pixels, float], list[DetectedFace]]


@pytest.fixture(scope="module", params=["yunet", "retinaface"])
def detect(request: pytest.FixtureRequest) -> Detect:
    if request.param == "yunet":
        return load_yunet(real_weights("yunet_n_dynamic.onnx")).detect
    return load_retinaface(build_retinaface(real_weights("retinaface_mobilenet0.25_Final.pth"))).detect


def test_landmarks_lie_where_eyes_nose_and_mouth_are(detect: Detect) -> None:
    (face,) = detect(astronaut(), 40)

    np.testing.assert_allclose(face.landmarks, EYES_NOSE_MOUTH, atol=6)
    assert face.box.left < 202 and face.box.right > 246 and face.box.top < 100 and face.box.bottom > 142
    assert face.score > 0.9


def test_a_mirrored_photo_keeps_left_and_right_of_the_image(detect: Detect) -> None:
    (face,) = detect(np.ascontiguousarray(astronaut()[:, ::-1]), 40)

    expected = np.array([512, 0]) + EYES_NOSE_MOUTH[[1, 0, 2, 4, 3]] * [-1, 1]
    np.testing.assert_allclose(face.landmarks, expected, atol=6)


@pytest.mark.parametrize("angle", [-45, -20, 20, 45])
def test_landmarks_turn_with_the_head(detect: Detect, angle: float) -> None:
    matrix = cv2.getRotationMatrix2D((225, 120), angle, 1)
    turned = cv2.warpAffine(astronaut(), matrix, (512, 512)).astype(np.uint8)

    (face,) = detect(turned, 40)

    np.testing.assert_allclose(face.landmarks, EYES_NOSE_MOUTH @ matrix[:, :2].T + matrix[:, 2], atol=9)


@pytest.mark.parametrize("scale", [0.3, 0.6, 3.5])
def test_landmarks_grow_with_the_photo(detect: Detect, scale: float) -> None:
    resized = cv2.resize(astronaut(), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)

    (face,) = detect(resized, 25)

    np.testing.assert_allclose(face.landmarks / scale, EYES_NOSE_MOUTH, atol=6)


@pytest.mark.parametrize("scale", [1, 10])
def test_a_face_cropped_to_the_edges_is_found(detect: Detect, scale: int) -> None:
    cropped = cv2.resize(astronaut()[75:160, 190:260], None, fx=scale, fy=scale).astype(np.uint8)

    (face,) = detect(cropped, 40)

    np.testing.assert_allclose(face.landmarks / scale + [190, 75], EYES_NOSE_MOUTH, atol=8)


def test_a_photo_without_a_face_has_none(detect: Detect) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 400, 3)).astype(np.uint8)

    assert detect(np.asarray(Image.open(io.BytesIO(nobody()))), 20) == []
    assert detect(noise, 20) == []


@pytest.mark.parametrize("shape", [(1, 1), (12, 12), (11, 300), (39, 41), (13, 2000)])
def test_tiny_and_narrow_images_have_no_face(detect: Detect, shape: tuple[int, int]) -> None:
    assert detect(np.full((*shape, 3), 90, np.uint8), 40) == []


def test_forty_faces_of_30_to_100_pixels_are_all_found_once(detect: Detect) -> None:
    chance = np.random.default_rng(5)
    canvas = np.full((1000, 1600, 3), 128, np.uint8)
    expected = []
    for at in range(40):
        side = int(chance.integers(70, 200))
        picture = cv2.resize(astronaut()[0:256, 96:352], (side, side), interpolation=cv2.INTER_AREA)
        picture = np.clip(picture * chance.uniform(0.6, 1.3), 0, 255).astype(np.uint8)
        points = (EYES_NOSE_MOUTH - [96, 0]) * side / 256
        if at % 3 == 0:
            picture, points = picture[:, ::-1], np.array([side, 0]) + points[[1, 0, 2, 4, 3]] * [-1, 1]
        left, top = 200 * (at % 8), 200 * (at // 8)
        canvas[top : top + side, left : left + side] = picture
        expected.append((side, points + np.array([left, top])))

    faces = detect(canvas, 20)

    assert len(faces) == 40
    for side, points in expected:
        nearest = min(np.abs(face.landmarks - points).max() for face in faces)
        assert nearest < max(3, 6 * side / 256 * 1.3)
