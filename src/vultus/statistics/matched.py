"""False match rates among people of one sex and one age band: matched impostors.

Two people drawn at random mostly differ in sex, age or origin, and a network tells them apart easily. Who is mistaken
for whom is decided among people who have these in common, so NIST's Face Recognition Technology Evaluation, part 3
(NISTIR 8280, 2019), compares impostors of one sex, age band and region of birth. Here there are four bands of adults,
and three of children, who are reported by themselves because networks tell them apart much worse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import InvalidInputError
from vultus.statistics.all_pairs import (
    NO_PERSON_PAIRS,
    AcceptedCounts,
    PersonPairs,
    count_accepted_by_person,
    count_pair_scores,
)
from vultus.statistics.intervals import Rate, compute_clopper_pearson_rate, compute_clustered_rate
from vultus.statistics.metrics import (
    RESOLVED_ERRORS,
    Indices,
    ScoreHistogram,
    compute_expected_errors,
    compute_roc_curve,
    find_position_at_fmr,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vultus.domain import FloatArray
    from vultus.statistics.metrics import Flags

CHILD_BANDS = ((0, 5), (6, 11), (12, 17))
ADULT_BANDS = ((18, 34), (35, 49), (50, 64), (65, 200))
"""First and last year of age."""

MIN_ADULT_AGE = ADULT_BANDS[0][0]

MATCHED_TARGET_FMRS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
MIN_GROUP_PAIRS = 2000
"""Minimum number of pairs for a group to count as the worst one."""

MAX_GROUP_RATIO = 10
"""Of the 95 % limit of any group's rate to a target rate: the threshold is raised until none is above."""

UNKNOWN_AGE = -1

NO_MATCHED_ADULTS = "No two photos show different adults of one sex and one age band (18 years or more)."


@dataclass(frozen=True, slots=True, eq=False)
class Demographics:
    """What is known of the person in each photo.

    Attributes:
        age: (n,) years; `UNKNOWN_AGE` without a label.
        sex: (n,) labels; None without one.
        race: (n,) labels; None without one.
    """

    age: Indices
    sex: tuple[str | None, ...]
    race: tuple[str | None, ...]

    def select_photos(self, chosen: Flags) -> Demographics:
        """Return the labels of some photos."""
        kept = np.flatnonzero(chosen)
        return Demographics(self.age[kept], *(tuple(labels[at] for at in kept) for labels in (self.sex, self.race)))


@dataclass(frozen=True, slots=True)
class MatchedPoint:
    """The lowest threshold whose false match rate among matched adults does not exceed a target.

    It is raised until no group's rate has a 95 % interval that ends above `MAX_GROUP_RATIO` times the target, of groups
    of at least `MIN_GROUP_PAIRS` pairs that resolve that many.

    Attributes:
        target_fmr: Target false match rate.
        expected_errors: False matches it means in this data.
        resolved: Whether they suffice for the threshold to transfer to other data.
        threshold: Cosine; None where fewer than one false match is expected.
    """

    target_fmr: float
    expected_errors: float
    resolved: bool
    threshold: float | None


@dataclass(frozen=True, slots=True)
class GroupFmr:
    """A group's false match rate at one threshold.

    Attributes:
        fmr: Among the group's persons.
        expected_errors: False matches that the rate of all matched adults would mean in the group.
        resolved: Whether they are at least `RESOLVED_ERRORS`.
    """

    fmr: Rate
    expected_errors: float
    resolved: bool


@dataclass(frozen=True, slots=True)
class MatchedGroup:
    """Persons of one sex, age band and race, or children of one age band.

    Attributes:
        name: Its labels.
        photos: With a face.
        pairs: Compared.
        rates: One per threshold.
    """

    name: str
    photos: int
    pairs: int
    rates: tuple[GroupFmr, ...]


@dataclass(frozen=True, slots=True)
class MatchedRates:
    """Matched adults at one threshold.

    Attributes:
        threshold: Cosine.
        fmr: False match rate of all matched pairs of adults.
        worst: Name of the group with the highest rate of those with `MIN_GROUP_PAIRS` pairs; None without such a group.
        worst_fmr: Its rate.
    """

    threshold: float
    fmr: Rate
    worst: str | None
    worst_fmr: GroupFmr | None


