"""Verification: are two photos of one person? On listed pairs, as LFW is reported, and on all pairs of a data set."""

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
from vultus.statistics.groups import GroupsResult, evaluate_groups
from vultus.statistics.intervals import (
    Mean,
    Rate,
    compute_clopper_pearson_rate,
    compute_clustered_rate,
    compute_mean,
    compute_wilson_rate,
)
from vultus.statistics.metrics import (
    RESOLVED_ERRORS,
    EqualErrorRate,
    Floats,
    KFoldAccuracy,
    RocCurve,
    ScoreHistogram,
    compute_auc,
    compute_equal_error,
    compute_expected_errors,
    compute_k_fold_accuracy,
    compute_roc_curve,
    count_scores,
    find_position_at_fmr,
    find_position_at_threshold,
    sample_curve,
)
from vultus.statistics.probability import fit_logistic_to_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.domain import Calibration
    from vultus.evaluation.datasets import DataSet, ListedPairs
    from vultus.evaluation.runner import PhotoVectors
    from vultus.statistics.metrics import Flags

LISTED_TARGET_FMRS = (1e-2, 1e-3, 1e-4, 1e-5)
ALL_TARGET_FMRS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
MAX_BINS, MIN_BINS = 160, 20
MAX_CLOSEST_PAIRS = 20


