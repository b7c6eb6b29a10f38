"""Error rates of comparisons and of searches, from counts of scores.

Terms follow ISO/IEC 19795-1:2021 and NIST's Face Recognition Technology Evaluation (FRTE):

- A comparison is accepted at a threshold when its score reaches it (score >= threshold).
- FMR, false match rate: accepted share of the completed comparisons of different persons.
- TAR, true accept rate: accepted share of all comparisons of one person; those that could not be made because no face
  was found count as rejections. 1 − TAR is the false non-match rate including failures to acquire.
- FPIR, false positive identification rate, and FNIR, false negative identification rate, of searches: the same
  arithmetic on the best score of every search (see `vultus.evaluation.identification`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vultus.statistics.intervals import Mean, Rate, compute_mean, compute_wilson_rate

if TYPE_CHECKING:
    from collections.abc import Iterator


Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]

RESOLVED_ERRORS = 10
"""Expected false matches from which a false match rate counts as resolved: its interval is then about ± 60 %."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreHistogram:
    """How often each score occurred.

    Attributes:
        scores: (k,) distinct scores, ascending; for binned scores the bins' lower edges.
        genuine: (k,) comparisons of one person with that score.
        impostor: (k,) comparisons of different persons with that score.
        rejecting_threshold: The lowest threshold that no score reaches.
        genuine_missed: Comparisons of one person that could not be made: rejected at every threshold.
        impostor_missed: Trials of different persons that could not be made but count: rejected at every threshold.
    """

    scores: Floats
    genuine: Counts
    impostor: Counts
    rejecting_threshold: float
    genuine_missed: int = 0
    impostor_missed: int = 0

    @property
    def genuine_trials(self) -> int:
        """Comparisons of one person, including those that could not be made."""
        return int(self.genuine.sum()) + self.genuine_missed

    @property
    def impostor_trials(self) -> int:
        """Trials of different persons that count."""
        return int(self.impostor.sum()) + self.impostor_missed


@dataclass(frozen=True, slots=True, eq=False)
class RocCurve:
    """The error rates at every threshold at which they change.

    Attributes:
        thresholds: (k + 1,) ascending; the last accepts nothing.
        false_matches: (k + 1,) accepted comparisons of different persons, non-increasing.
        true_accepts: (k + 1,) accepted comparisons of one person, non-increasing.
        fmr: (k + 1,) false match rate.
        tar: (k + 1,) true accept rate.
    """

    thresholds: Floats
    false_matches: Counts
    true_accepts: Counts
    fmr: Floats
    tar: Floats


@dataclass(frozen=True, slots=True)
class EqualErrorRate:
    """The point where false match rate and false non-match rate are equal."""

    rate: float
    threshold: float


@dataclass(frozen=True, slots=True)
class KFoldAccuracy:
    """Accuracy by cross-validation: each fold evaluated at the threshold that was best on the others.

    Attributes:
        accuracy: Mean over the folds.
        pooled: All folds together, with Wilson's interval.
        folds: Accuracy of each fold.
        thresholds: Threshold at which each fold was evaluated.
    """

    accuracy: Mean
    pooled: Rate
    folds: tuple[float, ...]
    thresholds: tuple[float, ...]


def count_scores(
    genuine: NDArray[Any], impostor: NDArray[Any], *, genuine_missed: int = 0, impostor_missed: int = 0
) -> ScoreHistogram:
    """Return the histogram of exact scores.

    Args:
        genuine: (g,) scores of comparisons of one person.
        impostor: (i,) scores of comparisons of different persons.
        genuine_missed: As in `ScoreHistogram`.
        impostor_missed: As in `ScoreHistogram`.
    """
    both = np.concatenate((genuine, impostor)).astype(np.float64)
    scores, position = np.unique(both, return_inverse=True)
    split = len(genuine)
    return ScoreHistogram(
        scores=scores,
        genuine=np.bincount(position[:split], minlength=len(scores)).astype(np.int64),
        impostor=np.bincount(position[split:], minlength=len(scores)).astype(np.int64),
        rejecting_threshold=float(np.nextafter(scores[-1], np.inf)) if len(scores) else 0.0,
        genuine_missed=genuine_missed,
        impostor_missed=impostor_missed,
    )


def compute_roc_curve(histogram: ScoreHistogram) -> RocCurve:
    """Return the receiver operating characteristic.

    Raises:
        ValueError: There is no trial of one person, or none of different persons.
    """
    if histogram.genuine_trials == 0 or histogram.impostor_trials == 0:
        raise ValueError("error rates need comparisons of one person and of different persons")
    false_matches, true_accepts = _count_reaching(histogram.impostor), _count_reaching(histogram.genuine)
    return RocCurve(
        thresholds=np.append(histogram.scores, histogram.rejecting_threshold),
        false_matches=false_matches,
        true_accepts=true_accepts,
        fmr=false_matches / histogram.impostor_trials,
        tar=true_accepts / histogram.genuine_trials,
    )


