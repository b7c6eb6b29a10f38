"""The five points are those dlib finds, without dlib."""

from __future__ import annotations

from importlib.metadata import distribution
from typing import TYPE_CHECKING

import cv2
import dlib
import numpy as np
import pytest
from tests.faces import astronaut, drawn

from vultus.errors import WeightsError
from vultus.models.catalog import BUILTIN
from vultus.models.detection.dlib_landmarks import DlibLandmarks
from vultus.models.store import read_weights

if TYPE_CHECKING:
    from vultus.domain import Pixels

FILE = BUILTIN.landmarks.file
FACE = astronaut()[55:165, 170:280]
SQUARE = (10, 20, 120)


@pytest.fixture(scope="module")
def weights() -> bytes:
    return read_weights(FILE)


@pytest.fixture(scope="module")
def landmarks(weights: bytes) -> DlibLandmarks:
    return DlibLandmarks(weights, SQUARE)


def crops() -> list[Pixels]:
    """Return faces, darker, mirrored, turned and upside-down ones, and a drawing."""
    face = cv2.resize(FACE, (150, 150)).astype(np.uint8)
    return [face, face // 2, face[:, ::-1].copy(), np.rot90(face).copy(), face[::-1].copy(), drawn(3, side=150)]


def test_points_agree_with_dlib(landmarks: DlibLandmarks) -> None:
    original = dlib.shape_predictor(str(distribution(FILE.package).locate_file(FILE.path)))
    left, top, side = SQUARE
    square = dlib.rectangle(left, top, left + side - 1, top + side - 1)

    for chip in crops():
        theirs = [(point.x + 0.5, point.y + 0.5) for point in original(chip, square).parts()]
        # dlib rounds to whole pixels.
        np.testing.assert_allclose(landmarks.find(chip), theirs, atol=0.6)


def test_points_outside_the_crop_are_bearable(weights: bytes) -> None:
    found = DlibLandmarks(weights, (-500, 700, 90)).find(np.zeros((150, 150, 3), np.uint8))

    assert np.isfinite(found).all()


@pytest.mark.parametrize("end", [0, 1, 100, 1000, 1_000_000, -1, -2])
def test_a_file_cut_short_is_refused(weights: bytes, end: int) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        DlibLandmarks(weights[:end], SQUARE)


def test_another_file_is_refused(weights: bytes) -> None:
    for other in (read_weights(BUILTIN.embedder.file)[:100_000], weights + b"\x01\x00", bytes(5000), b"\xff" * 5000):
        with pytest.raises(WeightsError, match="cannot be read"):
            DlibLandmarks(other, SQUARE)
