"""Thresholds measured on a gallery's enrolled faces, completed by those of its pack.

Rates that the gallery's comparisons resolve (at least `RESOLVED_ERRORS` expected false matches) take their thresholds
from them, laxer or stricter than the pack's: these are the faces that will be searched. Stricter rates take the pack's
thresholds, raised by the difference of the measured threshold to the pack's at the strictest rate resolved, and never
lowered. So thresholds never fall as rates do, and an unmeasured rate never has a laxer threshold than the pack's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import Calibration, DecisionPolicy, FloatArray
from vultus.domain.decision import compute_fpir, compute_threshold
from vultus.services.calibration.curves import CurvePoint, ScoreBins, bin_scores, build_measured_curve
from vultus.statistics.all_pairs import AcceptedCounts, count_accepted_by_person, count_pair_scores
from vultus.statistics.intervals import Rate, compute_clustered_rate
from vultus.statistics.metrics import (
    RESOLVED_ERRORS,
    RocCurve,
    ScoreHistogram,
    compute_expected_errors,
    compute_roc_curve,
    find_position_at_fmr,
)
from vultus.statistics.probability import fit_logistic_to_pairs

if TYPE_CHECKING:
    from vultus.domain.policies import RateCurve
    from vultus.statistics.metrics import Indices

FMR_DECADES = tuple(10.0**-power for power in range(1, 10))
MAX_FMR = 1e-1
MAX_SUSPICIOUS_PAIRS = 50
MAX_SIMILAR_PAIRS = 1000
MAX_COSINE = 1.0


PersonPair = tuple[int, int, float]
"""Indices of two persons, and their highest cosine."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Error rates of a gallery at a threshold.

    Attributes:
        threshold: Cosine.
        stated_fmr: False match rate of the threshold in the new calibration.
        origin: `own`, or `pack` where the gallery's comparisons do not resolve the rate.
        expected_errors: False matches expected among the gallery's comparisons at that rate.
        resolved: Whether they are at least `RESOLVED_ERRORS`.
        fmr: False match rate measured on the gallery's faces.
        fnmr: False non-match rate measured on them; None where no person has two faces.
        expected_fpir: Expected false positive identification rate of a search of the whole gallery: 1 − (1 − FMR)^N.
        measured_fpir: Share of the faces compared that a face of another person matches.
    """

    threshold: float
    stated_fmr: float
    origin: str
    expected_errors: float
    resolved: bool
    fmr: Rate
    fnmr: Rate | None
    expected_fpir: float
    measured_fpir: Rate


@dataclass(frozen=True, slots=True)
class GalleryMeasurement:
    """Result of comparing all faces of a gallery.

    Attributes:
        genuine: Comparisons of two faces of one person.
        genuine_persons: Persons with several faces.
        impostor: Comparisons of different persons.
        points: One per rate of the new calibration, strictest last.
        current: The threshold in effect now.
        proposed: The threshold of the new calibration at the target error rate.
        beyond_measurement: Whether the target is stricter than even the pack's data resolve.
        bins: Scores of all comparisons.
        curve: Error rates by threshold.
        closest_pair: The two most similar persons: person, person, cosine.
        similar_pairs: Such pairs above the pack's strictest threshold; most similar first.
        calibration: The new one; its `source` states where its figures come from.
    """

    genuine: int
    genuine_persons: int
    impostor: int
    points: tuple[OperatingPoint, ...]
    current: OperatingPoint
    proposed: OperatingPoint
    beyond_measurement: bool
    bins: ScoreBins
    curve: tuple[CurvePoint, ...]
    closest_pair: PersonPair
    similar_pairs: tuple[PersonPair, ...]
    calibration: Calibration


def measure_gallery(
    vectors: FloatArray,
    person: Indices,
    *,
    pack: Calibration,
    current: Calibration,
    policies: tuple[DecisionPolicy, DecisionPolicy],
    gallery_size: int,
    description: str,
) -> GalleryMeasurement:
    """Compare every face of a gallery with every other, and derive a calibration and its error rates.

    Args:
        vectors: (n, d) float32 unit vectors.
        person: (n,) the person of each, numbered from 0 without gaps; never falls.
        pack: The pack's calibration.
        current: The calibration in effect now.
        policies: The policy in effect now, and the one with the target error rate.
        gallery_size: Templates that a search compares.
        description: Description of the data for the new calibration's `source`.

    Raises:
        ValueError: There are too few comparisons of different persons to resolve a false match rate of `MAX_FMR`.
    """
    tally = count_pair_scores(vectors, person)
    curve, impostors = _compute_curve(tally), tally.impostor_trials
    own = _measure_thresholds(curve, impostors, pack)
    calibration = _complete_calibration(pack, own, fit_logistic_to_pairs(vectors, person, tally), description)
    target_threshold = compute_threshold(policies[1], calibration, gallery_size)
    stated = [
        *calibration.points,
        *(
            (calibration.get_fmr(decided.cosine), decided.cosine)
            for decided in (compute_threshold(policies[0], current, gallery_size), target_threshold)
        ),
    ]
    report_from = max(pack.points[-1][1], _find_threshold(curve, MAX_SIMILAR_PAIRS, impostors))
    accepted = _count_accepted(vectors, person, tally, [limit for _, limit in stated], report_from)
    alike = _list_similar_persons(accepted, person)
    points = [
        _build_operating_point(index, *point, calibration, accepted, person, gallery_size, min(own))
        for index, point in enumerate(stated)
    ]
    return GalleryMeasurement(
        genuine=tally.genuine_trials,
        genuine_persons=int((accepted.genuine_trials > 0).sum()),
        impostor=impostors,
        points=tuple(points[:-2]),
        current=points[-2],
        proposed=points[-1],
        beyond_measurement=target_threshold.beyond_measurement,
        bins=bin_scores(tally),
        curve=build_measured_curve(
            tally, curve, calibration, gallery_size, (points[-2].threshold, points[-1].threshold)
        ),
        closest_pair=alike[0],
        similar_pairs=tuple(pair for pair in alike if pair[2] >= report_from),
        calibration=calibration,
    )


def _count_accepted(
    vectors: FloatArray, person: Indices, tally: ScoreHistogram, thresholds: list[float], report_from: float
) -> AcceptedCounts:
    """Count accepted pairs; report those of different persons from a cosine on, and the most similar one anyway."""
    highest = float(tally.scores[np.flatnonzero(tally.impostor)[-1]])
    return count_accepted_by_person(
        vectors,
        person,
        np.array(thresholds),
        persons=int(person[-1]) + 1,
        report_from=min(report_from, highest),
    )


def _measure_thresholds(curve: RocCurve, impostors: int, pack: Calibration) -> dict[float, float]:
    """Return the threshold of each false match rate that the comparisons resolve, highest rate first.

    Raises:
        ValueError: They resolve none.
    """
    own = {
        rate: float(curve.thresholds[find_position_at_fmr(curve, rate, impostors)])
        for rate in sorted({*FMR_DECADES, *(rate for rate, _ in pack.points)}, reverse=True)
        if compute_expected_errors(rate, impostors) >= RESOLVED_ERRORS
    }
    if not own:
        raise ValueError("too few comparisons of different persons")
    return own


def _complete_calibration(
    pack: Calibration, own: dict[float, float], logistic: tuple[float, float] | None, description: str
) -> Calibration:
    """Return the calibration of a gallery: its own thresholds, which are of any two of its people, then the pack's."""
    points = combine_thresholds(pack, own)
    return replace(
        pack,
        points=points,
        source=_format_source(description, pack, own, points, fitted=logistic is not None),
        logistic=logistic or pack.logistic,
        anybody=combine_thresholds(pack.anybody_curve, own) if pack.anybody else (),
        worst_group=(),
    )


