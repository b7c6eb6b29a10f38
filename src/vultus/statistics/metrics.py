"""Error rates of comparisons and of searches, from counts of scores.

Terms follow ISO/IEC 19795-1:2021 and NIST's Face Recognition Technology Evaluation (FRTE):

- A comparison is accepted at a threshold when its score reaches it (score >= threshold).
- FMR, false match rate: accepted share of the completed comparisons of different persons.
- TAR, true accept rate: accepted share of all comparisons of one person, those that could not be made because no face
  was found included as rejections. 1 − TAR is the false non-match rate with failures to acquire counted in.
- FPIR, false positive identification rate, and FNIR, false negative identification rate, of searches: the same
  arithmetic on the best score of every search (see `identification`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vultus.statistics.intervals import Mean, Rate, mean_of, wilson

if TYPE_CHECKING:
    from collections.abc import Iterator


Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]

RESOLVED_ERRORS = 10
"""Expected false matches from which on a false match rate counts as resolved: its interval is then about ± 60 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """How often each score occurred.

    Attributes:
        scores: (k,) distinct scores, rising; of a histogram the bins' lower edges.
        genuine: (k,) comparisons of one person with that score.
        impostor: (k,) comparisons of different persons with that score.
        beyond: The lowest threshold that no score reaches.
        genuine_missed: Comparisons of one person that could not be made: rejected at every threshold.
        impostor_missed: Trials of different persons that could not be made but count: rejected at every threshold.
    """

    scores: Floats
    genuine: Counts
    impostor: Counts
    beyond: float
    genuine_missed: int = 0
    impostor_missed: int = 0

    @property
    def genuine_trials(self) -> int:
        """Comparisons of one person, those that could not be made included."""
        return int(self.genuine.sum()) + self.genuine_missed

    @property
    def impostor_trials(self) -> int:
        """Trials of different persons that count."""
        return int(self.impostor.sum()) + self.impostor_missed


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The error rates at every threshold that makes a difference.

    Attributes:
        thresholds: (k + 1,) rising; the last accepts nothing.
        false_matches: (k + 1,) accepted comparisons of different persons, never rising.
        true_accepts: (k + 1,) accepted comparisons of one person, never rising.
        fmr: (k + 1,) false match rate.
        tar: (k + 1,) true accept rate.
    """

    thresholds: Floats
    false_matches: Counts
    true_accepts: Counts
    fmr: Floats
    tar: Floats


@dataclass(frozen=True, slots=True)
class EqualError:
    """Where false match rate and false non-match rate are equal."""

    rate: float
    threshold: float


@dataclass(frozen=True, slots=True)
class KFold:
    """Accuracy by cross-validation: each fold judged with the threshold that was best on the others.

    Attributes:
        accuracy: Mean over the folds.
        pooled: All folds together, with Wilson's interval.
        folds: Accuracy of each fold.
        thresholds: The threshold each fold was judged with.
    """

    accuracy: Mean
    pooled: Rate
    folds: tuple[float, ...]
    thresholds: tuple[float, ...]


def tally_of(
    genuine: NDArray[Any], impostor: NDArray[Any], *, genuine_missed: int = 0, impostor_missed: int = 0
) -> Tally:
    """Count scores exactly.

    Args:
        genuine: (g,) scores of comparisons of one person.
        impostor: (i,) scores of comparisons of different persons.
        genuine_missed: As in `Tally`.
        impostor_missed: As in `Tally`.
    """
    both = np.concatenate((genuine, impostor)).astype(np.float64)
    scores, position = np.unique(both, return_inverse=True)
    split = len(genuine)
    return Tally(
        scores=scores,
        genuine=np.bincount(position[:split], minlength=len(scores)).astype(np.int64),
        impostor=np.bincount(position[split:], minlength=len(scores)).astype(np.int64),
        beyond=float(np.nextafter(scores[-1], np.inf)) if len(scores) else 0.0,
        genuine_missed=genuine_missed,
        impostor_missed=impostor_missed,
    )


def curve_of(tally: Tally) -> Curve:
    """Return the receiver operating characteristic, at every threshold.

    Raises:
        ValueError: There is no trial of one person, or none of different persons.
    """
    if tally.genuine_trials == 0 or tally.impostor_trials == 0:
        raise ValueError("error rates need comparisons of one person and of different persons")
    false_matches, true_accepts = _reaching(tally.impostor), _reaching(tally.genuine)
    return Curve(
        thresholds=np.append(tally.scores, tally.beyond),
        false_matches=false_matches,
        true_accepts=true_accepts,
        fmr=false_matches / tally.impostor_trials,
        tar=true_accepts / tally.genuine_trials,
    )


def _reaching(counts: Counts) -> Counts:
    """Return how many scores reach each threshold, and 0 for the one beyond all: (k,) to (k + 1,)."""
    return np.append(np.cumsum(counts[::-1])[::-1], 0)


def at_fmr(curve: Curve, target: float, impostors: int) -> int:
    """Return the position in the curve of the lowest threshold whose false match rate does not exceed `target`.

    Args:
        curve: The error rates.
        target: False match rate, 0..1.
        impostors: Trials of different persons behind the curve.
    """
    # A product such as 0.07 * 100 must allow 7 errors although it is 7.000000000000001 or 6.999999999999999.
    allowed = math.floor(target * impostors * (1 + 1e-12))
    return int(np.searchsorted(-curve.false_matches, -allowed, side="left"))


def at_threshold(curve: Curve, threshold: float) -> int:
    """Return the position in the curve whose decisions are those of `threshold`."""
    return min(int(np.searchsorted(curve.thresholds, threshold, side="left")), len(curve.thresholds) - 1)


def expected_errors(target: float, impostors: int) -> float:
    """Return how many false matches a rate means; fewer than `RESOLVED_ERRORS` resolve nothing."""
    return target * impostors


def auc(tally: Tally) -> float:
    """Return the area under the receiver operating characteristic of the comparisons that were made.

    Equal to the Mann-Whitney statistic: the chance that a comparison of one person scores higher than one of different
    persons, ties counting half (Hanley and McNeil 1982).
    """
    above = _reaching(tally.genuine)[1:]
    wins = tally.impostor @ (above + tally.genuine / 2)
    return float(wins / (tally.genuine.sum() * tally.impostor.sum()))


def equal_error(curve: Curve) -> EqualError:
    """Return the equal error rate, on a straight line between the two thresholds around it."""
    excess = curve.fmr - (1 - curve.tar)
    # Never rises and ends at −1, where nothing is accepted; starts below 0 only if impostors went uncompared.
    last = max(0, int((excess >= 0).sum()) - 1)
    after = min(last + 1, len(excess) - 1)
    fall = excess[last] - excess[after]
    share = float(np.clip(excess[last] / fall, 0, 1)) if fall > 0 else 0.0
    rate = curve.fmr[last] + share * (curve.fmr[after] - curve.fmr[last])
    threshold = curve.thresholds[last] + share * (curve.thresholds[after] - curve.thresholds[last])
    return EqualError(float(rate), float(threshold))


def best_threshold(scores: Floats, same: Flags) -> float:
    """Return the threshold that decides most pairs rightly, in the middle of the gap between two scores.

    Where several gaps are equally good, the middle one is taken.
    """
    tally = tally_of(scores[same], scores[~same])
    wrong = _reaching(tally.impostor) - _reaching(tally.genuine)
    best = np.flatnonzero(wrong == wrong.min())
    at = int(best[len(best) // 2])
    ends = np.append(tally.scores, tally.beyond)
    below = ends[max(0, at - 1)]
    middle = (below + ends[at]) / 2
    # Between neighbouring floats there is no middle, and the lower one would let its own score through.
    return float(middle if middle > below else ends[at])


def k_fold_accuracy(scores: Floats, same: Flags, fold: Indices) -> KFold:
    """Return LFW's accuracy: each fold judged with the threshold chosen on all others (Huang et al. 2007).

    Args:
        scores: (n,) similarity of each pair; NaN where it could not be compared, which is a wrong answer whatever the
            pair and takes no part in choosing thresholds.
        same: (n,) whether the pair shows one person.
        fold: (n,) part the pair belongs to; at least two parts.
    """
    made = ~np.isnan(scores)
    thresholds, accuracies, right = [], [], 0
    for part in np.unique(fold):
        held_out, rest = fold == part, (fold != part) & made
        threshold = best_threshold(scores[rest], same[rest])
        correct = made[held_out] & ((scores[held_out] >= threshold) == same[held_out])
        thresholds.append(threshold)
        accuracies.append(float(correct.mean()))
        right += int(correct.sum())
    return KFold(mean_of(np.array(accuracies)), wilson(right, len(scores)), tuple(accuracies), tuple(thresholds))


def sample(curve: Curve, impostors: int, *, points_a_decade: int = 24) -> Iterator[tuple[float, float, float]]:
    """Yield (threshold, fmr, tar) at log-spaced rates from 1 / impostors to 1, rising, for drawing."""
    decades = math.log10(max(impostors, 10))
    seen = -1
    for target in np.logspace(-decades, 0, max(2, round(decades * points_a_decade))):
        at = at_fmr(curve, float(target), impostors)
        if at != seen:
            yield float(curve.thresholds[at]), float(curve.fmr[at]), float(curve.tar[at])
            seen = at
