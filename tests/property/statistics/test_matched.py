"""Matched impostors are the pairs of different persons of one sex and one age band, and no others."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vultus.errors import InvalidInputError
from vultus.statistics.intervals import compute_clopper_pearson_rate
from vultus.statistics.matched import (
    ADULT_BANDS,
    CHILD_BANDS,
    MAX_GROUP_RATIO,
    UNKNOWN_AGE,
    Demographics,
    evaluate_matched_impostors,
)

LIMIT = 5 / 64
AGES = st.sampled_from([UNKNOWN_AGE, 0, 5, 6, 17, 18, 34, 35, 64, 65, 99])


def find_band(age: int) -> tuple[int, int] | None:
    return next((band for band in (*CHILD_BANDS, *ADULT_BANDS) if band[0] <= age <= band[1]), None)


@settings(max_examples=40, deadline=None)
@given(st.lists(AGES, min_size=4, max_size=14), st.integers(0, 2**32 - 1))
def test_rates_equal_those_of_comparing_everything(ages: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    person = np.sort(random.integers(0, len(ages), len(ages)))
    vectors = random.integers(-3, 4, (len(ages), 4)).astype(np.float32) / np.float32(8)
    sex = tuple(random.choice(["female", "male"], len(ages)))
    race = tuple(random.choice(np.array(["a", "b", None]), len(ages)))
    left_out = np.array([[0, 1], [3, 2]])
    left_out = left_out[(left_out <= person[-1]).all(axis=1)]
    labels = Demographics(np.array(ages), sex, race)
    pairs = [
        (one, two, float(vectors[one] @ vectors[two]))
        for one, two in combinations(range(len(ages)), 2)
        if person[one] != person[two]
        and {int(person[one]), int(person[two])} not in ({0, 1}, {2, 3})
        and sex[one] == sex[two]
        and find_band(ages[one])
        and find_band(ages[one]) == find_band(ages[two])
    ]
    adults = [pair for pair in pairs if ages[pair[0]] >= 18]
    if not adults:
        with pytest.raises(InvalidInputError, match="different adults"):
            evaluate_matched_impostors(vectors, person, labels, [LIMIT], left_out=left_out)
        return

    result = evaluate_matched_impostors(vectors, person, labels, [LIMIT], left_out=left_out)

    rate = result.get_rates(LIMIT).fmr
    assert (rate.hits, rate.trials) == (sum(score >= LIMIT for *_, score in adults), len(adults))
    assert result.pairs == len(adults)
    at = [rates.threshold for rates in result.rates].index(LIMIT)
    counted = {group.name: (group.rates[at].fmr.hits, group.pairs) for group in result.groups}
    expected: dict[str, list[float]] = {}
    for one, two, score in adults:
        if race[one] is not None and race[one] == race[two]:
            first, last = find_band(ages[one]) or (0, 0)
            band = "65+" if first == 65 else f"{first}–{last}"
            expected.setdefault(f"{sex[one]} {band} {race[one]}", []).append(score)
    assert counted == {name: (sum(s >= LIMIT for s in scores), len(scores)) for name, scores in expected.items()}
    children = [score for one, _, score in pairs if ages[one] < 18]
    assert sum(group.pairs for group in result.children) == len(children)
    assert sum(group.rates[at].fmr.hits for group in result.children) == sum(score >= LIMIT for score in children)
    scores = sorted((score for *_, score in adults), reverse=True)
    for point in result.points:
        allowed = int(point.target_fmr * len(adults) + 1e-9)
        if point.threshold is not None:
            assert sum(score >= point.threshold for score in scores) <= allowed


def draw_strangers(noise: float, count: int, axis: int) -> np.ndarray:
    random = np.random.default_rng(axis)
    vectors = np.eye(16)[axis] + noise * random.normal(size=(count, 16))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_the_worst_group_with_enough_pairs_is_named() -> None:
    vectors = np.concatenate([draw_strangers(0.3, 70, 0), draw_strangers(0.6, 70, 1), draw_strangers(0.05, 20, 2)])
    race = ("a",) * 70 + ("b",) * 70 + ("c",) * 20
    labels = Demographics(np.full(160, 30), ("female",) * 160, race)

    result = evaluate_matched_impostors(vectors, np.arange(160), labels, [0.4])

    rates = result.get_rates(0.4)
    assert rates.worst == "female 18–34 a"
    assert rates.worst_fmr is not None
    assert rates.worst_fmr.resolved
    assert rates.worst_fmr.fmr.value > rates.fmr.value
    assert [point.resolved for point in result.points] == [True, True, True, False, False]
    assert [group.pairs for group in result.groups] == [2415, 2415, 190]


def test_photos_without_age_or_sex_are_counted_and_not_compared() -> None:
    vectors = draw_strangers(0.3, 5, 0)
    labels = Demographics(np.array([30, 30, 30, UNKNOWN_AGE, 30]), ("male", "male", "male", "male", None), (None,) * 5)

    result = evaluate_matched_impostors(vectors, np.arange(5), labels, [0.4])

    assert (result.adults, result.pairs, result.without_label, result.groups) == (3, 3, 2, ())


def test_the_labels_of_some_photos_stay_with_them() -> None:
    labels = Demographics(np.array([1, 2, 3]), ("a", "b", "c"), (None, "x", "y"))

    kept = labels.select_photos(np.array([True, False, True]))

    assert (kept.age.tolist(), kept.sex, kept.race) == ([1, 3], ("a", "c"), (None, "y"))


def test_no_group_is_left_with_many_times_the_rate() -> None:
    """Of one people in ten everybody looks alike: a threshold by the average would be theirs to pay."""
    alike, others = draw_strangers(0.25, 75, 0), draw_strangers(2.0, 700, 1)
    labels = Demographics(np.full(775, 30), ("female",) * 775, ("a",) * 75 + ("b",) * 700)

    result = evaluate_matched_impostors(np.concatenate([alike, others]), np.arange(775), labels, [])

    point = next(point for point in result.points if point.target_fmr == 1e-3)
    assert point.threshold is not None
    rates = result.get_rates(point.threshold)
    group = next(group for group in result.groups if group.name.endswith(" a"))
    high = group.rates[[one.threshold for one in result.rates].index(point.threshold)].fmr
    limit = compute_clopper_pearson_rate(high.hits, high.trials).high
    more = compute_clopper_pearson_rate(high.hits + 1, high.trials).high
    assert limit <= MAX_GROUP_RATIO * 1e-3 < more
    assert rates.fmr.value < 1e-3 / 5