@dataclass(frozen=True, slots=True)
class MatchedImpostors:
    """False match rates among people of one sex and one age band.

    Attributes:
        adults: Photos of adults compared.
        pairs: Matched pairs of adults.
        points: Thresholds for target rates.
        rates: One per threshold, ascending: those asked for and those of `points`.
        groups: Adults by sex, age band and race, in order of name; `rates` in the order of thresholds.
        children: By age band, in order of age, pairs of one sex.
        without_label: Photos with a face but without age or sex: not compared.
        left_out: Pairs of persons not compared.
    """

    adults: int
    pairs: int
    points: tuple[MatchedPoint, ...]
    rates: tuple[MatchedRates, ...]
    groups: tuple[MatchedGroup, ...]
    children: tuple[MatchedGroup, ...]
    without_label: int
    left_out: int

    def get_rates(self, threshold: float) -> MatchedRates:
        """Return the rates at a threshold that was asked for."""
        return next(rates for rates in self.rates if rates.threshold == threshold)

    def find_worst_rate(self, threshold: float) -> float | None:
        """Return the highest rate of a group at a threshold that was asked for, None if no group resolves one.

        Of groups of at least `MIN_GROUP_PAIRS` pairs with at least `RESOLVED_ERRORS` false matches.
        """
        index = [rates.threshold for rates in self.rates].index(threshold)
        found = (group.rates[index].fmr for group in self.groups if group.pairs >= MIN_GROUP_PAIRS)
        return max((rate.value for rate in found if rate.hits >= RESOLVED_ERRORS), default=None)


@dataclass(frozen=True, slots=True)
class _Compared:
    """Matched impostors of some cells together."""

    photos: int
    trials: Indices
    """(persons,) comparisons in which the person took part."""
    accepted: Indices
    """(thresholds, persons) those that reach the threshold."""


def evaluate_matched_impostors(
    vectors: FloatArray,
    person: Indices,
    labels: Demographics,
    thresholds: Sequence[float],
    *,
    left_out: PersonPairs = NO_PERSON_PAIRS,
) -> MatchedImpostors:
    """Compare every two photos of different persons of one sex and one age band.

    Args:
        vectors: (n, d) float32 unit vectors.
        person: (n,) index of the person in each photo; non-decreasing.
        labels: Of the n photos.
        thresholds: (t,) cosines.
        left_out: Different persons who are not compared, such as one person under two names.

    Raises:
        InvalidInputError: There is no matched pair of adults.
    """
    adults = _split_cells(labels, ADULT_BANDS)
    tally = _merge_histograms(
        count_pair_scores(vectors[cell], person[cell], left_out=left_out) for cell in adults.values()
    )
    if tally.impostor_trials == 0:
        raise InvalidInputError(NO_MATCHED_ADULTS)
    cells = {
        f"{name} {race}": cell & np.array([label == race for label in labels.race])
        for name, cell in adults.items()
        for race in sorted({str(label) for label in labels.race if label is not None})
    }
    points = tuple(
        _build_points(tally, [count_pair_scores(vectors[c], person[c], left_out=left_out) for c in cells.values()])
    )
    limits = np.unique([*thresholds, *(point.threshold for point in points if point.threshold is not None)])

    def compare(cells: Iterable[Flags]) -> _Compared:
        return _compare_cells(vectors, person, list(cells), limits, left_out)

    everybody = compare(adults.values())
    common = [_compute_rate(everybody, at) for at in range(len(limits))]
    groups = {name: compare([cell]) for name, cell in cells.items()}
    by_band = {_format_band(band): compare(_split_cells(labels, (band,)).values()) for band in CHILD_BANDS}
    measured = tuple(_build_groups(groups, common))
    return MatchedImpostors(
        adults=everybody.photos,
        pairs=common[0].trials,
        points=points,
        rates=tuple(_find_worst(float(limit), common[at], measured, at) for at, limit in enumerate(limits)),
        groups=measured,
        children=tuple(_build_groups(by_band, common)),
        without_label=sum(
            sex is None or age == UNKNOWN_AGE for sex, age in zip(labels.sex, labels.age.tolist(), strict=True)
        ),
        left_out=len(left_out),
    )


def ensure_matched_adults(person: Indices, labels: Demographics) -> None:
    """Refuse labels without two different adults of one sex and one age band.

    Raises:
        InvalidInputError: There are none.
    """
    if not any(len(np.unique(person[cell])) > 1 for cell in _split_cells(labels, ADULT_BANDS).values()):
        raise InvalidInputError(NO_MATCHED_ADULTS)


