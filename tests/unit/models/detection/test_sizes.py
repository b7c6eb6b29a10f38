"""Faces of all sizes in one photo, and faces that fill it, with every detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from tests.faces import astronaut
from tests.weights import real_weights

from vultus.domain import DetectedFace, Pixels
from vultus.models.detection.retinaface import load_retinaface
from vultus.models.detection.retinaface_graph import build_retinaface
from vultus.models.detection.yunet import load_yunet

if TYPE_CHECKING:
    from vultus.models.pipeline import FacePipeline

Detect = Callable[[Pixels, float], list[DetectedFace]]

# Marked by hand on scikit-image's astronaut: eyes, nose, mouth corners; her face is 88 pixels wide.
EYES_NOSE_MOUTH = np.array([[204, 100], [246, 103], [225, 128], [202, 140], [245, 142]])
WIDTH = 88


@pytest.fixture(scope="module", params=["mtcnn", "yunet", "retinaface"])
def detect(request: pytest.FixtureRequest, pipeline: FacePipeline) -> Detect:
    if request.param == "mtcnn":
        return pipeline._finder.detector.detect
    if request.param == "yunet":
        return load_yunet(real_weights("yunet_n_dynamic.onnx")).detect
    return load_retinaface(build_retinaface(real_weights("retinaface_mobilenet0.25_Final.pth"))).detect


def clutter(width: int, height: int) -> Pixels:
    """Return blurred patches of all colours with grain, like the background of a photo."""
    chance = np.random.default_rng(1)
    blotches = chance.integers(60, 200, (height // 100, width // 100, 3)).astype(np.uint8)
    smooth = cv2.resize(blotches, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + chance.normal(0, 6, (height, width, 1)), 0, 255).astype(np.uint8)


def scene(widths: list[int]) -> tuple[Pixels, list[np.ndarray]]:
    """Return 1600 × 1200 pixels with the astronaut's face in these widths, and where eyes, nose and mouths are."""
    canvas, places = clutter(1600, 1200), []
    x = y = row = 10
    for width in widths:
        factor = width / WIDTH
        picture = cv2.resize(astronaut()[20:220, 110:350], None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        if x + picture.shape[1] > 1600:
            x, y, row = 10, y + row, 0
        canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
        places.append((EYES_NOSE_MOUTH - [110, 20]) * factor + [x, y])
        x, row = x + picture.shape[1] + 6, max(row, picture.shape[0] + 6)
    return canvas, places


@pytest.mark.parametrize(
    "widths",
    [[400, 40], [400, 48], [400, 180, 100, 60], [150, 100, 70, 56, 48, 44, 40], [40], [400, 100, 36, 32]],
    ids=str,
)
def test_large_and_small_faces_of_one_photo_are_all_found_once(detect: Detect, widths: list[int]) -> None:
    photo, places = scene(widths)

    faces = detect(photo, 32 if min(widths) < 40 else 40)

    assert len(faces) == len(widths)
    for width, place in zip(widths, places, strict=True):
        assert min(np.abs(face.landmarks - place).max() for face in faces) < 2 + 0.07 * width


def test_the_built_in_detector_finds_smaller_faces_too_beside_a_large_one(pipeline: FacePipeline) -> None:
    photo, _ = scene([400, 36, 32, 28, 24])

    assert len(pipeline._finder.detector.detect(photo, 40)) == 5


@pytest.mark.parametrize("scale", [1, 2, 6, 25])
@pytest.mark.parametrize("frame", [(176, 54, 272, 174), (190, 75, 260, 160)], ids=["nine-tenths", "cut off"])
def test_a_close_up_that_fills_the_frame_is_found(detect: Detect, frame: tuple[int, ...], scale: int) -> None:
    left, top, right, bottom = frame
    photo = cv2.resize(astronaut()[top:bottom, left:right], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)

    (face,) = detect(photo.astype(np.uint8), 40)

    np.testing.assert_allclose(face.landmarks / scale + [left, top], EYES_NOSE_MOUTH, atol=7)
