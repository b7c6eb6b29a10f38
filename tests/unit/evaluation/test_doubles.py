"""Persons whom the other network families take for one are left out; a network has no say about itself."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vultus.evaluation.doubles import find_alike_persons, find_doubles


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_alike_persons_are_those_of_whom_two_photos_reach_the_threshold(seed: int, block: int) -> None:
    random = np.random.default_rng(seed)
    person = np.sort(random.integers(0, 5, 12))
    vectors = random.integers(-3, 4, (12, 4)).astype(np.float32) / np.float32(8)

    found = find_alike_persons(vectors, person, 5 / 64, block=block)

    assert found == {
        (int(person[one]), int(person[two]))
        for one, two in combinations(range(12), 2)
        if person[one] != person[two] and float(vectors[one] @ vectors[two]) >= 5 / 64
    }


def test_both_other_families_must_agree() -> None:
    alike = {"a": {(0, 1), (2, 3)}, "b": {(0, 1), (4, 5), (2, 9)}, "c": {(4, 5), (0, 1), (2, 3)}}

    assert find_doubles(alike, "a").tolist() == [[0, 1], [4, 5]]
    assert find_doubles(alike, "b").tolist() == [[0, 1], [2, 3]]
    assert find_doubles(alike, "c").tolist() == [[0, 1]]


def test_one_other_family_is_not_enough() -> None:
    assert find_doubles({"a": {(0, 1)}, "b": {(0, 1)}}, "a").shape == (0, 2)
    assert find_doubles({"a": {(0, 1)}, "b": {(0, 1)}}, "new").tolist() == [[0, 1]]