def _split_cells(labels: Demographics, bands: Iterable[tuple[int, int]]) -> dict[str, Flags]:
    """Return the photos of each sex and age band by name; empty cells are left out."""
    sexes = sorted({sex for sex in labels.sex if sex is not None})
    of_sex = {sex: np.array([label == sex for label in labels.sex]) for sex in sexes}
    cells = {
        f"{sex} {_format_band(band)}": of_sex[sex] & (labels.age >= band[0]) & (labels.age <= band[1])
        for sex in sexes
        for band in bands
    }
    return {name: cell for name, cell in cells.items() if cell.any()}


def _format_band(band: tuple[int, int]) -> str:
    return f"{band[0]}+" if band == ADULT_BANDS[-1] else f"{band[0]}–{band[1]}"


def _merge_histograms(parts: Iterable[ScoreHistogram]) -> ScoreHistogram:
    """Return the impostor scores of all parts together."""
    found = list(parts)
    scores = np.unique(np.concatenate([np.zeros(0), *(part.scores for part in found)]))
    impostor = np.zeros(len(scores), np.int64)
    for part in found:
        impostor[np.searchsorted(scores, part.scores)] += part.impostor
    return ScoreHistogram(
        scores=scores,
        genuine=np.zeros(len(scores), np.int64),
        impostor=impostor,
        rejecting_threshold=max((part.rejecting_threshold for part in found), default=0.0),
    )


def _build_points(tally: ScoreHistogram, groups: Sequence[ScoreHistogram]) -> Iterable[MatchedPoint]:
    impostors = tally.impostor_trials
    curve = compute_roc_curve(replace(tally, genuine_missed=1))  # there are no pairs of one person to count
    for target in MATCHED_TARGET_FMRS:
        expected = compute_expected_errors(target, impostors)
        position = find_position_at_fmr(curve, target, impostors)
        threshold = None
        if expected >= 1:
            required = (_find_group_threshold(group, MAX_GROUP_RATIO * target) for group in groups)
            threshold = max(float(curve.thresholds[position]), *required, -1.0)
        yield MatchedPoint(target, expected, expected >= RESOLVED_ERRORS, threshold)


def _find_group_threshold(tally: ScoreHistogram, max_fmr: float) -> float:
    """Return the lowest threshold at which the 95 % interval of a group's rate ends at `max_fmr` or below.

    −1 for a group that is too small to resolve that rate, or to count at all.
    """
    trials = tally.impostor_trials
    if max_fmr >= 1 or trials < MIN_GROUP_PAIRS or compute_expected_errors(max_fmr, trials) < RESOLVED_ERRORS:
        return -1.0
    allowed = 0
    while compute_clopper_pearson_rate(allowed + 1, trials).high <= max_fmr:
        allowed += 1
    errors = np.cumsum(tally.impostor[::-1])[::-1]  # at a threshold of each score
    sufficient = np.flatnonzero(errors <= allowed)
    return float(tally.scores[sufficient[0]]) if len(sufficient) else float(tally.rejecting_threshold)


def _compare_cells(
    vectors: FloatArray, person: Indices, cells: Sequence[Flags], limits: np.ndarray, left_out: PersonPairs
) -> _Compared:
    persons = int(person[-1]) + 1
    trials, accepted = np.zeros(persons, np.int64), np.zeros((len(limits), persons), np.int64)
    for cell in cells:
        counts: AcceptedCounts = count_accepted_by_person(
            vectors[cell], person[cell], limits, persons=persons, left_out=left_out
        )
        trials += counts.impostor_trials
        accepted += counts.impostor
    return _Compared(sum(int(cell.sum()) for cell in cells), trials, accepted)


def _compute_rate(compared: _Compared, threshold_index: int) -> Rate:
    return compute_clustered_rate(compared.accepted[threshold_index], compared.trials, order=2)


def _build_groups(compared: dict[str, _Compared], common: Sequence[Rate]) -> Iterable[MatchedGroup]:
    """Yield the groups that have pairs."""
    for name, group in compared.items():
        pairs = int(group.trials.sum()) // 2
        if pairs:
            expected = [rate.value * pairs for rate in common]
            rates = tuple(
                GroupFmr(_compute_rate(group, at), errors, errors >= RESOLVED_ERRORS)
                for at, errors in enumerate(expected)
            )
            yield MatchedGroup(name, group.photos, pairs, rates)


def _find_worst(threshold: float, common: Rate, groups: Sequence[MatchedGroup], threshold_index: int) -> MatchedRates:
    large = [group for group in groups if group.pairs >= MIN_GROUP_PAIRS]
    worst = max(large, key=lambda group: group.rates[threshold_index].fmr.value, default=None)
    return MatchedRates(
        threshold, common, worst.name if worst else None, worst.rates[threshold_index] if worst else None
    )
