"""The bounds hold: neither geometry nor chance misses more faces than stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vultus.index import bounds
from vultus.index.bounds import compute_expected_distances, compute_hamming_radii, compute_min_cosines
from vultus.index.codes import CodeStore
from vultus.index.coding import Quantizer, build_hyperplanes, compute_orthogonality, compute_residual_norm_steps

FIRST = [0.1362448, -0.078168772, 0.17280737, -0.08880531]
"""First components of the hyperplanes of 128 dimensions and 1,024 bits, computed once."""


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
    """For any centre, the angle at it between probe and face is within the bound for the face's residual norm."""
    rng = np.random.default_rng(seed)
    centre = cone * unit(rng.standard_normal(dimension))
    probe = unit(centre + spread * rng.standard_normal(dimension))
    faces = unit(probe + looser * rng.standard_normal((200, dimension)))
    a, b = probe - centre, faces - centre
    angles = np.arccos(np.clip(unit(b) @ unit(a), -1, 1))
    residual_norms = np.linalg.norm(b, axis=1)
    floor = float((faces @ probe).min())
    allowed = compute_expected_distances([floor], float(np.linalg.norm(a)))[0][
        compute_residual_norm_steps(residual_norms)
    ]
    assert (angles / np.pi <= allowed + 1e-6).all()


def test_a_face_further_away_than_the_cosine_allows_is_not_expected() -> None:
    """A face whose residual norm differs from the probe's by more than their largest distance is excluded."""
    (expected,) = compute_expected_distances([0.99], 0.4)  # 0.141 apart, at most
    residual_norms = np.arange(256) * 2 / 256
    assert (expected[(residual_norms > 0.4 + 0.16) | (residual_norms < 0.4 - 0.17)] == 0).all()
    assert expected[compute_residual_norm_steps(np.array([0.4]))[0]] > 0


@pytest.mark.parametrize(("dimension", "bits"), [(64, 1024), (128, 256), (300, 512), (512, 256)])
@pytest.mark.parametrize("angle", [0.3, 0.8, 1.4])
def test_hamming_distances_exceed_the_radius_as_often_as_the_risk(dimension: int, bits: int, angle: float) -> None:
    """The share of pairs at the given angle beyond the radius is the risk, up to the discreteness of the distance."""
    rng = np.random.default_rng(7)
    quantizer = Quantizer(np.zeros(dimension, np.float32), bits)
    a = unit(rng.standard_normal((20_000, dimension)))
    b = unit(rng.standard_normal(a.shape))
    b = unit(b - (a * b).sum(1, keepdims=True) * a)
    codes = quantizer.encode_vectors(a), quantizer.encode_vectors(np.cos(angle) * a + np.sin(angle) * b)
    differing = np.bitwise_count(codes[0][:, :-2] ^ codes[1][:, :-2]).sum(axis=1)
    (radius,) = compute_hamming_radii(np.array([angle / np.pi]), bits, compute_orthogonality(dimension, bits), 1e-2)
    assert 0.005 < float((differing >= radius).mean()) < 0.0115


@pytest.mark.parametrize("dimension", [32, 128, 300, 1500])
def test_cosines_are_estimated_lower_no_more_often_than_the_risk(dimension: int) -> None:
    """For pairs at the given angle: estimates are unbiased, vary as stated, and fall below the bound as stated."""
    rng = np.random.default_rng(8)
    quantizer = Quantizer(np.zeros(dimension, np.float32), 1024)
    for angle in (0.4, 0.9, 1.4):
        off, below_bound = [], []
        for probe in unit(rng.standard_normal((100, dimension))).astype(np.float32):
            around = rng.standard_normal((200, dimension))
            around = unit(around - (around @ probe)[:, None] * probe)
            held = CodeStore(quantizer.bits, len(around))
            held.add_rows(
                np.arange(len(around)), quantizer.encode_vectors(np.cos(angle) * probe + np.sin(angle) * around)
            )
            fine = quantizer.encode_probe(probe)
            estimates = held.estimate_cosines(np.arange(len(around)), fine)
            (lowest,) = compute_min_cosines(
                np.array([angle / np.pi]), quantizer.cosine_deviation, fine.rounding_deviation, 1e-2
            )
            off.append(
                (estimates - np.cos(angle))
                / np.hypot(quantizer.cosine_deviation * np.sin(angle), fine.rounding_deviation)
            )
            below_bound.append(estimates < lowest)
        assert abs(np.mean(off)) < 0.15
        assert 0.8 < np.std(off) < 1.05
        assert np.mean(below_bound) < 0.015


@pytest.mark.parametrize(("dimension", "bits"), [(128, 1024), (512, 1024), (300, 1024), (1500, 1024)])
def test_hyperplanes_are_orthogonal_as_far_as_possible(dimension: int, bits: int) -> None:
    """Every block of hyperplanes, and the remainder that fills no block."""
    for start in range(0, bits, dimension):
        block = build_hyperplanes(dimension, bits)[:, start : start + dimension]
        np.testing.assert_allclose(block.T @ block, np.eye(block.shape[1]), atol=1e-5)


def test_hyperplanes_never_change() -> None:
    """Codes are stored: their hyperplanes must never change."""
    normals = build_hyperplanes(128, 1024)
    assert normals.shape == (128, 1024)
    np.testing.assert_allclose(normals[0, :4], FIRST, rtol=1e-6)


@given(st.floats(1e-9, 0.5), st.integers(1, 4096), st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_upper_quantile_is_the_smallest_number_exceeded_as_rarely(
    risk: float, trials: int, ps: list[float]
) -> None:
    p, n = np.array(ps), np.full(len(ps), float(trials))

    found = bounds._find_upper_quantiles(risk, n, p)

    # At a tie two accurate survival functions may disagree in their last digits.
    assert (stats.binom.sf(found, n, p) <= risk * (1 + 1e-9)).all()
    assert ((found == 0) | (stats.binom.sf(found - 1, n, p) > risk * (1 - 1e-9))).all()
