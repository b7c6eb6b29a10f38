"""The bounds hold: neither geometry nor chance lets more faces slip than stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vultus.index.bounds import least, radii, shares
from vultus.index.codes import Codes
from vultus.index.coding import Coder, planes, reach_steps, together

FIRST = [0.1362448, -0.078168772, 0.17280737, -0.08880531]
"""Of the planes of 128 dimensions and 1,024 bits, computed once."""


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


@given(
    seed=st.integers(0, 2**32 - 1),
    dimension=st.integers(2, 12),
    cone=st.floats(0, 0.95),
    spread=st.floats(0.01, 2),
    looser=st.floats(0, 0.3),
)
@settings(max_examples=300)
def test_no_face_at_the_cosine_has_a_wider_angle_than_expected(
    seed: int, dimension: int, cone: float, spread: float, looser: float
) -> None:
    """Whatever the centre: the angle from it between a probe and a face is within the share given for its reach."""
    rng = np.random.default_rng(seed)
    centre = cone * unit(rng.standard_normal(dimension))
    probe = unit(centre + spread * rng.standard_normal(dimension))
    faces = unit(probe + looser * rng.standard_normal((200, dimension)))
    a, b = probe - centre, faces - centre
    angles = np.arccos(np.clip(unit(b) @ unit(a), -1, 1))
    reach = np.linalg.norm(b, axis=1)
    floor = float((faces @ probe).min())
    allowed = shares([floor], float(np.linalg.norm(a)))[0][reach_steps(reach)]
    assert (angles / np.pi <= allowed + 1e-6).all()


def test_a_face_further_away_than_the_cosine_allows_is_not_expected() -> None:
    """A face whose reach differs from the probe's by more than the two may be apart has no share at all."""
    (expected,) = shares([0.99], 0.4)  # 0.141 apart, at most
    reach = np.arange(256) * 2 / 256
    assert (expected[(reach > 0.4 + 0.16) | (reach < 0.4 - 0.17)] == 0).all()
    assert expected[reach_steps(np.array([0.4]))[0]] > 0


@pytest.mark.parametrize(("dimension", "bits"), [(64, 1024), (128, 256), (300, 512), (512, 256)])
@pytest.mark.parametrize("angle", [0.3, 0.8, 1.4])
def test_codes_differ_in_more_bits_as_often_as_the_risk(dimension: int, bits: int, angle: float) -> None:
    """Pairs at the very angle: the share of them beyond the radius is the risk, but for what counting leaves."""
    rng = np.random.default_rng(7)
    coder = Coder(np.zeros(dimension, np.float32), bits)
    a = unit(rng.standard_normal((20_000, dimension)))
    b = unit(rng.standard_normal(a.shape))
    b = unit(b - (a * b).sum(1, keepdims=True) * a)
    codes = coder.encode(a), coder.encode(np.cos(angle) * a + np.sin(angle) * b)
    differing = np.bitwise_count(codes[0][:, :-2] ^ codes[1][:, :-2]).sum(axis=1)
    (radius,) = radii(np.array([angle / np.pi]), bits, together(dimension, bits), 1e-2)
    assert 0.005 < float((differing >= radius).mean()) < 0.0115


@pytest.mark.parametrize("dimension", [32, 128, 300, 1500])
def test_cosines_are_estimated_lower_no_more_often_than_the_risk(dimension: int) -> None:
    """Pairs at the very angle: estimates are right in the mean, vary as stated, and fall below the bound as stated."""
    rng = np.random.default_rng(8)
    coder = Coder(np.zeros(dimension, np.float32), 1024)
    for angle in (0.4, 0.9, 1.4):
        off, lost = [], []
        for probe in unit(rng.standard_normal((100, dimension))).astype(np.float32):
            around = rng.standard_normal((200, dimension))
            around = unit(around - (around @ probe)[:, None] * probe)
            held = Codes(coder.bits, len(around))
            held.append(np.arange(len(around)), coder.encode(np.cos(angle) * probe + np.sin(angle) * around))
            fine = coder.probe(probe)
            estimates = held.cosines(np.arange(len(around)), fine)
            (lowest,) = least(np.array([angle / np.pi]), coder.deviation, fine.rounding, 1e-2)
            off.append((estimates - np.cos(angle)) / np.hypot(coder.deviation * np.sin(angle), fine.rounding))
            lost.append(estimates < lowest)
        assert abs(np.mean(off)) < 0.15
        assert 0.8 < np.std(off) < 1.05
        assert np.mean(lost) < 0.015


@pytest.mark.parametrize(("dimension", "bits"), [(128, 1024), (512, 1024), (300, 1024), (1500, 1024)])
def test_planes_are_at_right_angles_as_many_as_there_can_be(dimension: int, bits: int) -> None:
    """Every block of them, and the rest that fills no block."""
    for start in range(0, bits, dimension):
        block = planes(dimension, bits)[:, start : start + dimension]
        np.testing.assert_allclose(block.T @ block, np.eye(block.shape[1]), atol=1e-5)


def test_planes_are_the_same_for_ever() -> None:
    """Codes are stored: their planes must never change."""
    normals = planes(128, 1024)
    assert normals.shape == (128, 1024)
    np.testing.assert_allclose(normals[0, :4], FIRST, rtol=1e-6)
