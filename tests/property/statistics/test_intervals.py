"""Intervals contain their rate, stay within 0 to 1 and cover the true rate as often as they claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vultus.statistics.intervals import compute_clopper_pearson_rate, compute_clustered_rate, compute_wilson_rate

counts = st.integers(1, 400).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))
chances = st.floats(0.001, 0.999)


@given(counts)
def test_an_interval_holds_its_rate_and_stays_a_share(count: tuple[int, int]) -> None:
    for rate in (compute_wilson_rate(*count), compute_clopper_pearson_rate(*count)):
        assert 0 <= rate.low <= rate.value <= rate.high <= 1


@given(counts)
def test_the_exact_interval_is_symmetric_in_hits_and_misses(count: tuple[int, int]) -> None:
    hits, trials = count
    one, other = compute_clopper_pearson_rate(hits, trials), compute_clopper_pearson_rate(trials - hits, trials)

    assert one.low == pytest.approx(1 - other.high, abs=1e-9)


@given(st.integers(1, 80), chances)
def test_the_exact_interval_covers_at_least_as_often_as_it_claims(trials: int, chance: float) -> None:
    covered = sum(
        stats.binom.pmf(hits, trials, chance)
        for hits in range(trials + 1)
        if compute_clopper_pearson_rate(hits, trials).low <= chance <= compute_clopper_pearson_rate(hits, trials).high
    )

    assert covered >= 0.95 - 1e-9


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=30))
def test_an_interval_over_persons_holds_its_rate_whoever_comes_first(persons: list[tuple[int, int]]) -> None:
    hits = np.array([min(pair) for pair in persons])
    trials = np.array([pair[1] for pair in persons])

    rate = compute_clustered_rate(hits, trials)
    turned = compute_clustered_rate(hits[::-1], trials[::-1])

    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert (turned.low, turned.high) == pytest.approx((rate.low, rate.high))


@given(st.integers(0, 2**32 - 1))
def test_persons_who_agree_with_themselves_widen_the_interval(seed: int) -> None:
    outcome = np.random.default_rng(seed).integers(0, 2, 40)
    repeats = np.full(40, 25)

    together = compute_clustered_rate(outcome * repeats, repeats)
    alone = compute_wilson_rate(int((outcome * repeats).sum()), int(repeats.sum()))

    assert together.high - together.low >= alone.high - alone.low
