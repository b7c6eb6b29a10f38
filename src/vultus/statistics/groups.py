"""Error rates by group of persons: which groups have more false matches or false non-matches than the rest?

Follows NIST's Face Recognition Technology Evaluation, part 3 (NISTIR 8280, 2019): the same threshold for all persons,
false matches among the persons of one group, and the ratio of the worst group's rate to the best one's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import InvalidInputError
from vultus.statistics.all_pairs import AcceptedCounts, count_accepted_by_person
from vultus.statistics.intervals import Rate, compute_clustered_rate
from vultus.statistics.metrics import RESOLVED_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import FloatArray
    from vultus.statistics.metrics import Indices

MIN_GROUP_PERSONS = 10
"""Minimum number of persons for a group's rate to count as resolved."""


@dataclass(frozen=True, slots=True)
class GroupRates:
    """A group's error rates at one threshold; a rate is None where the group has no such comparison.

    Attributes:
        threshold: Cosine.
        fmr: False match rate among the group's persons.
        fmr_across: False match rate of the group's persons with those of other groups.
        fnmr: False non-match rate, photos without a face counted as rejections.
        fmr_resolved: Whether the group is large enough for its false match rate to be compared.
        fnmr_resolved: The same for its false non-match rate.
    """

    threshold: float
    fmr: Rate | None
    fmr_across: Rate | None
    fnmr: Rate | None
    fmr_resolved: bool
    fnmr_resolved: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Persons with one label."""

    name: str
    persons: int
    faces: int
    rates: tuple[GroupRates, ...]


@dataclass(frozen=True, slots=True)
class Differential:
    """The worst group against the best one at one threshold; None with fewer than two resolved groups.

    Attributes:
        threshold: Cosine.
        fmr_ratio: Highest false match rate over the lowest; None also where the lowest is 0.
        fmr_worst: Name of the group with the highest.
        fmr_best: Name of the group with the lowest.
        fnmr_ratio: The same for false non-match rates.
        fnmr_worst: Name of the group with the highest.
        fnmr_best: Name of the group with the lowest.
    """

    threshold: float
    fmr_ratio: float | None
    fmr_worst: str | None
    fmr_best: str | None
    fnmr_ratio: float | None
    fnmr_worst: str | None
    fnmr_best: str | None


@dataclass(frozen=True, slots=True)
class GroupsResult:
    """Rates by group.

    Attributes:
        column: Column that defines the groups.
        groups: In order of name.
        differentials: One per threshold.
        without_group: Number of persons without a label.
    """

    column: str
    groups: tuple[Group, ...]
    differentials: tuple[Differential, ...]
    without_group: int


def evaluate_groups(
    column: str,
    vectors: FloatArray,
    person: Indices,
    labels: Sequence[str | None],
    thresholds: Sequence[float],
    *,
    expected_trials: Indices | None = None,
) -> GroupsResult:
    """Return error rates by group from comparisons of every face with every other.

    A rate is resolved if at the common rate it has `RESOLVED_ERRORS` errors, and `MIN_GROUP_PERSONS` persons.

    Args:
        column: Column that defines the groups.
        vectors: (n, d) float32 unit vectors.
        person: (n,) index into `labels` of the person in each photo; non-decreasing.
        labels: (persons,) each person's group; None without one.
        thresholds: (t,) cosines.
        expected_trials: (persons,) genuine comparisons of each that were due; None for those that were made.

    Raises:
        InvalidInputError: Fewer than two groups have faces.
    """
    known = np.array([label is not None for label in labels])
    named = known[person]
    vectors, person = vectors[named], person[named]
    seen = np.bincount(person, minlength=len(labels))
    names = sorted({str(label) for label, faces in zip(labels, seen, strict=True) if faces})
    if len(names) < 2:
        raise InvalidInputError(
            f"'{column}' divides the persons with faces into {len(names)} groups; at least two are needed."
        )
    expected_trials = (seen * (seen - 1) // 2).astype(np.int64) if expected_trials is None else expected_trials
    limits = np.asarray(thresholds, np.float64)
    all_persons = count_accepted_by_person(vectors, person, limits, persons=len(labels))
    members = {name: np.array([label == name for label in labels]) for name in names}
    within = {
        name: count_accepted_by_person(
            vectors[is_member[person]], person[is_member[person]], limits, persons=len(labels)
        )
        for name, is_member in members.items()
    }
    common = _compute_common_rates(all_persons, within, expected_trials * known)
    groups = tuple(
        Group(
            name,
            int((seen[is_member] > 0).sum()),
            int(seen[is_member].sum()),
            tuple(
                _compute_group_rates(
                    index, float(limit), all_persons, within[name], is_member, expected_trials, common[index]
                )
                for index, limit in enumerate(limits)
            ),
        )
        for name, is_member in members.items()
    )
    differentials = tuple(_compute_differential(groups, index) for index in range(len(limits)))
    return GroupsResult(column, groups, differentials, without_group=int((~known).sum()))


def _compute_common_rates(
    all_persons: AcceptedCounts, within: dict[str, AcceptedCounts], expected_trials: Indices
) -> list[tuple[float, float]]:
    """Return, for each threshold, the false match rate within groups and the false non-match rate of all persons."""
    trials = sum(int(counts.impostor_trials.sum()) for counts in within.values())
    own = int(expected_trials.sum())
    rates = []
    for index in range(len(all_persons.genuine)):
        matches = sum(int(counts.impostor[index].sum()) for counts in within.values())
        missed = own - int(all_persons.genuine[index].sum())
        rates.append((matches / max(1, trials), missed / max(1, own)))
    return rates


def _compute_group_rates(
    threshold_index: int,
    threshold: float,
    all_persons: AcceptedCounts,
    within: AcceptedCounts,
    is_member: np.ndarray,
    expected_trials: Indices,
    common_rates: tuple[float, float],
) -> GroupRates:
    inside = within.impostor_trials[is_member]
    outside = all_persons.impostor_trials[is_member] - inside
    matches = within.impostor[threshold_index, is_member]
    own = expected_trials[is_member]
    missed = own - all_persons.genuine[threshold_index, is_member]
    return GroupRates(
        threshold=threshold,
        fmr=compute_clustered_rate(matches, inside, order=2) if inside.any() else None,
        fmr_across=compute_clustered_rate(all_persons.impostor[threshold_index, is_member] - matches, outside)
        if outside.any()
        else None,
        fnmr=compute_clustered_rate(missed, own) if own.any() else None,
        fmr_resolved=_is_resolved(common_rates[0], inside, pairs=2),
        fnmr_resolved=_is_resolved(common_rates[1], own, pairs=1),
    )


def _is_resolved(rate: float, trials: Indices, *, pairs: int) -> bool:
    enough = rate * float(trials.sum()) / pairs >= RESOLVED_ERRORS
    return bool(enough and (trials > 0).sum() >= MIN_GROUP_PERSONS)


def _compute_differential(groups: tuple[Group, ...], threshold_index: int) -> Differential:
    matches = {g.name: g.rates[threshold_index].fmr for g in groups if g.rates[threshold_index].fmr_resolved}
    misses = {g.name: g.rates[threshold_index].fnmr for g in groups if g.rates[threshold_index].fnmr_resolved}
    return Differential(
        groups[0].rates[threshold_index].threshold, *_compare_worst_to_best(matches), *_compare_worst_to_best(misses)
    )


def _compare_worst_to_best(rates: dict[str, Rate | None]) -> tuple[float | None, str | None, str | None]:
    values = {name: rate.value for name, rate in rates.items() if rate is not None}
    if len(values) < 2:
        return None, None, None
    worst, best = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    return values[worst] / values[best] if values[best] > 0 else None, worst, best
