"""The second look at what a detector found, with the network that ships with the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from skimage import data
from tests.faces import astronaut, drawn
from tests.weights import real_weights

from vultus.models.catalog.measured import DLIB_CHIPS, MIN_FACE_SCORE, get_quality_rules
from vultus.models.detection.yunet import load_yunet
from vultus.models.imaging.alignment import align_face
from vultus.models.quality.face_classifier import FaceClassifier

if TYPE_CHECKING:
    from vultus.domain import FloatArray, Pixels
    from vultus.models.pipeline import FacePipeline

# Marked by hand: eyes, nose and corners of the mouth.
ASTRONAUT = np.array([[204, 100], [246, 103], [225, 128], [202, 140], [245, 142]], np.float32)
CAT = np.array([[154, 109], [234, 109], [188, 165], [165, 190], [212, 190]], np.float32)


def cat() -> Pixels:
    return np.asarray(data.chelsea())  # type: ignore[no-untyped-call]


def score_at(pipeline: FacePipeline, pixels: Pixels, points: FloatArray) -> float:
    (score,) = pipeline._face_classifier.score_chips([align_face(pixels, points, pipeline._frontal)], [points])
    return score


def test_people_are_faces(pipeline: FacePipeline) -> None:
    assert score_at(pipeline, astronaut(), ASTRONAUT) > MIN_FACE_SCORE
    (face,) = pipeline._finder.detector.detect(drawn(1), 40)
    assert score_at(pipeline, drawn(1), face.landmarks) > MIN_FACE_SCORE


@pytest.mark.parametrize("photo", [astronaut(), drawn(1), drawn(4)], ids=["astronaut", "drawn", "drawn too"])
def test_faces_of_other_detectors_pass_the_rule_for_enrolment(pipeline: FacePipeline, photo: Pixels) -> None:
    rule, _ = get_quality_rules("yunet")
    template = DLIB_CHIPS["yunet"]
    classifier = FaceClassifier(pipeline._face_classifier._session, template)

    (face,) = load_yunet(real_weights("face_detection_yunet_2023mar.onnx")).detect(photo, 40)
    (score,) = classifier.score_chips([align_face(photo, face.landmarks, template)], [face.landmarks])

    assert face.score >= rule.min_score
    assert score >= rule.min_face_score


def test_a_cat_and_noise_are_none(pipeline: FacePipeline) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3)).astype(np.uint8)

    assert score_at(pipeline, cat(), CAT) < MIN_FACE_SCORE
    assert score_at(pipeline, noise, ASTRONAUT) < MIN_FACE_SCORE


def test_a_face_with_landmarks_in_wrong_places_is_none(pipeline: FacePipeline) -> None:
    upside_down = np.ascontiguousarray(astronaut()[::-1, ::-1])
    points = 512 - ASTRONAUT[[1, 0, 2, 4, 3]]  # the eye on the image's left is the person's other one

    assert score_at(pipeline, upside_down, points) < 0.5
    assert score_at(pipeline, astronaut(), ASTRONAUT[[3, 4, 2, 0, 1]]) == 0


def test_faces_are_scored_in_their_order(pipeline: FacePipeline) -> None:
    small = np.asarray(cv2.resize(astronaut(), (256, 256), interpolation=cv2.INTER_AREA), np.uint8)
    points = ASTRONAUT * np.float32(0.5)
    chips = [
        align_face(cat(), CAT, pipeline._frontal),
        align_face(small, points, pipeline._frontal),
    ]

    scores = pipeline._face_classifier.score_chips(chips, [CAT, points])

    assert scores[0] < scores[1]
    assert pipeline._face_classifier.score_chips([], []) == []
