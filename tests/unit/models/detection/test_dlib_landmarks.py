"""The five points are those dlib finds, without dlib."""

from __future__ import annotations

from importlib.metadata import distribution
from typing import TYPE_CHECKING, cast

import cv2
import dlib
import numpy as np
import pytest
from tests.faces import astronaut, drawn

from vultus.errors import WeightsError
from vultus.models.catalog.embedders import DLIB_RESNET
from vultus.models.detection.dlib_landmarks import DlibLandmarkPredictor
from vultus.models.weights.store import WeightsStore

if TYPE_CHECKING:
    from vultus.domain import Pixels
    from vultus.models.catalog.entries import PackagedFile

FILE = cast("PackagedFile", DLIB_RESNET.files["landmarks"])
FACE = astronaut()[55:165, 170:280]
SQUARE = (10, 20, 120)


@pytest.fixture(scope="module")
def weights() -> bytes:
    return WeightsStore().read_weights(FILE)


@pytest.fixture(scope="module")
def landmarks(weights: bytes) -> DlibLandmarkPredictor:
    return DlibLandmarkPredictor(weights, SQUARE)


def crops() -> list[Pixels]:
    """Return faces, darker, mirrored, turned and upside-down ones, and a drawing.

    On noise, rounding to a neighbouring pixel changes the path through a tree.
    """
    face = cv2.resize(FACE, (150, 150)).astype(np.uint8)
    drawing = drawn(3, side=150)
    return [face, face // 2, face[:, ::-1].copy(), np.rot90(face).copy(), face[::-1].copy(), drawing]


def test_points_agree_with_dlib(landmarks: DlibLandmarkPredictor) -> None:
    original = dlib.shape_predictor(str(distribution(FILE.package).locate_file(FILE.path)))
    left, top, side = SQUARE
    square = dlib.rectangle(left, top, left + side - 1, top + side - 1)

    theirs = [[(point.x + 0.5, point.y + 0.5) for point in original(chip, square).parts()] for chip in crops()]

    # dlib rounds to whole pixels.
    np.testing.assert_allclose(landmarks.find_landmarks(np.stack(crops())), theirs, atol=0.6)


def test_a_crop_has_the_same_points_alone_and_among_others(landmarks: DlibLandmarkPredictor) -> None:
    together = np.stack(crops())

    alone = np.concatenate([landmarks.find_landmarks(chip[None]) for chip in together])

    np.testing.assert_array_equal(landmarks.find_landmarks(together), alone)


def test_points_outside_the_crop_are_bearable(weights: bytes) -> None:
    found = DlibLandmarkPredictor(weights, (-500, 700, 90)).find_landmarks(np.zeros((1, 150, 150, 3), np.uint8))

    assert np.isfinite(found).all()


@pytest.mark.parametrize("end", [0, 1, 100, 1000, 1_000_000, -1, -2])
def test_a_file_cut_short_is_refused(weights: bytes, end: int) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        DlibLandmarkPredictor(weights[:end], SQUARE)


def test_another_file_is_refused(weights: bytes) -> None:
    network = WeightsStore().read_weights(DLIB_RESNET.files["weights"])
    for other in (network[:100_000], weights + b"\x01\x00", bytes(5000), b"\xff" * 5000):
        with pytest.raises(WeightsError, match="cannot be read"):
            DlibLandmarkPredictor(other, SQUARE)
