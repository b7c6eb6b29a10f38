"""Verification: are two photos of one person? On listed pairs, as LFW is reported, and on all pairs of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain.decision import DEFAULT_FMR
from vultus.errors import InvalidInputError
from vultus.statistics.all_pairs import Accepted, accepted_by_person, tally_pairs
from vultus.statistics.groups import GroupsResult, evaluate_groups
from vultus.statistics.intervals import Mean, Rate, clopper_pearson, clustered, mean_of, wilson
from vultus.statistics.metrics import (
    RESOLVED_ERRORS,
    Curve,
    EqualError,
    Floats,
    KFold,
    Tally,
    at_fmr,
    at_threshold,
    auc,
    curve_of,
    equal_error,
    expected_errors,
    k_fold_accuracy,
    sample,
    tally_of,
)
from vultus.statistics.probability import logistic_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.domain import Calibration
    from vultus.evaluation.datasets import DataSet, Pairs
    from vultus.evaluation.runner import Described

LISTED_RATES = (1e-2, 1e-3, 1e-4, 1e-5)
ALL_RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
MOST_BINS, LEAST_BINS = 160, 20
MOST_ALIKE = 20


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The error rates at the lowest threshold whose false match rate does not exceed a target.

    Attributes:
        target_fmr: Wanted false match rate.
        expected_errors: False matches it means in this data.
        resolved: Whether they are enough for the threshold to be used elsewhere.
        threshold: Cosine; None where fewer than one false match is expected.
        fmr: Reached false match rate; None without a threshold.
        tar: True accept rate, all comparisons of one person counted alike; None without a threshold.
        tar_by_person: Mean over persons of each person's true accept rate, so that nobody with hundreds of photos
            decides the figure; None without a threshold, or on listed pairs.
    """

    target_fmr: float
    expected_errors: float
    resolved: bool
    threshold: float | None = None
    fmr: Rate | None = None
    tar: Rate | None = None
    tar_by_person: Mean | None = None


@dataclass(frozen=True, slots=True)
class CalibrationCheck:
    """What a threshold stored in the pack does on this data."""

    stated_fmr: float
    threshold: float
    fmr: Rate
    tar: Rate


@dataclass(frozen=True, slots=True)
class Drawing:
    """Numbers to draw.

    Attributes:
        curve: (threshold, false match rate, true accept rate), rates rising.
        edges: Edges of the histogram's bins, cosine.
        genuine: Share of the comparisons of one person in each bin.
        impostor: Share of the comparisons of different persons in each bin.
    """

    curve: tuple[tuple[float, float, float], ...]
    edges: tuple[float, ...]
    genuine: tuple[float, ...]
    impostor: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ListedResult:
    """Figures on listed pairs.

    Attributes:
        pairs: Listed.
        not_compared: Those in which a photo shows no face: wrong answers in the accuracy, rejections in the true accept
            rate, and left out of the false match rate.
        accuracy: By cross-validation.
        auc: Area under the receiver operating characteristic.
        equal_error: Equal error rate.
        points: Operating points.
        drawing: Curve and histogram.
    """

    pairs: int
    not_compared: int
    accuracy: KFold
    auc: float
    equal_error: EqualError
    points: tuple[OperatingPoint, ...]
    drawing: Drawing


@dataclass(frozen=True, slots=True)
class AllResult:
    """Figures on all pairs.

    Attributes:
        genuine: Pairs of photos of one person, those without a face included.
        genuine_not_compared: Those in which a photo shows no face.
        impostor: Compared pairs of photos of different persons.
        persons_with_pairs: Persons with at least two photos.
        auc: Area under the receiver operating characteristic.
        equal_error: Equal error rate.
        points: Operating points.
        calibration: The pack's own thresholds on this data.
        closest: Pairs of different persons with the highest cosine: often the same person under two names.
        drawing: Curve and histogram.
        logistic: Slope and intercept of the log-odds at equal priors (see `probability`); None with too few persons.
    """

    genuine: int
    genuine_not_compared: int
    impostor: int
    persons_with_pairs: int
    auc: float
    equal_error: EqualError
    points: tuple[OperatingPoint, ...]
    calibration: tuple[CalibrationCheck, ...]
    closest: tuple[tuple[str, str, float], ...]
    drawing: Drawing
    logistic: tuple[float, float] | None


def evaluate_listed(pairs: Pairs, described: Described) -> ListedResult:
    """Judge listed pairs. Their intervals are binomial: LFW's list hardly repeats persons.

    Raises:
        ValueError: A fold, or all pairs of one kind, could not be compared.
    """
    scores = listed_scores(pairs, described)
    made = ~np.isnan(scores)
    tally = tally_of(
        scores[pairs.same & made], scores[~pairs.same & made], genuine_missed=int((pairs.same & ~made).sum())
    )
    curve = curve_of(tally)

    def rates(at: int) -> tuple[Rate, Rate, None]:
        fmr = clopper_pearson(int(curve.false_matches[at]), tally.impostor_trials)
        return fmr, wilson(int(curve.true_accepts[at]), tally.genuine_trials), None

    return ListedResult(
        pairs=len(scores),
        not_compared=int((~made).sum()),
        accuracy=k_fold_accuracy(scores, pairs.same, pairs.fold),
        auc=auc(tally),
        equal_error=equal_error(curve),
        points=tuple(_point(curve, target, tally.impostor_trials, rates) for target in LISTED_RATES),
        drawing=draw(tally, curve),
    )


