"""Input of the network, and its score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.faces import astronaut, encoded
from tests.recapture import on_screen
from tests.weights import real_weights

from vultus.domain import DETECTION, Box, DetectedFace, Pixels
from vultus.models.liveness.facenox import Facenox, crop_with_reflection
from vultus.models.pipeline import FacePipeline
from vultus.models.runtime import OnnxSession
from vultus.models.weights.graph_preparation import prepare_graph

coordinates = st.floats(-300, 600)


class Fixed:
    """A network with fixed logits, which records its inputs."""

    def __init__(self, *logits: float) -> None:
        self.logits = np.array([logits], np.float32)
        self.inputs: list[Any] = []

    def run(self, values: Any) -> tuple[Any, ...]:
        self.inputs.append(values)
        return (self.logits,)


def face(left: float, top: float, width: float, height: float) -> DetectedFace:
    return DetectedFace(Box(left, top, left + width, top + height), np.zeros((5, 2), np.float32), 0.9)


def ramp(width: int, height: int) -> Pixels:
    """Red rises with x, green with y."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0], pixels[:, :, 1] = np.arange(width), np.arange(height)[:, None]
    return pixels


def test_the_first_class_is_the_live_one() -> None:
    pixels, found = ramp(250, 250), face(75, 75, 100, 100)

    assert Facenox(Fixed(np.log(0.8), np.log(0.2))).compute_score(pixels, found) == pytest.approx(0.8)
    assert Facenox(Fixed(np.log(0.1), np.log(0.9))).compute_score(pixels, found) == pytest.approx(0.1)


def test_the_input_is_red_green_blue_from_0_to_1_of_the_square_around_the_face() -> None:
    network = Fixed(0, 0)

    Facenox(network).compute_score(ramp(250, 250), face(110, 75, 60, 100))

    (crop,) = network.inputs
    assert (crop.shape, crop.dtype) == ((1, 3, 128, 128), np.float32)
    red, green, blue = crop[0] * 255
    assert not blue.any()
    assert (red.min(), red.max()) == pytest.approx((65, 215), abs=1)
    assert (green.min(), green.max()) == pytest.approx((50, 200), abs=1)


def test_a_square_past_an_edge_is_filled_with_the_mirrored_photo() -> None:
    crop = crop_with_reflection(ramp(250, 250), Box(0, 0, 128 / 1.5, 128 / 1.5))

    red = crop[64, :, 0].astype(int)
    edge = int(red.argmin())
    assert edge > 10
    assert red[edge - 10 : edge].tolist() == red[edge + 10 : edge : -1].tolist()


@given(coordinates, coordinates, st.floats(0, 900), st.floats(0, 900), st.integers(20, 250), st.integers(20, 250))
def test_every_box_gives_a_crop(x: float, y: float, wide: float, high: float, width: int, height: int) -> None:
    crop = crop_with_reflection(ramp(width, height), Box(x, y, x + wide, y + high))

    assert crop.shape == (128, 128, 3)
    assert crop.dtype == np.uint8


def test_a_face_on_a_screen_scores_lower_than_the_photo(pipeline: FacePipeline) -> None:
    network = Facenox(OnnxSession(prepare_graph(real_weights("facenox_minifasnet_v2se_128.onnx"))))

    def score(pixels: Pixels) -> float:
        (found,) = pipeline.analyze_photo(encoded(pixels, "PNG"), DETECTION).faces
        return network.compute_score(pixels, found.face)

    assert score(astronaut()) > 0.9
    assert max(score(on_screen(astronaut(), seed)) for seed in (1, 2)) < 0.5
