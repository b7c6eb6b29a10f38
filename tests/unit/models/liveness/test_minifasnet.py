"""Inputs of the networks, and the decision from their outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.faces import astronaut, drawn, encoded
from tests.recapture import on_paper, on_screen
from tests.weights import real_weights

from vultus.domain import DETECTION, Box, DetectedFace, LivenessReason, Pixels
from vultus.errors import WeightsError
from vultus.models.liveness import load_minifasnet
from vultus.models.liveness.ensemble import LivenessEnsemble, LivenessRule
from vultus.models.liveness.minifasnet import CropNetwork, MiniFasnet, compute_face_square, crop_square
from vultus.models.liveness.minifasnet_graph import build_minifasnet
from vultus.models.pipeline import FacePipeline

coordinates = st.floats(-300, 600)


class Fixed:
    """A network with a fixed output, which records its inputs."""

    def __init__(self, *shares: float) -> None:
        self.logits = np.log(np.array([shares], np.float32))
        self.inputs: list[Any] = []

    def run(self, values: Any) -> tuple[Any, ...]:
        self.inputs.append(values)
        return (self.logits,)


def face(left: float, top: float, width: float, height: float) -> DetectedFace:
    return DetectedFace(Box(left, top, left + width, top + height), np.zeros((5, 2), np.float32), 0.9)


def build_ensemble(*networks: Fixed) -> LivenessEnsemble:
    scaled = [CropNetwork(scale, network) for scale, network in zip((2, 4), networks, strict=False)]
    return LivenessEnsemble([MiniFasnet(scaled)], LivenessRule())


def ramp(width: int, height: int) -> Pixels:
    """Red rises with x, green with y."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0], pixels[:, :, 1] = np.arange(width), np.arange(height)[:, None]
    return pixels


@pytest.mark.parametrize(
    ("shares", "reason"),
    [
        (((0.1, 0.8, 0.1), (0.5, 0.3, 0.2)), LivenessReason.LIVE),
        (((0.1, 0.8, 0.1), (0.8, 0.1, 0.1)), LivenessReason.SPOOF),
        (((0.0, 0.4, 0.6), (0.3, 0.4, 0.3)), LivenessReason.SPOOF),
    ],
)
def test_the_mean_of_both_networks_decides(shares: tuple[tuple[float, ...], ...], reason: LivenessReason) -> None:
    with np.errstate(divide="ignore"):
        liveness = build_ensemble(*(Fixed(*one) for one in shares)).assess_liveness(
            ramp(250, 250), face(75, 75, 100, 100)
        )

    assert liveness.score == pytest.approx(np.mean([one[1] for one in shares]), abs=1e-6)
    assert liveness.reason is reason
    assert liveness.live is (reason is LivenessReason.LIVE)
    assert liveness.is_conclusive


def test_a_score_at_the_threshold_is_live() -> None:
    half = build_ensemble(Fixed(1, 2, 1))

    assert half.assess_liveness(ramp(250, 250), face(75, 75, 100, 100)).live


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((100, 100, 49, 49), LivenessReason.FACE_TOO_SMALL),
        ((100, 100, 40, 70), LivenessReason.LIVE),
        ((20, 20, 170, 170), LivenessReason.CROP_PAST_PHOTO),
        ((20, 20, 160, 160), LivenessReason.LIVE),
    ],
)
def test_a_face_that_cannot_be_assessed_never_passes(box: tuple[float, ...], reason: LivenessReason) -> None:
    sure = build_ensemble(Fixed(0.01, 0.98, 0.01))

    liveness = sure.assess_liveness(ramp(250, 250), face(*box))

    assert liveness.score > 0.9
    assert liveness.reason is reason
    assert liveness.live is liveness.is_conclusive is (reason is LivenessReason.LIVE)


def test_network_inputs_are_blue_green_red_from_0_to_255_of_their_own_square() -> None:
    near, far = Fixed(1, 1, 1), Fixed(1, 1, 1)

    build_ensemble(near, far).assess_liveness(ramp(250, 250), face(100, 93, 50, 50))

    (close,), (wide,) = near.inputs, far.inputs
    assert close.shape == wide.shape == (1, 3, 80, 80)
    assert close.dtype == np.float32
    blue, green, red = close[0]
    assert not blue.any()
    # A face of 50 pixels around (125, 118), its square 0.07 of its height lower: twice its side from (75, 71.5) on.
    assert (red.min(), red.max()) == pytest.approx((75, 175), abs=1)
    assert (green.min(), green.max()) == pytest.approx((71.5, 171.5), abs=1)
    assert (wide[0, 2].min(), wide[0, 2].max()) == pytest.approx((25, 225), abs=2)


def test_the_square_has_the_area_of_the_box() -> None:
    middle, side = compute_face_square(Box(10, 20, 58, 95))

    assert middle == pytest.approx((34, 57.5 + 0.07 * 75))
    assert side == 60


@given(coordinates, coordinates, st.floats(0, 2000), st.integers(20, 250), st.integers(20, 250))
def test_a_square_stays_inside_the_photo_and_as_near_as_it_can(
    x: float, y: float, side: float, width: int, height: int
) -> None:
    crop = crop_square(ramp(width, height), (x, y), side).astype(int)

    assert crop.shape == (80, 80, 3)
    used = min(side, width - 1, height - 1)
    for colour, middle, length in ((0, x, width), (1, y, height)):
        low, high = crop[:, :, colour].min(), crop[:, :, colour].max()
        expected = min(max(middle - used / 2, 0), length - 1 - used)
        assert (low, high) == pytest.approx((expected, expected + used), abs=3 + used / 80)


@pytest.fixture(scope="module")
def minifasnet() -> MiniFasnet:
    names = ("2.7_80x80_MiniFASNetV2.pth", "4_0_0_80x80_MiniFASNetV1SE.pth")
    return load_minifasnet(*(build_minifasnet(real_weights(name)) for name in names))


@pytest.mark.parametrize("photo", [astronaut(), drawn(5)], ids=["astronaut", "drawn"])
def test_faces_on_screens_and_paper_score_lower_than_the_photo(
    photo: Pixels, minifasnet: MiniFasnet, pipeline: FacePipeline
) -> None:
    def score(pixels: Pixels) -> float:
        (found,) = pipeline.analyze_photo(encoded(pixels, "PNG"), DETECTION).faces
        return minifasnet.compute_score(pixels, found.face)

    assert score(photo) > 0.5
    assert max(score(show(photo, seed)) for show, seed in ((on_screen, 1), (on_paper, 2))) < 0.3


def test_weights_of_something_else_are_refused() -> None:
    with pytest.raises(WeightsError, match="not a readable PyTorch state dict"):
        build_minifasnet(b"nothing")
