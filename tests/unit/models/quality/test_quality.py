"""Quality figures follow size, blur, light and pose."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from tests.faces import astronaut

from vultus.domain import Box, DetectedFace, FloatArray, Pixels
from vultus.models.catalog.measured import DLIB_CHIPS
from vultus.models.imaging.alignment import align_face
from vultus.models.quality import NOSE_HEIGHT, estimate_pose_deg, measure_quality

TEMPLATE = DLIB_CHIPS["mtcnn"].array
LANDMARKS = np.array([[204, 100], [246, 103], [225, 128], [202, 140], [245, 142]], np.float32)
FACE = DetectedFace(Box(180, 60, 267, 174), LANDMARKS, 0.99)


def chip() -> Pixels:
    return align_face(astronaut(), LANDMARKS, DLIB_CHIPS["mtcnn"])


def blurred(sigma: float) -> Pixels:
    return cv2.GaussianBlur(chip(), (0, 0), sigma).astype(np.uint8)


def turned(yaw_deg: float = 0, pitch_deg: float = 0, roll_deg: float = 0) -> FloatArray:
    """Landmarks of a frontal face turned in space and seen from far away."""
    depth = np.array([0, 0, NOSE_HEIGHT * (TEMPLATE[1, 0] - TEMPLATE[0, 0]), 0, 0])
    middle = TEMPLATE[[0, 1, 3, 4]].mean(axis=0)
    x, y = (TEMPLATE - middle).T
    yaw, pitch, roll = (math.radians(angle) for angle in (yaw_deg, pitch_deg, roll_deg))
    x, depth = x * math.cos(yaw) + depth * math.sin(yaw), depth * math.cos(yaw) - x * math.sin(yaw)
    y = y * math.cos(pitch) + depth * math.sin(pitch)
    return np.stack([x * math.cos(roll) - y * math.sin(roll), x * math.sin(roll) + y * math.cos(roll)], axis=1).astype(
        np.float32
    )


def test_blur_lowers_sharpness_at_every_step() -> None:
    sharpness = [
        measure_quality(FACE, blurred(sigma) if sigma else chip(), TEMPLATE).sharpness for sigma in (0, 1, 2, 4)
    ]

    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[0] > 20 * sharpness[-1]


def test_brightness_is_the_mean_grey_of_the_face() -> None:
    grey = np.full((150, 150, 3), 51, np.uint8)

    assert measure_quality(FACE, grey, TEMPLATE).brightness == pytest.approx(0.2)
    assert measure_quality(FACE, grey, TEMPLATE).sharpness == 0


def test_size_is_the_shorter_side_of_the_box() -> None:
    assert measure_quality(FACE, chip(), TEMPLATE).size_px == 87


@pytest.mark.parametrize("roll", [-90, -40, 0, 40, 170])
@pytest.mark.parametrize("yaw", [-60, -30, 0, 30, 60])
def test_yaw_is_recovered_at_any_roll(yaw: float, roll: float) -> None:
    measured, _ = estimate_pose_deg(turned(yaw, 0, roll), TEMPLATE)

    assert measured == pytest.approx(yaw, abs=3)


@pytest.mark.parametrize("pitch", [-40, -20, 0, 20, 40])
def test_pitch_is_recovered(pitch: float) -> None:
    _, measured = estimate_pose_deg(turned(0, pitch), TEMPLATE)

    assert measured == pytest.approx(pitch, abs=6)


def test_a_frontal_portrait_is_frontal() -> None:
    quality = measure_quality(FACE, chip(), TEMPLATE)

    assert abs(quality.yaw_deg) < 12
    assert abs(quality.roll_deg) < 8


def test_landmarks_in_one_point_give_finite_figures() -> None:
    yaw, pitch = estimate_pose_deg(np.full((5, 2), 3, np.float32), TEMPLATE)

    assert -90 <= yaw <= 90 and -90 <= pitch <= 90
