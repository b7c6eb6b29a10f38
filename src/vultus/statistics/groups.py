"""Error rates by group of persons: who is mistaken for others, and who is not recognised, more often than the rest?

Follows NIST's Face Recognition Technology Evaluation, part 3 (NISTIR 8280, 2019): the same threshold for everybody,
false matches among the persons of one group, and the ratio of the worst group's rate to the best one's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import InvalidInputError
from vultus.statistics.all_pairs import Accepted, accepted_by_person
from vultus.statistics.intervals import Rate, clustered
from vultus.statistics.metrics import RESOLVED_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import FloatArray
    from vultus.statistics.metrics import Indices

LEAST_PERSONS = 10
"""Persons a group's rate must rest on to count as resolved."""


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
        column: What the groups are by.
        groups: By name.
        differentials: One a threshold.
        without_group: Persons who have no label.
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
    wanted: Indices | None = None,
) -> GroupsResult:
    """Compare every face with every other, within groups and across them.

    A rate counts as resolved where all groups' common rate would mean at least `RESOLVED_ERRORS` errors in as many
    comparisons, and at least `LEAST_PERSONS` persons take part in them.

    Args:
        column: What the groups are by.
        vectors: (n, d) float32 unit vectors.
        person: (n,) whom each shows, a position in `labels`; never falls.
        labels: (persons,) each person's group; None for none.
        thresholds: (t,) cosines.
        wanted: (persons,) comparisons of each person with themselves that should have been made; those that could.

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
    wanted = (seen * (seen - 1) // 2).astype(np.int64) if wanted is None else wanted
    limits = np.asarray(thresholds, np.float64)
    everybody = accepted_by_person(vectors, person, limits, persons=len(labels))
    members = {name: np.array([label == name for label in labels]) for name in names}
    within = {
        name: accepted_by_person(vectors[mine[person]], person[mine[person]], limits, persons=len(labels))
        for name, mine in members.items()
    }
    common = _common_rates(everybody, within, wanted * known)
    groups = tuple(
        Group(
            name,
            int((seen[mine] > 0).sum()),
            int(seen[mine].sum()),
            tuple(
                _rates(at, float(limit), everybody, within[name], mine, wanted, common[at])
                for at, limit in enumerate(limits)
            ),
        )
        for name, mine in members.items()
    )
    differentials = tuple(_differential(groups, at) for at in range(len(limits)))
    return GroupsResult(column, groups, differentials, without_group=int((~known).sum()))


def _common_rates(everybody: Accepted, within: dict[str, Accepted], wanted: Indices) -> list[tuple[float, float]]:
    """Return, for each threshold, the false match rate within groups and the false non-match rate of all persons."""
    trials = sum(int(one.impostor_trials.sum()) for one in within.values())
    own = int(wanted.sum())
    rates = []
    for at in range(len(everybody.genuine)):
        matches = sum(int(one.impostor[at].sum()) for one in within.values())
        missed = own - int(everybody.genuine[at].sum())
        rates.append((matches / max(1, trials), missed / max(1, own)))
    return rates


def _rates(
    at: int,
    threshold: float,
    everybody: Accepted,
    within: Accepted,
    mine: np.ndarray,
    wanted: Indices,
    common: tuple[float, float],
) -> GroupRates:
    inside = within.impostor_trials[mine]
    outside = everybody.impostor_trials[mine] - inside
    matches = within.impostor[at, mine]
    own = wanted[mine]
    missed = own - everybody.genuine[at, mine]
    return GroupRates(
        threshold=threshold,
        fmr=clustered(matches, inside, order=2) if inside.any() else None,
        fmr_across=clustered(everybody.impostor[at, mine] - matches, outside) if outside.any() else None,
        fnmr=clustered(missed, own) if own.any() else None,
        fmr_resolved=_resolved(common[0], inside, pairs=2),
        fnmr_resolved=_resolved(common[1], own, pairs=1),
    )


def _resolved(rate: float, trials: Indices, *, pairs: int) -> bool:
    enough = rate * float(trials.sum()) / pairs >= RESOLVED_ERRORS
    return bool(enough and (trials > 0).sum() >= LEAST_PERSONS)


def _differential(groups: tuple[Group, ...], at: int) -> Differential:
    matches = {g.name: g.rates[at].fmr for g in groups if g.rates[at].fmr_resolved}
    misses = {g.name: g.rates[at].fnmr for g in groups if g.rates[at].fnmr_resolved}
    return Differential(groups[0].rates[at].threshold, *_worst_to_best(matches), *_worst_to_best(misses))


def _worst_to_best(rates: dict[str, Rate | None]) -> tuple[float | None, str | None, str | None]:
    values = {name: rate.value for name, rate in rates.items() if rate is not None}
    if len(values) < 2:
        return None, None, None
    worst, best = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    return values[worst] / values[best] if values[best] > 0 else None, worst, best
