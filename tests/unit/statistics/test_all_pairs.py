"""The most similar pairs, and cosines at the ends of the scale."""

from __future__ import annotations

import numpy as np
import pytest

from vultus.statistics.all_pairs import count_accepted_by_person, count_pair_scores


def test_the_most_similar_non_mates_are_named_best_first() -> None:
    angles = np.radians([0, 2, 3, 4.5, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    accepted = count_accepted_by_person(
        vectors, np.array([0, 0, 1, 2, 3]), np.array([0.7]), persons=4, report_from=0.9988, block=2
    )

    assert [pair[:2] for pair in accepted.closest_impostors] == [(1, 2), (2, 3), (1, 3)]
    assert accepted.closest_impostors[0][2] == pytest.approx(np.cos(np.radians(1)), abs=2e-6)


def test_a_cosine_beyond_one_by_rounding_counts_as_one() -> None:
    vectors = np.array([[1.0000001], [1.0], [-1.0000001]], np.float32)

    tally = count_pair_scores(vectors, np.arange(3))

    assert list(tally.scores) == [-1.0, 1.0]
    assert tally.rejecting_threshold > 1
    assert tally.impostor_trials == 3


def test_a_lone_photo_has_no_pairs() -> None:
    tally = count_pair_scores(np.ones((1, 1), np.float32), np.zeros(1, int), genuine_missed=2)

    assert (len(tally.scores), tally.rejecting_threshold, tally.genuine_trials, tally.impostor_trials) == (0, 0.0, 2, 0)