def _count_reaching(counts: Counts) -> Counts:
    """Return how many scores reach each threshold, then 0 for the rejecting one: (k,) to (k + 1,)."""
    return np.append(np.cumsum(counts[::-1])[::-1], 0)


def find_position_at_fmr(curve: RocCurve, target: float, impostors: int) -> int:
    """Return the position in the curve of the lowest threshold whose false match rate does not exceed `target`.

    Args:
        curve: The error rates.
        target: False match rate, 0..1.
        impostors: Trials of different persons behind the curve.
    """
    # A product such as 0.07 * 100 must allow 7 errors although it is 7.000000000000001 or 6.999999999999999.
    allowed = math.floor(target * impostors * (1 + 1e-12))
    return int(np.searchsorted(-curve.false_matches, -allowed, side="left"))


def find_position_at_threshold(curve: RocCurve, threshold: float) -> int:
    """Return the position in the curve whose decisions are those of `threshold`."""
    return min(int(np.searchsorted(curve.thresholds, threshold, side="left")), len(curve.thresholds) - 1)


def compute_expected_errors(target: float, impostors: int) -> float:
    """Return the expected false matches at a rate; fewer than `RESOLVED_ERRORS` do not resolve it."""
    return target * impostors


def compute_auc(histogram: ScoreHistogram) -> float:
    """Return the area under the receiver operating characteristic of the comparisons that were made.

    Equal to the Mann-Whitney statistic: the probability that a comparison of one person scores higher than one of
    different persons, ties counting half (Hanley and McNeil 1982).
    """
    above = _count_reaching(histogram.genuine)[1:]
    wins = histogram.impostor @ (above + histogram.genuine / 2)
    return float(wins / (histogram.genuine.sum() * histogram.impostor.sum()))


def compute_equal_error(curve: RocCurve) -> EqualErrorRate:
    """Return the equal error rate, interpolated linearly between the two thresholds around it."""
    excess = curve.fmr - (1 - curve.tar)
    # Non-increasing; −1 at the end, where nothing is accepted; negative at the start only if impostors were missed.
    last = max(0, int((excess >= 0).sum()) - 1)
    after = min(last + 1, len(excess) - 1)
    fall = excess[last] - excess[after]
    share = float(np.clip(excess[last] / fall, 0, 1)) if fall > 0 else 0.0
    rate = curve.fmr[last] + share * (curve.fmr[after] - curve.fmr[last])
    threshold = curve.thresholds[last] + share * (curve.thresholds[after] - curve.thresholds[last])
    return EqualErrorRate(float(rate), float(threshold))


def find_best_threshold(scores: Floats, same: Flags) -> float:
    """Return the threshold that classifies most pairs correctly, in the middle of the gap between two scores.

    Of several equally good gaps the middle one is taken.

    Args:
        scores: (n,) similarity of each pair.
        same: (n,) whether the pair shows one person.
    """
    histogram = count_scores(scores[same], scores[~same])
    errors = _count_reaching(histogram.impostor) - _count_reaching(histogram.genuine)
    best = np.flatnonzero(errors == errors.min())
    position = int(best[len(best) // 2])
    ends = np.append(histogram.scores, histogram.rejecting_threshold)
    below = ends[max(0, position - 1)]
    middle = (below + ends[position]) / 2
    # Between adjacent floats there is no middle, and the lower one would accept its own score.
    return float(middle if middle > below else ends[position])


def compute_k_fold_accuracy(scores: Floats, same: Flags, fold: Indices) -> KFoldAccuracy:
    """Return LFW's accuracy: each fold evaluated at the threshold chosen on all others (Huang et al. 2007).

    Args:
        scores: (n,) similarity of each pair; NaN if it could not be compared, which counts as an error for any pair
            and is ignored in choosing thresholds.
        same: (n,) whether the pair shows one person.
        fold: (n,) fold of each pair; at least two folds.
    """
    made = ~np.isnan(scores)
    thresholds, accuracies, right = [], [], 0
    for part in np.unique(fold):
        held_out, rest = fold == part, (fold != part) & made
        threshold = find_best_threshold(scores[rest], same[rest])
        correct = made[held_out] & ((scores[held_out] >= threshold) == same[held_out])
        thresholds.append(threshold)
        accuracies.append(float(correct.mean()))
        right += int(correct.sum())
    return KFoldAccuracy(
        compute_mean(np.array(accuracies)),
        compute_wilson_rate(right, len(scores)),
        tuple(accuracies),
        tuple(thresholds),
    )


def sample_curve(curve: RocCurve, impostors: int, *, points_a_decade: int = 24) -> Iterator[tuple[float, float, float]]:
    """Yield (threshold, fmr, tar) at log-spaced rates from 1 / impostors to 1, ascending, for charts."""
    decades = math.log10(max(impostors, 10))
    seen = -1
    for target in np.logspace(-decades, 0, max(2, round(decades * points_a_decade))):
        position = find_position_at_fmr(curve, float(target), impostors)
        if position != seen:
            yield float(curve.thresholds[position]), float(curve.fmr[position]), float(curve.tar[position])
            seen = position
