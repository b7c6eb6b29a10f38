"""Error rates on a handful of scores that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vultus.statistics.metrics import (
    compute_auc,
    compute_equal_error,
    compute_expected_errors,
    compute_k_fold_accuracy,
    compute_roc_curve,
    count_scores,
    find_best_threshold,
    find_position_at_fmr,
    sample_curve,
)

GENUINE = np.array([0.9, 0.8, 0.7, 0.4])
IMPOSTOR = np.array([0.6, 0.5, 0.3, 0.2, 0.1])


def test_a_handful_of_scores_is_counted_as_by_hand() -> None:
    curve = compute_roc_curve(count_scores(GENUINE, IMPOSTOR, genuine_missed=1))

    at = find_position_at_fmr(curve, 0.2, len(IMPOSTOR))

    assert curve.thresholds[at] == 0.6
    assert (curve.fmr[at], curve.tar[at]) == (0.2, 0.6)


def test_a_rate_of_zero_lies_above_the_best_impostor() -> None:
    curve = compute_roc_curve(count_scores(GENUINE, IMPOSTOR))

    assert curve.thresholds[find_position_at_fmr(curve, 0, len(IMPOSTOR))] == 0.7


def test_an_impostor_on_top_leaves_only_the_unreachable_threshold() -> None:
    curve = compute_roc_curve(count_scores(np.array([0.5]), np.array([0.5, 0.1])))

    at = find_position_at_fmr(curve, 0, 2)

    assert curve.thresholds[at] > 0.5
    assert curve.tar[at] == 0


def test_trials_that_count_without_a_score_are_never_false_matches() -> None:
    curve = compute_roc_curve(count_scores(GENUINE, IMPOSTOR, impostor_missed=5))

    assert curve.fmr[0] == 0.5


def test_the_area_counts_won_comparisons() -> None:
    assert compute_auc(count_scores(GENUINE, IMPOSTOR)) == pytest.approx(18 / 20)


def test_equal_errors_are_met_between_two_thresholds() -> None:
    # At 0.6: FMR 1/5 and FNMR 1/4; at 0.5: FMR 2/5 and FNMR 1/4.
    equal = compute_equal_error(compute_roc_curve(count_scores(GENUINE, IMPOSTOR)))

    assert equal.rate == pytest.approx(0.25)
    assert equal.threshold == pytest.approx(0.575)


def test_equal_errors_of_disjoint_scores_are_none() -> None:
    assert compute_equal_error(compute_roc_curve(count_scores(np.array([0.9]), np.array([0.1])))).rate == 0


def test_equal_errors_with_nothing_compared_are_everything() -> None:
    # Every genuine comparison failed: the false non-match rate is 1 at any threshold.
    assert compute_equal_error(compute_roc_curve(count_scores(np.array([]), IMPOSTOR, genuine_missed=3))).rate == 1


def test_equal_errors_with_no_impostor_compared_are_none() -> None:
    curve = compute_roc_curve(count_scores(GENUINE, np.array([]), genuine_missed=4, impostor_missed=2))

    assert compute_equal_error(curve).rate == 0


@pytest.mark.parametrize(("genuine", "impostor"), [([], [0.1]), ([0.9], []), ([], [])])
def test_rates_without_trials_are_refused(genuine: list[float], impostor: list[float]) -> None:
    with pytest.raises(ValueError, match="of one person and of different persons"):
        compute_roc_curve(count_scores(np.array(genuine), np.array(impostor)))


def test_the_best_threshold_lies_in_the_middle_of_the_gap() -> None:
    assert find_best_threshold(np.array([0.9, 0.2]), np.array([True, False])) == pytest.approx(0.55)


def test_accepting_everything_may_be_best() -> None:
    assert find_best_threshold(np.array([0.9, 0.2]), np.array([True, True])) <= 0.2


def test_each_fold_is_evaluated_at_the_threshold_of_the_others() -> None:
    # The second fold's scores are shifted by one: the first fold's threshold accepts all of them.
    values = np.array([0.8, 0.2, 1.8, 1.2])

    result = compute_k_fold_accuracy(values, np.array([True, False] * 2), np.array([0, 0, 1, 1]))

    assert result.folds == (0.5, 0.5)
    assert result.thresholds == pytest.approx((1.5, 0.5))
    assert (result.pooled.hits, result.pooled.trials) == (2, 4)


def test_expected_errors_are_rate_times_comparisons() -> None:
    assert compute_expected_errors(1e-3, 3000) == pytest.approx(3)


def test_a_drawn_curve_is_thin() -> None:
    generator = np.random.default_rng(3)
    curve = compute_roc_curve(count_scores(generator.normal(1, 1, 5000), generator.normal(0, 1, 100_000)))

    assert 60 < len(list(sample_curve(curve, 100_000))) <= 121
