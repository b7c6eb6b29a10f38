"""Splits use every photo once and are reproducible; searches agree with sorting everybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vultus.errors import InvalidInputError
from vultus.evaluation.datasets import DataSet
from vultus.evaluation.identification import (
    TemplateFusion,
    build_one_to_one_tally,
    build_open_set_tally,
    count_matches_by_rank,
    search_gallery,
    split_gallery,
)
from vultus.statistics.metrics import compute_roc_curve, find_position_at_fmr


def people(counts: list[int]) -> DataSet:
    photos = tuple(f"{who}/{at}" for who, count in enumerate(counts) for at in range(count))
    return DataSet(Path(), tuple(map(str, range(len(counts)))), photos, np.repeat(np.arange(len(counts)), counts))


# Four persons have enough photos for any number enrolled, so that both kinds of search have probes.
counts = st.tuples(st.lists(st.integers(4, 6), min_size=4, max_size=10), st.lists(st.integers(0, 3), max_size=15))
data_sets = counts.flatmap(lambda both: st.permutations([*both[0], *both[1]])).map(people)


@given(data_sets, st.integers(1, 3), st.floats(0.25, 0.75), st.integers(0, 99))
def test_every_photo_has_one_role(data: DataSet, enrol: int, held_out: float, seed: int) -> None:
    parts = split_gallery(data, enrol=enrol, held_out=held_out, seed=seed)

    every = np.concatenate((parts.enrolled, parts.mates, parts.strangers))
    assert sorted(every) == list(range(len(data.photos)))
    known, searched = set(data.person_indices[parts.enrolled]), set(data.person_indices[parts.mates])
    assert searched <= known
    assert not known & set(data.person_indices[parts.strangers])
    assert len(known - searched) == parts.distractor_count
    assert np.bincount(data.person_indices[parts.enrolled]).max() <= enrol


def test_persons_too_few_for_both_kinds_of_search_are_refused() -> None:
    for counts in ([5], [1, 1, 1], [0, 5, 1]):
        with pytest.raises(InvalidInputError):
            split_gallery(people(counts), enrol=1, held_out=0.5, seed=0)


@given(data_sets, st.integers(0, 99))
def test_the_same_seed_gives_the_same_split(data: DataSet, seed: int) -> None:
    one, two = (split_gallery(data, enrol=1, held_out=0.5, seed=seed) for _ in range(2))

    np.testing.assert_array_equal(one.mates, two.mates)
    np.testing.assert_array_equal(one.strangers, two.strangers)


@given(st.lists(st.integers(1, 4), min_size=2, max_size=8).map(people), st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_a_search_agrees_with_sorting_everybody(data: DataSet, seed: int, block: int) -> None:
    generator = np.random.default_rng(seed)
    # Products of small whole numbers are exact, so ties are ties in any order of summation.
    vectors = generator.integers(-2, 3, (len(data.photos), 3)).astype(np.float32)
    found = generator.random(len(vectors)) < 0.8
    enrolled, probes = np.flatnonzero(generator.random(len(vectors)) < 0.6), np.arange(len(vectors))
    assume(found[enrolled].any())

    answers = search_gallery(vectors, found, data.person_indices, enrolled=enrolled, probes=probes, block_size=block)

    gallery = enrolled[found[enrolled]]
    for probe in probes:
        best: dict[int, float] = {}
        for at in gallery:
            who = int(data.person_indices[at])
            best[who] = max(best.get(who, -np.inf), float(vectors[probe] @ vectors[at]))
        ranked = sorted(best.values(), reverse=True)
        own = best.get(int(data.person_indices[probe]))
        if not found[probe]:
            assert (answers.best_score[probe], answers.best_person[probe], answers.mate_rank[probe]) == (-np.inf, -1, 0)
            continue
        assert answers.best_score[probe] == ranked[0] == best[int(answers.best_person[probe])]
        assert answers.second_score[probe] == (ranked[1] if len(ranked) > 1 else -np.inf)
        assert answers.mate_score[probe] == (-np.inf if own is None else own)
        assert answers.mate_rank[probe] == (0 if own is None else sum(score >= own for score in ranked))


@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 10))
def test_longer_lists_never_find_fewer_mates(ranks: list[int], max_rank: int) -> None:
    counts = count_matches_by_rank(np.array(ranks, np.int64), max_rank=max_rank)

    assert counts.tolist() == [sum(0 < rank <= best for rank in ranks) for best in range(1, max_rank + 1)]


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_a_threshold_never_exceeds_its_false_positive_rate(seed: int, target: float) -> None:
    generator = np.random.default_rng(seed)
    data = people([3] * 12)
    vectors = generator.normal(size=(36, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = generator.random(36) < 0.9
    parts = split_gallery(data, enrol=1, held_out=0.5, seed=seed)
    assume(found[parts.enrolled].any())
    mates, strangers = (
        search_gallery(vectors, found, data.person_indices, enrolled=parts.enrolled, probes=probes)
        for probes in (parts.mates, parts.strangers)
    )

    curve = compute_roc_curve(build_open_set_tally(mates, strangers))
    at = find_position_at_fmr(curve, target, len(parts.strangers))

    threshold = curve.thresholds[at]
    assert np.mean(strangers.best_score >= threshold) <= target + 1e-9
    assert curve.tar[at] == pytest.approx(np.mean((mates.mate_rank == 1) & (mates.mate_score >= threshold)))


@given(st.lists(st.integers(1, 4), min_size=2, max_size=6).map(people), st.integers(0, 2**32 - 1))
def test_a_mean_is_compared_as_one_template(data: DataSet, seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(len(data.photos), 5)).astype(np.float32)
    every, weights = np.arange(len(vectors)), generator.uniform(0.1, 1, len(vectors))
    found = np.ones(len(vectors), bool)

    for fusion, weighing in ((TemplateFusion.MEAN, None), (TemplateFusion.QUALITY, weights)):
        answers = search_gallery(
            vectors,
            found,
            data.person_indices,
            enrolled=every,
            probes=every,
            fusion=fusion,
            weights=weighing,
            block_size=3,
        )

        for probe in every:
            is_of_person = data.person_indices == data.person_indices[probe]
            mean = (vectors[is_of_person] * (1 if weighing is None else weights[is_of_person, None])).sum(axis=0)
            assert answers.mate_score[probe] == pytest.approx(vectors[probe] @ mean / np.linalg.norm(mean), abs=1e-5)


@given(st.lists(st.integers(1, 3), min_size=2, max_size=6).map(people), st.integers(0, 2**32 - 1))
def test_one_to_one_counts_each_probe_with_each_full_person(data: DataSet, seed: int) -> None:
    generator = np.random.default_rng(seed)
    # Multiples of 1/8 whose products start a bin.
    vectors = generator.integers(-2, 3, (len(data.photos), 3)).astype(np.float32) / np.float32(8)
    every, found = np.arange(len(vectors)), generator.random(len(vectors)) < 0.8
    assume(found.any())

    answers = search_gallery(vectors, found, data.person_indices, enrolled=every, probes=every, block_size=2)
    tally = build_one_to_one_tally(answers, answers)

    max_count = max(np.bincount(data.person_indices[found]))
    full = [who for who in range(len(data.persons)) if (found & (data.person_indices == who)).sum() == max_count]
    expected = sorted(
        max(float(vectors[probe] @ vectors[at]) for at in every[found & (data.person_indices == who)])
        for probe in every[found]
        for who in full
        if who != data.person_indices[probe]
    )
    assert np.repeat(tally.scores, tally.impostor).tolist() == expected
    assert np.repeat(tally.scores, tally.genuine).tolist() == sorted(
        answers.mate_score[np.isfinite(answers.mate_score)]
    )
    assert tally.genuine_trials == len(every)