def combine_thresholds(pack: RateCurve, own: dict[float, float]) -> tuple[tuple[float, float], ...]:
    """Return the points of a calibration: the measured ones, then the pack's at stricter rates, raised as far as these.

    Args:
        pack: The pack's rates.
        own: Measured thresholds by false match rate, of every rate that is resolved; at least one.
    """
    strictest = min(own)
    measured = [(rate, min(MAX_COSINE, own[rate])) for rate in sorted(own, reverse=True)]
    raised = max(0.0, measured[-1][1] - pack.get_threshold(strictest))
    return (
        *measured,
        *((rate, min(MAX_COSINE, threshold + raised)) for rate, threshold in pack.points if rate < strictest),
    )


def _compute_curve(tally: ScoreHistogram) -> RocCurve:
    # With one face per person there are no genuine comparisons: a missed one stands in, and its rate is not read.
    return compute_roc_curve(tally if tally.genuine_trials else replace(tally, genuine_missed=1))


def _find_threshold(curve: RocCurve, matches: int, impostors: int) -> float:
    return float(curve.thresholds[find_position_at_fmr(curve, matches / impostors, impostors)])


def _build_operating_point(
    index: int,
    stated: float,
    threshold: float,
    calibration: Calibration,
    accepted: AcceptedCounts,
    person: Indices,
    gallery_size: int,
    strictest: float,
) -> OperatingPoint:
    impostors = int(accepted.impostor_trials.sum()) // 2
    own = accepted.genuine_trials
    found = accepted.nearest_cosines >= threshold
    expected = compute_expected_errors(stated, impostors)
    return OperatingPoint(
        threshold=threshold,
        stated_fmr=stated,
        origin="own" if stated >= strictest else "pack",
        expected_errors=expected,
        resolved=expected >= RESOLVED_ERRORS,
        fmr=compute_clustered_rate(accepted.impostor[index], accepted.impostor_trials, order=2),
        fnmr=compute_clustered_rate(own - accepted.genuine[index], own) if own.any() else None,
        expected_fpir=compute_fpir(
            calibration.anybody_curve.get_fmr(threshold) if calibration.anybody else stated, gallery_size
        ),
        measured_fpir=compute_clustered_rate(np.bincount(person, weights=found), np.bincount(person)),
    )


def _list_similar_persons(accepted: AcceptedCounts, person: Indices) -> tuple[PersonPair, ...]:
    best: dict[tuple[int, int], float] = {}
    for one, two, cosine in accepted.closest_impostors:  # best first
        best.setdefault((int(person[one]), int(person[two])), cosine)
    return tuple((*pair, cosine) for pair, cosine in list(best.items())[:MAX_SUSPICIOUS_PAIRS])


def _format_source(
    description: str,
    pack: Calibration,
    own: dict[float, float],
    combined: tuple[tuple[float, float], ...],
    *,
    fitted: bool,
) -> str:
    strictest = min(own)
    parts = [f"{description}; thresholds down to FMR {strictest:g} from there"]
    if combined[-1][0] < strictest:
        raised = max(0.0, own[strictest] - pack.get_threshold(strictest))
        parts.append(f"stricter ones from the pack, raised by {raised:.4f}")
    parts.append("probability " + ("from there" if fitted else "from the pack"))
    return "; ".join(parts) + f". Pack: {pack.source}"