def listed_scores(pairs: Pairs, described: Described) -> Floats:
    """Return the (pairs,) cosines; NaN where a photo shows no face."""
    vectors = described.vectors
    scores: Floats = np.einsum("ij,ij->i", vectors[pairs.first], vectors[pairs.second]).astype(np.float64)
    scores[~(described.found[pairs.first] & described.found[pairs.second])] = np.nan
    return scores


def evaluate_all(data: DataSet, described: Described, calibration: Calibration) -> AllResult:
    """Compare every photo with every other. Intervals come from leaving out one person at a time.

    Raises:
        ValueError: There is no pair of one person, or none of different persons.
    """
    found = described.found
    vectors, person = described.vectors[found], data.person[found]
    wanted = data.counts * (data.counts - 1) // 2
    seen = np.bincount(person, minlength=len(wanted))
    missed = int(wanted.sum() - (seen * (seen - 1) // 2).sum())
    tally = tally_pairs(vectors, person, genuine_missed=missed)
    curve = curve_of(tally)
    stored = [at_threshold(curve, threshold) for _, threshold in calibration.points]
    aims = [at_fmr(curve, target, tally.impostor_trials) for target in ALL_RATES]
    places = np.unique([*stored, *aims])
    name_from = curve.thresholds[at_fmr(curve, MOST_ALIKE / tally.impostor_trials, tally.impostor_trials)]
    accepted = accepted_by_person(
        vectors, person, curve.thresholds[places], persons=len(wanted), name_from=float(name_from)
    )
    row = {int(place): at for at, place in enumerate(places)}

    def rates(at: int) -> tuple[Rate, Rate, Mean | None]:
        return _by_person(accepted, row[at], wanted)

    names = np.flatnonzero(found)
    return AllResult(
        genuine=tally.genuine_trials,
        genuine_not_compared=missed,
        impostor=tally.impostor_trials,
        persons_with_pairs=int((wanted > 0).sum()),
        auc=auc(tally),
        equal_error=equal_error(curve),
        points=tuple(_point(curve, target, tally.impostor_trials, rates) for target in ALL_RATES),
        calibration=tuple(
            CalibrationCheck(stated, threshold, *rates(at)[:2])
            for (stated, threshold), at in zip(calibration.points, stored, strict=True)
        ),
        closest=tuple(
            (data.photos[names[one]], data.photos[names[two]], score) for one, two, score in accepted.closest
        ),
        drawing=draw(tally, curve),
        logistic=logistic_of(vectors, person, tally),
    )


def by_groups(
    data: DataSet, described: Described, calibration: Calibration, labels: dict[str, tuple[str | None, ...]]
) -> tuple[GroupsResult, ...]:
    """Compare every photo with every other, by group, at the pack's thresholds and that of the default decision.

    Args:
        data: Which photos.
        described: Their vectors.
        calibration: The pack's.
        labels: For each division the group of every person.

    Raises:
        InvalidInputError: A division has fewer than two groups with faces, or nobody measured thresholds for the pack.
    """
    if not labels:
        return ()
    if not calibration.points:
        raise InvalidInputError(
            "Error rates by group are told at the pack's thresholds, and it has none yet: run it with --keep first."
        )
    limits = sorted({*(limit for _, limit in calibration.points), calibration.threshold_at(DEFAULT_FMR)})
    wanted = data.counts * (data.counts - 1) // 2
    vectors, person = described.vectors[described.found], data.person[described.found]
    return tuple(
        evaluate_groups(column, vectors, person, groups, limits, wanted=wanted) for column, groups in labels.items()
    )


def _by_person(accepted: Accepted, row: int, wanted: np.ndarray) -> tuple[Rate, Rate, Mean | None]:
    several = wanted > 0
    own = accepted.genuine[row, several] / wanted[several]
    return (
        clustered(accepted.impostor[row], accepted.impostor_trials, order=2),
        clustered(accepted.genuine[row], wanted),
        mean_of(own) if len(own) > 1 else None,
    )


def _point(
    curve: Curve, target: float, impostors: int, rates: Callable[[int], tuple[Rate, Rate, Mean | None]]
) -> OperatingPoint:
    expected = expected_errors(target, impostors)
    resolved = expected >= RESOLVED_ERRORS
    if expected < 1:
        return OperatingPoint(target, expected, resolved)
    at = at_fmr(curve, target, impostors)
    return OperatingPoint(target, expected, resolved, float(curve.thresholds[at]), *rates(at))


def draw(tally: Tally, curve: Curve) -> Drawing:
    """Thin a curve out and gather its scores in few bins."""
    # Bins as Rice's rule grows them, somewhat finer, for the smaller of the two kinds: fewer scores get wider bins.
    fewer = min(tally.genuine.sum(), tally.impostor.sum())
    edges = np.linspace(tally.scores[0], tally.beyond, int(np.clip(3 * np.cbrt(fewer), LEAST_BINS, MOST_BINS)) + 1)
    shares = [
        np.histogram(tally.scores, edges, weights=counts)[0] / max(1, counts.sum())
        for counts in (tally.genuine, tally.impostor)
    ]
    return Drawing(
        curve=tuple(sample(curve, tally.impostor_trials)),
        edges=tuple(map(float, edges)),
        genuine=tuple(map(float, shares[0])),
        impostor=tuple(map(float, shares[1])),
    )
