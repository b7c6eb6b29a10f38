"""Comparing block by block equals comparing everything with everything."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vultus.domain import FloatArray
from vultus.statistics.all_pairs import BINS_PER_UNIT, count_accepted_by_person, count_pair_scores
from vultus.statistics.metrics import Indices

# Each call fills two histograms of a million bins.
costly = settings(max_examples=50)


@st.composite
def photos(draw: st.DrawFn) -> tuple[FloatArray, Indices]:
    """Vectors whose products are exact in float32, so that the shape of a block cannot change a score."""
    counts = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6))
    person = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    entries = st.lists(st.integers(-3, 3), min_size=4, max_size=4)
    rows = draw(st.lists(entries, min_size=len(person), max_size=len(person)))
    return np.array(rows, np.float32).reshape(-1, 4) / np.float32(8), person


def brute_force(vectors: FloatArray, person: Indices) -> list[tuple[int, int, float, bool]]:
    return [
        (one, two, float(vectors[one] @ vectors[two]), bool(person[one] == person[two]))
        for one, two in combinations(range(len(vectors)), 2)
    ]


@costly
@given(photos(), st.integers(1, 9))
def test_every_pair_is_counted_once_with_its_score(data: tuple[FloatArray, Indices], block: int) -> None:
    vectors, person = data
    pairs = brute_force(vectors, person)

    tally = count_pair_scores(vectors, person, block=block)

    for counts, kind in ((tally.genuine, True), (tally.impostor, False)):
        counted = dict(zip(tally.scores, counts, strict=True))
        expected = [score for _, _, score, same in pairs if same is kind]
        assert {score: n for score, n in counted.items() if n} == {s: expected.count(s) for s in expected}
    assert all(score < tally.rejecting_threshold for _, _, score, _ in pairs)


@given(photos(), st.integers(1, 9), st.lists(st.integers(-36, 36), max_size=4))
def test_accepted_pairs_are_counted_for_both_persons(
    data: tuple[FloatArray, Indices], block: int, limits: list[int]
) -> None:
    vectors, person = data
    thresholds = np.array(limits) / 64
    pairs = brute_force(vectors, person)

    accepted = count_accepted_by_person(vectors, person, thresholds, persons=6, block=block)

    for at, limit in enumerate(thresholds):
        for who in range(6):
            own = [p for p in pairs if p[3] and person[p[0]] == who]
            others = [p for p in pairs if not p[3] and who in {person[p[0]], person[p[1]]}]
            assert accepted.genuine[at, who] == sum(p[2] >= limit for p in own)
            assert accepted.impostor[at, who] == sum(p[2] >= limit for p in others)
            assert accepted.genuine_trials[who] == len(own)
            assert accepted.impostor_trials[who] == len(others)
    for photo, nearest in enumerate(accepted.nearest_cosines):
        scores = [p[2] for p in pairs if not p[3] and photo in p[:2]]
        assert nearest == max(scores, default=-np.inf)


@costly
@given(photos(), st.integers(1, 9), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=4))
def test_persons_left_out_are_not_compared(
    data: tuple[FloatArray, Indices], block: int, couples: list[tuple[int, int]]
) -> None:
    vectors, person = data
    couples = sorted({(max(couple), min(couple)) for couple in couples if couple[0] != couple[1]})
    left_out = np.array(couples, np.int64).reshape(-1, 2)
    pairs = [
        pair
        for pair in brute_force(vectors, person)
        if pair[3] or (max(person[pair[0]], person[pair[1]]), min(person[pair[0]], person[pair[1]])) not in couples
    ]

    tally = count_pair_scores(vectors, person, left_out=left_out, block=block)
    accepted = count_accepted_by_person(vectors, person, np.array([0.0]), persons=6, left_out=left_out, block=block)

    assert (tally.genuine_trials, tally.impostor_trials) == (sum(p[3] for p in pairs), sum(not p[3] for p in pairs))
    assert accepted.impostor[0].sum() == 2 * sum(not p[3] and p[2] >= 0 for p in pairs)
    assert accepted.impostor_trials.sum() == 2 * tally.impostor_trials


@costly
@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=12))
def test_a_score_reaches_exactly_the_edges_at_or_below_it(scores: list[float]) -> None:
    vectors = np.array([[1.0], *([score] for score in scores)], np.float32)
    lone = np.arange(len(vectors))

    tally = count_pair_scores(vectors, lone, block=1)

    products = [float(a * b) for a, b in combinations(vectors[:, 0], 2)]
    for edge in tally.scores:
        reaching = int(tally.impostor[tally.scores >= edge].sum())
        assert reaching == sum(np.float32(product) >= edge for product in products)
    assert ((tally.scores * BINS_PER_UNIT) % 1 == 0).all()
