"""A collection's thresholds completed by the pack's: always ordered, and no laxer where nothing was measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vultus.domain import Calibration, DecisionPolicy, FloatArray, QualityRule
from vultus.domain.decision import compute_fpir
from vultus.services.calibration.thresholds import combine_thresholds, measure_gallery

PACK = Calibration(((1e-1, 0.3), (1e-2, 0.5), (1e-3, 0.6), (1e-4, 0.7)), margin=0.02, source="the pack's data")
RULE = QualityRule(0.5, 10, 1, 90, 90)
POLICY = DecisionPolicy(enrol=RULE, recognize=RULE, target_fmr=1e-3)

resolved = st.lists(st.floats(-1, 1), min_size=1, max_size=7).map(
    lambda cosines: dict(zip((10.0**-power for power in range(1, 8)), sorted(cosines), strict=False))
)


@given(resolved)
def test_thresholds_never_fall_as_rates_do(own: dict[float, float]) -> None:
    rates, thresholds = zip(*combine_thresholds(PACK, own), strict=True)

    assert list(rates) == sorted(set(rates), reverse=True)
    assert list(thresholds) == sorted(thresholds)
    assert rates[-1] == min(1e-4, *own)


@given(resolved)
def test_measured_rates_keep_their_thresholds_and_unmeasured_ones_are_no_laxer(own: dict[float, float]) -> None:
    made = dict(combine_thresholds(PACK, own))
    strictest = min(own)

    for rate, threshold in made.items():
        if rate in own:
            assert threshold == own[rate]
        else:
            assert threshold >= max(dict(PACK.points)[rate], own[strictest])


def gallery(seed: int, persons: int, noise: float) -> tuple[FloatArray, np.ndarray]:
    random = np.random.default_rng(seed)
    person = np.repeat(np.arange(persons), random.integers(1, 4, persons))
    vectors = random.normal(size=(persons, 12))[person] + noise * random.normal(size=(len(person), 12))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), person


@given(st.integers(0, 2**32 - 1), st.integers(40, 80), st.floats(0.1, 1.5))
def test_figures_are_those_of_every_comparison(seed: int, persons: int, noise: float) -> None:
    vectors, person = gallery(seed, persons, noise)
    size = len(person)

    found = measure_gallery(
        vectors, person, pack=PACK, current=PACK, policies=(POLICY, POLICY), gallery_size=size, description="made up"
    )

    scores = vectors @ vectors.T
    other = person[:, None] != person[None]
    twins = ~other & np.triu(np.ones_like(other), 1)
    for point in (*found.points, found.current, found.proposed):
        # Scores within a bin's width of the threshold may be decided either way.
        low, high = (((scores >= point.threshold + reach) & other).any(axis=1).sum() for reach in (4e-6, -4e-6))
        assert low <= point.measured_fpir.hits <= high
        low, high = (((scores >= point.threshold + reach) & other).sum() // 2 for reach in (4e-6, -4e-6))
        assert low <= point.fmr.hits <= high
        assert point.fnmr is None or abs(point.fnmr.hits - (twins & (scores < point.threshold)).sum()) <= 1
        assert point.expected_fpir == compute_fpir(point.stated_fmr, size)
        assert point.resolved == (point.stated_fmr * found.impostor >= 10)
        if point in found.points and point.origin == "own":
            assert point.fmr.value <= point.stated_fmr


def test_searches_and_defaults_keep_the_curve_that_is_theirs() -> None:
    """What a gallery measures is of any two people; stricter rates of a search follow the pack's rates of these."""
    vectors, person = gallery(0, 60, 0.5)
    points = tuple((rate, 0.9 + threshold / 10) for rate, threshold in PACK.points)
    anybody = tuple((rate, threshold - 0.03) for rate, threshold in points)
    pack = replace(PACK, points=points, anybody=anybody, worst_group=((0.5, 0.3),), default_fmr=1e-2)

    own = measure_gallery(
        vectors, person, pack=pack, current=pack, policies=(POLICY, POLICY), gallery_size=60, description="made up"
    ).calibration

    measured = {rate: threshold for rate, threshold in own.points if (rate, threshold) in own.anybody}
    assert measured
    assert own.points == combine_thresholds(pack, measured)
    assert own.anybody == combine_thresholds(pack.anybody_curve, measured)
    assert own.anybody[-1][1] < own.points[-1][1]
    assert (own.worst_group, own.default_fmr, own.margin) == ((), 1e-2, PACK.margin)