@dataclass(frozen=True, slots=True)
class VerificationPoint:
    """The error rates at the lowest threshold whose false match rate does not exceed a target.

    Attributes:
        target_fmr: Target false match rate.
        expected_errors: False matches it means in this data.
        resolved: Whether they suffice for the threshold to transfer to other data.
        threshold: Cosine; None where fewer than one false match is expected.
        fmr: Measured false match rate; None without a threshold.
        tar: True accept rate, each comparison weighted equally; None without a threshold or pairs of one person.
        tar_by_person: Mean over persons of each person's true accept rate, so that no person with hundreds of photos
            dominates the figure; None without a threshold, or on listed pairs.
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
    """Error rates of a threshold stored in the pack on this data; no true accept rate without pairs of one person."""

    stated_fmr: float
    threshold: float
    fmr: Rate
    tar: Rate | None


@dataclass(frozen=True, slots=True)
class PlotData:
    """Data of a report's plots.

    Attributes:
        curve: (threshold, false match rate, true accept rate), rates ascending; empty without pairs of one person.
        edges: Edges of the histogram's bins, cosine.
        genuine: Share of the comparisons of one person in each bin.
        impostor: Share of the comparisons of different persons in each bin.
    """

    curve: tuple[tuple[float, float, float], ...]
    edges: tuple[float, ...]
    genuine: tuple[float, ...]
    impostor: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ListedPairsResult:
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
    accuracy: KFoldAccuracy
    auc: float
    equal_error: EqualErrorRate
    points: tuple[VerificationPoint, ...]
    drawing: PlotData


@dataclass(frozen=True, slots=True)
class AllPairsResult:
    """Figures on all pairs; those of pairs of one person are None in a data set with one photo per person.

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
        logistic: Slope and intercept of the log-odds at equal priors (see `statistics.probability`); None with too few
            persons.
    """

    genuine: int
    genuine_not_compared: int
    impostor: int
    persons_with_pairs: int
    auc: float | None
    equal_error: EqualErrorRate | None
    points: tuple[VerificationPoint, ...]
    calibration: tuple[CalibrationCheck, ...]
    closest: tuple[tuple[str, str, float], ...]
    drawing: PlotData
    logistic: tuple[float, float] | None


def evaluate_listed_pairs(pairs: ListedPairs, described: PhotoVectors) -> ListedPairsResult:
    """Evaluate listed pairs. Their intervals are binomial: LFW's list hardly repeats persons.

    Raises:
        ValueError: A fold, or all pairs of one kind, could not be compared.
    """
    scores = compute_listed_scores(pairs, described)
    is_compared = ~np.isnan(scores)
    tally = count_scores(
        scores[pairs.same_person & is_compared],
        scores[~pairs.same_person & is_compared],
        genuine_missed=int((pairs.same_person & ~is_compared).sum()),
    )
    curve = compute_roc_curve(tally)

    def compute_rates(at: int) -> tuple[Rate, Rate, None]:
        fmr = compute_clopper_pearson_rate(int(curve.false_matches[at]), tally.impostor_trials)
        return fmr, compute_wilson_rate(int(curve.true_accepts[at]), tally.genuine_trials), None

    return ListedPairsResult(
        pairs=len(scores),
        not_compared=int((~is_compared).sum()),
        accuracy=compute_k_fold_accuracy(scores, pairs.same_person, pairs.fold),
        auc=compute_auc(tally),
        equal_error=compute_equal_error(curve),
        points=tuple(
            _build_point(curve, target, tally.impostor_trials, compute_rates) for target in LISTED_TARGET_FMRS
        ),
        drawing=build_plot_data(tally, curve),
    )


def compute_listed_scores(pairs: ListedPairs, described: PhotoVectors) -> Floats:
    """Return the (pairs,) cosines; NaN where a photo shows no face."""
    vectors = described.vectors
    scores: Floats = np.einsum("ij,ij->i", vectors[pairs.first], vectors[pairs.second]).astype(np.float64)
    scores[~(described.has_vector[pairs.first] & described.has_vector[pairs.second])] = np.nan
    return scores


def evaluate_all_pairs(
    data: DataSet, described: PhotoVectors, calibration: Calibration, *, left_out: PersonPairs = NO_PERSON_PAIRS
) -> AllPairsResult:
    """Compare every photo with every other. Intervals by the leave-one-person-out jackknife.

    Args:
        data: Photos and persons.
        described: Embeddings of the photos.
        calibration: Its thresholds are evaluated.
        left_out: Different persons who are not compared.

    Raises:
        ValueError: There is no pair of different persons.
    """
    found = described.has_vector
    vectors, person = described.vectors[found], data.person_indices[found]
    possible_pairs = data.photo_counts * (data.photo_counts - 1) // 2
    face_counts = np.bincount(person, minlength=len(possible_pairs))
    missed = int(possible_pairs.sum() - (face_counts * (face_counts - 1) // 2).sum())
    tally = count_pair_scores(vectors, person, genuine_missed=missed, left_out=left_out)
    has_genuine = tally.genuine_trials > 0
    # Without pairs of one person the curve has false match rates only; its true accept rates are not used.
    curve = compute_roc_curve(tally if has_genuine else replace(tally, genuine_missed=1))
    stored = [find_position_at_threshold(curve, threshold) for _, threshold in calibration.points]
    target_points = [find_position_at_fmr(curve, target, tally.impostor_trials) for target in ALL_TARGET_FMRS]
    positions = np.unique([*stored, *target_points])
    closest = find_position_at_fmr(curve, MAX_CLOSEST_PAIRS / tally.impostor_trials, tally.impostor_trials)
    accepted = count_accepted_by_person(
        vectors,
        person,
        curve.thresholds[positions],
        persons=len(possible_pairs),
        report_from=float(curve.thresholds[closest]),
        left_out=left_out,
    )
    row = {int(position): at for at, position in enumerate(positions)}

    def compute_rates(at: int) -> tuple[Rate, Rate | None, Mean | None]:
        return _compute_person_rates(accepted, row[at], possible_pairs)

    return AllPairsResult(
        genuine=tally.genuine_trials,
        genuine_not_compared=missed,
        impostor=tally.impostor_trials,
        persons_with_pairs=int((possible_pairs > 0).sum()),
        auc=compute_auc(tally) if has_genuine else None,
        equal_error=compute_equal_error(curve) if has_genuine else None,
        points=tuple(_build_point(curve, target, tally.impostor_trials, compute_rates) for target in ALL_TARGET_FMRS),
        calibration=tuple(
            CalibrationCheck(stated, threshold, *compute_rates(at)[:2])
            for (stated, threshold), at in zip(calibration.points, stored, strict=True)
        ),
        closest=_name_photos(data, found, accepted.closest_impostors),
        drawing=build_plot_data(tally, curve),
        logistic=fit_logistic_to_pairs(vectors, person, tally),
    )


def _name_photos(
    data: DataSet, found: Flags, pairs: tuple[tuple[int, int, float], ...]
) -> tuple[tuple[str, str, float], ...]:
    names = np.flatnonzero(found)
    return tuple((data.photos[names[first]], data.photos[names[second]], score) for first, second, score in pairs)


def evaluate_by_group(
    data: DataSet, described: PhotoVectors, calibration: Calibration, labels: dict[str, tuple[str | None, ...]]
) -> tuple[GroupsResult, ...]:
    """Compare every photo with every other, by group, at the pack's thresholds and that of the default decision.

    Args:
        data: Photos and persons.
        described: Embeddings of the photos.
        calibration: The pack's.
        labels: For each grouping the group of every person.

    Raises:
        InvalidInputError: A grouping has fewer than two groups with faces, or the pack has no thresholds.
    """
    if not labels:
        return ()
    if not calibration.points:
        raise InvalidInputError(
            "Error rates by group are reported at the pack's thresholds, and it has none yet: run it with --keep first."
        )
    thresholds = sorted(
        {*(limit for _, limit in calibration.points), calibration.get_threshold(calibration.default_fmr)}
    )
    possible_pairs = data.photo_counts * (data.photo_counts - 1) // 2
    vectors, person = described.vectors[described.has_vector], data.person_indices[described.has_vector]
    return tuple(
        evaluate_groups(column, vectors, person, groups, thresholds, expected_trials=possible_pairs)
        for column, groups in labels.items()
    )


def _compute_person_rates(
    accepted: AcceptedCounts, row: int, possible_pairs: np.ndarray
) -> tuple[Rate, Rate | None, Mean | None]:
    has_pairs = possible_pairs > 0
    own = accepted.genuine[row, has_pairs] / possible_pairs[has_pairs]
    return (
        compute_clustered_rate(accepted.impostor[row], accepted.impostor_trials, order=2),
        compute_clustered_rate(accepted.genuine[row], possible_pairs) if len(own) else None,
        compute_mean(own) if len(own) > 1 else None,
    )


def _build_point(
    curve: RocCurve,
    target: float,
    impostors: int,
    compute_rates: Callable[[int], tuple[Rate, Rate | None, Mean | None]],
) -> VerificationPoint:
    expected = compute_expected_errors(target, impostors)
    resolved = expected >= RESOLVED_ERRORS
    if expected < 1:
        return VerificationPoint(target, expected, resolved)
    at = find_position_at_fmr(curve, target, impostors)
    return VerificationPoint(target, expected, resolved, float(curve.thresholds[at]), *compute_rates(at))


def build_plot_data(tally: ScoreHistogram, curve: RocCurve) -> PlotData:
    """Downsample the curve and build the score histograms."""
    # Rice's rule, somewhat finer, for the smaller of the two kinds: fewer scores get wider bins.
    fewer = min(counts.sum() for counts in (tally.genuine, tally.impostor) if counts.any())
    edges = np.linspace(
        tally.scores[0], tally.rejecting_threshold, int(np.clip(3 * np.cbrt(fewer), MIN_BINS, MAX_BINS)) + 1
    )
    shares = [
        np.histogram(tally.scores, edges, weights=counts)[0] / max(1, counts.sum())
        for counts in (tally.genuine, tally.impostor)
    ]
    return PlotData(
        curve=tuple(sample_curve(curve, tally.impostor_trials)) if tally.genuine_trials else (),
        edges=tuple(map(float, edges)),
        genuine=tuple(map(float, shares[0])),
        impostor=tuple(map(float, shares[1])),
    )
