"""The second look at what a detector found, with the network that ships with the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from skimage import data
from tests.faces import astronaut, drawn

from vultus.models.imaging.alignment import align_face

if TYPE_CHECKING:
    from vultus.domain import FloatArray, Pixels
    from vultus.models.pipeline import FacePipeline

REQUIRED = 0.8

# Marked by hand: eyes, nose and corners of the mouth.
ASTRONAUT = np.array([[204, 100], [246, 103], [225, 128], [202, 140], [245, 142]], np.float32)
CAT = np.array([[154, 109], [234, 109], [188, 165], [165, 190], [212, 190]], np.float32)


def cat() -> Pixels:
    return np.asarray(data.chelsea())  # type: ignore[no-untyped-call]


def score_at(pipeline: FacePipeline, pixels: Pixels, points: FloatArray) -> float:
    (score,) = pipeline._face_classifier.score_chips([align_face(pixels, points, pipeline._frontal)], [points])
    return score


def test_people_are_faces(pipeline: FacePipeline) -> None:
    assert score_at(pipeline, astronaut(), ASTRONAUT) > REQUIRED
    (face,) = pipeline._finder.detector.detect(drawn(1), 40)
    assert score_at(pipeline, drawn(1), face.landmarks) > REQUIRED


def test_a_cat_and_noise_are_none(pipeline: FacePipeline) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3)).astype(np.uint8)

    assert score_at(pipeline, cat(), CAT) < REQUIRED
    assert score_at(pipeline, noise, ASTRONAUT) < REQUIRED


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
