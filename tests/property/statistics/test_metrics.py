"""Invariants of error rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from vultus.statistics.metrics import (
    Floats,
    compute_auc,
    compute_equal_error,
    compute_k_fold_accuracy,
    compute_roc_curve,
    count_scores,
    find_best_threshold,
    find_position_at_fmr,
    find_position_at_threshold,
    sample_curve,
)

# Few distinct values, so that ties occur, or many.
values = st.one_of(st.integers(-4, 4).map(lambda step: step / 4), st.floats(-1, 1))
scores = arrays.arrays(np.float64, st.integers(1, 40), elements=values)
missing = st.integers(0, 5)
rates = st.floats(0, 1)


@given(scores, scores, missing)
def test_rates_never_rise_with_the_threshold(genuine: Floats, impostor: Floats, missed: int) -> None:
    curve = compute_roc_curve(count_scores(genuine, impostor, genuine_missed=missed))

    assert (np.diff(curve.thresholds) > 0).all()
    assert (np.diff(curve.fmr) <= 0).all()
    assert (np.diff(curve.tar) <= 0).all()
    assert (curve.fmr[0], curve.fmr[-1], curve.tar[-1]) == (1, 0, 0)


@given(scores, scores, missing)
def test_the_curve_agrees_with_counting(genuine: Floats, impostor: Floats, missed: int) -> None:
    curve = compute_roc_curve(count_scores(genuine, impostor, genuine_missed=missed))

    for threshold, fmr, tar in zip(curve.thresholds, curve.fmr, curve.tar, strict=True):
        assert fmr == np.mean(impostor >= threshold)
        assert tar == pytest.approx((genuine >= threshold).sum() / (len(genuine) + missed))


@given(scores, scores, rates)
def test_a_threshold_never_exceeds_its_rate_and_the_next_lower_one_does(
    genuine: Floats, impostor: Floats, target: float
) -> None:
    curve = compute_roc_curve(count_scores(genuine, impostor))

    at = find_position_at_fmr(curve, target, len(impostor))

    assert np.mean(impostor >= curve.thresholds[at]) <= target + 1e-9
    assert at == 0 or curve.fmr[at - 1] > target


@given(st.integers(1, 300), st.integers(0, 300))
def test_a_rate_that_is_a_whole_number_of_errors_allows_that_many(trials: int, allowed: int) -> None:
    impostor = np.arange(trials, dtype=float)
    curve = compute_roc_curve(count_scores(np.array([0.0]), impostor))

    at = find_position_at_fmr(curve, min(allowed, trials) / trials, trials)

    assert curve.false_matches[at] == min(allowed, trials)


@given(scores, scores, st.floats(-1.5, 1.5))
def test_any_threshold_finds_the_place_with_its_decisions(genuine: Floats, impostor: Floats, threshold: float) -> None:
    curve = compute_roc_curve(count_scores(genuine, impostor))

    at = find_position_at_threshold(curve, threshold)

    assert curve.false_matches[at] == (impostor >= threshold).sum()
    assert curve.true_accepts[at] == (genuine >= threshold).sum()


@given(scores, scores)
def test_the_area_is_the_mann_whitney_statistic(genuine: Floats, impostor: Floats) -> None:
    expected = stats.mannwhitneyu(genuine, impostor, method="asymptotic").statistic / (len(genuine) * len(impostor))

    assert compute_auc(count_scores(genuine, impostor)) == pytest.approx(expected)


@given(scores, scores, st.randoms(use_true_random=False))
def test_the_order_of_comparisons_does_not_matter(genuine: Floats, impostor: Floats, chance: object) -> None:
    generator = np.random.default_rng(chance.randrange(2**32))  # type: ignore[attr-defined]
    before = compute_roc_curve(count_scores(genuine, impostor))
    after = compute_roc_curve(count_scores(generator.permutation(genuine), generator.permutation(impostor)))

    np.testing.assert_array_equal(before.fmr, after.fmr)
    np.testing.assert_array_equal(before.tar, after.tar)
    assert compute_equal_error(before) == compute_equal_error(after)


@given(scores, scores, missing)
def test_equal_errors_lie_between_the_errors_around_them(genuine: Floats, impostor: Floats, missed: int) -> None:
    curve = compute_roc_curve(count_scores(genuine, impostor, genuine_missed=missed))

    rate = compute_equal_error(curve).rate

    assert np.min(np.maximum(curve.fmr, 1 - curve.tar)) >= rate - 1e-9
    assert np.max(np.minimum(curve.fmr, 1 - curve.tar)) <= rate + 1e-9


@given(scores, scores)
def test_no_threshold_classifies_more_pairs_correctly_than_the_best(genuine: Floats, impostor: Floats) -> None:
    both = np.concatenate((genuine, impostor))
    same = np.arange(len(both)) < len(genuine)

    best = np.mean((both >= find_best_threshold(both, same)) == same)

    assert best >= max(np.mean((both >= at) == same) for at in [*both, 2.0]) - 1e-9


@given(st.integers(2, 10), st.integers(0, 2**32 - 1))
def test_separable_pairs_are_all_classified_correctly(folds: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    fold = np.repeat(np.arange(folds), 6)
    same = np.tile([True, True, True, False, False, False], folds)
    scattered = generator.uniform(-0.2, 0.2, len(same)) + np.where(same, 0.7, -0.7)

    result = compute_k_fold_accuracy(scattered, same, fold)

    assert result.accuracy.value == result.pooled.value == 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_pairs_that_were_not_compared_are_wrong(seed: int, lost: int) -> None:
    generator = np.random.default_rng(seed)
    same = np.tile([True, False], 30)
    values = np.where(same, 0.9, 0.1)
    values[generator.choice(60, lost, replace=False)] = np.nan

    result = compute_k_fold_accuracy(values, same, np.repeat(np.arange(3), 20))

    assert result.pooled.hits == 60 - lost


@given(scores, scores)
def test_a_drawn_curve_is_part_of_the_whole(genuine: Floats, impostor: Floats) -> None:
    curve = compute_roc_curve(count_scores(genuine, impostor))
    whole = set(zip(curve.thresholds, curve.fmr, curve.tar, strict=True))

    drawn = list(sample_curve(curve, len(impostor)))

    assert set(drawn) <= whole
    assert [fmr for _, fmr, _ in drawn] == sorted({fmr for _, fmr, _ in drawn})
