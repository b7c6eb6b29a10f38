"""Invariants of thresholds and assignments."""

from __future__ import annotations

import math
from itertools import permutations
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from vultus.domain import Calibration, Candidate
from vultus.domain.decision import assign_persons_to_faces, compute_fmr, compute_fpir

CALIBRATION = Calibration(((1e-1, 0.3), (1e-3, 0.6), (1e-6, 0.9)), margin=0.05, source="made up")
rates = st.floats(1e-6, 1e-1)
sizes = st.integers(1, 1_000_000)
matrices = st.integers(1, 4).flatmap(
    lambda persons: st.lists(st.lists(st.floats(0, 1), min_size=persons, max_size=persons), min_size=1, max_size=4)
)


@given(rates, rates)
def test_a_stricter_rate_never_has_a_lower_threshold(one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert CALIBRATION.get_threshold(low) >= CALIBRATION.get_threshold(high)


@given(rates)
def test_threshold_and_rate_are_inverse(rate: float) -> None:
    again = CALIBRATION.get_fmr(CALIBRATION.get_threshold(rate))

    assert abs(again - rate) <= 1e-6 * rate + 1e-12


@given(st.floats(-1, 1))
def test_the_rate_of_any_threshold_is_a_probability_no_stricter_than_measured(threshold: float) -> None:
    assert CALIBRATION.strictest_fmr <= CALIBRATION.get_fmr(threshold) <= 1


@given(st.floats(1e-6, 0.5), sizes)
def test_identification_and_match_rates_are_inverse(fpir: float, size: int) -> None:
    assert abs(compute_fpir(compute_fmr(fpir, size), size) - fpir) < 1e-9


@given(matrices)
def test_the_assignment_is_optimal(matrix: list[list[float]]) -> None:
    threshold = 0.5
    lists = [
        sorted(
            (Candidate(UUID(int=at), None, None, UUID(int=at), similarity) for at, similarity in enumerate(row)),
            key=lambda one: -one.similarity,
        )
        for row in matrix
    ]

    shortened = assign_persons_to_faces(lists, threshold)

    winners = [
        [one for one in candidates if one.similarity >= threshold and owns(one, row, shortened)]
        for row, candidates in enumerate(shortened)
    ]
    owners = [one.person_id for faces in winners for one in faces[:1]]
    gained = sum(faces[0].similarity - threshold for faces in winners if faces)
    assert len(owners) == len(set(owners))
    assert gained >= best_total(matrix, threshold) - 1e-6


def owns(one: Candidate, row: int, lists: list[tuple[Candidate, ...]]) -> bool:
    return all(one.person_id not in {c.person_id for c in other} for at, other in enumerate(lists) if at != row)


def best_total(matrix: list[list[float]], threshold: float) -> float:
    persons = [*range(len(matrix[0])), *[None] * len(matrix)]
    return max(
        math.fsum(max(0.0, matrix[row][person] - threshold) for row, person in enumerate(chosen) if person is not None)
        for chosen in set(permutations(persons, len(matrix)))
    )
