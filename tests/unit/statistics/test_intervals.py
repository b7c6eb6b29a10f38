"""Intervals against published and simulated values."""

from __future__ import annotations

import numpy as np
import pytest

from vultus.statistics.intervals import (
    compute_clopper_pearson_rate,
    compute_clustered_rate,
    compute_mean,
    compute_wilson_rate,
)


def test_wilson_gives_the_textbook_interval() -> None:
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I: 81 of 263.
    rate = compute_wilson_rate(81, 263)

    assert (rate.low, rate.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_clopper_pearson_gives_the_textbook_interval() -> None:
    # The same table: 81 of 263, 0 of 20 and 1 of 29.
    for hits, trials, low, high in ((81, 263, 0.2527, 0.3676), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)):
        rate = compute_clopper_pearson_rate(hits, trials)
        assert (rate.low, rate.high) == pytest.approx((low, high), abs=5e-5)


def test_all_trials_hit_ends_at_one() -> None:
    assert compute_clopper_pearson_rate(7, 7).high == compute_wilson_rate(7, 7).high == 1


@pytest.mark.parametrize("interval", [compute_wilson_rate, compute_clopper_pearson_rate])
def test_a_rate_of_nothing_is_refused(interval: object) -> None:
    with pytest.raises(ValueError, match="needs trials"):
        interval(0, 0)  # type: ignore[operator]
    with pytest.raises(ValueError, match="needs trials"):
        compute_clustered_rate(np.zeros(3), np.zeros(3))


def test_persons_without_trials_change_nothing() -> None:
    with_idle = compute_clustered_rate(np.array([1, 0, 2, 0]), np.array([2, 0, 3, 4]))

    assert with_idle == compute_clustered_rate(np.array([1, 2, 0]), np.array([2, 3, 4]))


def test_one_outcome_throughout_counts_each_person_once() -> None:
    rate = compute_clustered_rate(np.full(20, 50), np.full(20, 50))

    assert rate.high == 1
    assert 0.75 < rate.low < 0.90
    assert (rate.hits, rate.trials) == (1000, 1000)


def test_a_single_person_says_almost_nothing() -> None:
    rate = compute_clustered_rate(np.array([30]), np.array([60]))

    assert rate.high - rate.low > 0.9


def test_pairs_of_two_persons_depend_on_both() -> None:
    rate = compute_clustered_rate(np.array([1, 1]), np.array([4, 4]), order=2)

    assert (rate.hits, rate.trials, rate.value) == (1, 4, 0.25)
    assert rate.high > 0.9


def test_an_interval_over_persons_covers_a_rate_of_pairs() -> None:
    # Persons differ in how often they are confused: the probability of a pair is the product of its persons'.
    generator, persons, true_rate, covered = np.random.default_rng(7), 60, 0.09, 0
    for _ in range(300):
        tendency = generator.choice([0.1, 0.5], persons)
        chance = np.triu(np.outer(tendency, tendency), 1)
        hit = generator.random((persons, persons)) < chance
        both = hit.sum(axis=0) + hit.sum(axis=1)
        rate = compute_clustered_rate(both, np.full(persons, persons - 1), order=2)
        covered += rate.low <= true_rate <= rate.high

    assert 0.91 <= covered / 300 <= 0.99


def test_a_mean_has_students_interval() -> None:
    mean = compute_mean(np.array([1.0, 2.0, 3.0]))

    assert mean.standard_error == pytest.approx(1 / np.sqrt(3))
    assert mean.high - mean.value == pytest.approx(4.302653 / np.sqrt(3))


def test_a_mean_of_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least two"):
        compute_mean(np.array([1.0]))
