"""The curve recovers the true odds where they exist, and stays bounded where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from vultus.domain import Calibration
from vultus.statistics.all_pairs import count_pair_scores
from vultus.statistics.probability import MIN_FITTED_PERSONS, fit_logistic, fit_logistic_to_pairs

MANY = (10**9, 10**9)


@given(st.floats(-0.5, 0.5), st.floats(0.02, 0.3), st.floats(0.05, 1))
def test_two_normal_distributions_of_equal_width_give_their_true_odds(
    middle: float, width: float, distance: float
) -> None:
    scores = np.linspace(-4, 4, 4001)
    kinds = [np.exp(-(((scores - middle - side * distance / 2) / width) ** 2) / 2) for side in (1, -1)]

    line = fit_logistic(scores, kinds[0], kinds[1] * 40, comparisons=MANY)

    assert line is not None
    # Log-odds of N(m + a/2, w) against N(m − a/2, w): a (x − m) / w².
    if distance / width < 6:
        assert line[0] == pytest.approx(distance / width**2, rel=1e-3)
        assert -line[1] / line[0] == pytest.approx(middle, abs=1e-3)


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_kinds_that_do_not_overlap_get_a_finite_slope_that_their_number_supports(few: int, others: int) -> None:
    line = fit_logistic(np.array([0.2, 0.8]), np.array([0.0, 1.0]), np.array([1.0, 0.0]), comparisons=(few, others))

    assert line is not None
    assert special.expit(line[0] * 0.8 + line[1]) == pytest.approx((few + 1) / (few + 2), rel=1e-6)
    assert special.expit(line[0] * 0.2 + line[1]) == pytest.approx(1 / (others + 2), rel=1e-6)


def test_kinds_the_wrong_way_round_give_no_curve() -> None:
    assert fit_logistic(np.array([0.2, 0.8]), np.array([1.0, 0.0]), np.array([0.0, 1.0]), comparisons=(9, 9)) is None


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_higher_cosine_is_never_less_probable(one: float, other: float) -> None:
    calibration = Calibration((), 0.0, "made up", logistic=(180.0, -165.0))
    low, high = (calibration.compute_probability(score) for score in sorted((one, other)))

    assert low is not None
    assert high is not None
    assert 0 < low <= high < 1


def test_a_person_with_many_photos_weighs_no_more_than_others() -> None:
    random = np.random.default_rng(3)
    person = np.repeat(np.arange(60), [200, *[3] * 59])
    noise = np.where(person == 0, 0.05, 0.7)[:, None]
    vectors = random.normal(size=(60, 16))[person] + noise * random.normal(size=(len(person), 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    rest = slice(200, None)

    everybody = fit_logistic_to_pairs(vectors, person, count_pair_scores(vectors, person))
    without = fit_logistic_to_pairs(vectors[rest], person[rest], count_pair_scores(vectors[rest], person[rest]))

    assert everybody is not None
    assert without is not None
    assert -everybody[1] / everybody[0] == pytest.approx(-without[1] / without[0], abs=0.05)


def test_too_few_persons_with_several_faces_give_no_curve() -> None:
    person = np.repeat(np.arange(MIN_FITTED_PERSONS), [1, *[2] * (MIN_FITTED_PERSONS - 1)])
    vectors = np.eye(len(person), dtype=np.float32)

    assert fit_logistic_to_pairs(vectors, person, count_pair_scores(vectors, person)) is None
