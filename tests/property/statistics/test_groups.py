"""Rates by group equal those of comparing within and across the groups."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vultus.errors import InvalidInputError
from vultus.statistics.groups import evaluate_groups

LABELS = st.lists(st.sampled_from(["north", "south", None]), min_size=2, max_size=7)


@given(LABELS, st.integers(0, 2**32 - 1))
def test_every_pair_counts_for_its_groups(labels: list[str | None], seed: int) -> None:
    if len({*labels} - {None}) < 2:
        return
    random = np.random.default_rng(seed)
    person = np.repeat(np.arange(len(labels)), random.integers(1, 4, len(labels)))
    vectors = random.integers(-3, 4, (len(person), 4)).astype(np.float32) / np.float32(8)
    limit = 5 / 64

    result = evaluate_groups("side", vectors, person, labels, [limit])

    pairs = [
        (one, two, float(vectors[one] @ vectors[two]) >= limit) for one, two in combinations(range(len(person)), 2)
    ]
    assert result.without_group == labels.count(None)
    for group in result.groups:
        (rates,) = group.rates
        kinds: dict[str, list[bool]] = {"fmr": [], "fmr_across": [], "fnmr": []}
        for one, two, accepted in pairs:
            sides = labels[person[one]], labels[person[two]]
            if None in sides or group.name not in sides:
                continue
            if person[one] == person[two]:
                kinds["fnmr"].append(not accepted)
            else:
                kinds["fmr" if sides[0] == sides[1] else "fmr_across"].append(accepted)
        for name, outcomes in kinds.items():
            rate = getattr(rates, name)
            assert (rate is None) == (not outcomes)
            assert rate is None or (rate.hits, rate.trials) == (sum(outcomes), len(outcomes))


def draw_people(noise: dict[str, float], persons: int = 60) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(5)
    labels = [name for name in noise for _ in range(persons)]
    person = np.repeat(np.arange(len(labels)), 3)
    spread = np.array([noise[labels[who]] for who in person])[:, None]
    vectors = random.normal(size=(len(labels), 8))[person] + spread * random.normal(size=(len(person), 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), person, labels


def test_the_worst_group_is_named_with_its_ratio() -> None:
    vectors, person, labels = draw_people({"clear": 0.3, "blurred": 0.9})

    result = evaluate_groups("photo", vectors, person, labels, [0.8])

    (one,) = result.differentials
    rates = {group.name: group.rates[0].fnmr for group in result.groups}
    assert (one.fnmr_worst, one.fnmr_best) == ("blurred", "clear")
    assert one.fnmr_ratio == pytest.approx(rates["blurred"].value / rates["clear"].value)  # type: ignore[union-attr]


def test_a_group_too_small_is_marked_and_not_compared() -> None:
    vectors, person, labels = draw_people({"clear": 0.6, "blurred": 0.9})
    labels = ["few" if who < 5 else label for who, label in enumerate(labels)]

    result = evaluate_groups("photo", vectors, person, labels, [0.8])

    few = next(group for group in result.groups if group.name == "few")
    assert (few.rates[0].fmr_resolved, few.rates[0].fnmr_resolved) == (False, False)
    assert "few" not in {result.differentials[0].fnmr_worst, result.differentials[0].fnmr_best}


def test_photos_without_a_face_are_rejections() -> None:
    vectors, person, labels = draw_people({"a": 0.1, "b": 0.1}, persons=2)

    result = evaluate_groups("side", vectors, person, labels, [-1.0], expected_trials=np.array([6, 3, 3, 3]))

    missed = {group.name: group.rates[0].fnmr for group in result.groups}
    assert [(rate.hits, rate.trials) for rate in missed.values() if rate] == [(3, 9), (0, 6)]


def test_one_group_cannot_be_compared() -> None:
    vectors, person, _ = draw_people({"a": 0.1}, persons=3)

    with pytest.raises(InvalidInputError, match="'side' divides the persons with faces into 1 groups"):
        evaluate_groups("side", vectors, person, ["a", "a", None], [0.5])
