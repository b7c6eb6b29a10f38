"""Calibrations from measurements: of a verification report, and by matched impostors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.domain import Calibration
from vultus.domain.policies import RateCurve
from vultus.errors import InvalidInputError
from vultus.services.calibration.thresholds import combine_thresholds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vultus.evaluation.pairs import VerificationPoint
    from vultus.evaluation.record import PairsReport
    from vultus.statistics.matched import MatchedImpostors, MatchedPoint

MIN_POINTS = 3
DIGITS = 4


def build_matched_calibration(
    anybody: Sequence[VerificationPoint],
    matched: MatchedImpostors,
    *,
    source: str,
    logistic: tuple[float, float] | None,
) -> Calibration | None:
    """Return a calibration by matched impostors, as `models/catalog/measured.py` holds it for the packs.

    Rates that the matched impostors do not resolve get the thresholds of anybody, raised as far as at the strictest
    rate that they do. None if one of the two resolves too few rates.

    Args:
        anybody: Operating points of all pairs, rates descending.
        matched: Matched impostors.
        source: As in `Calibration`.
        logistic: As in `Calibration`.
    """
    curve, own = RateCurve(_list_resolved(anybody)), dict(_list_resolved(matched.points))
    if len(curve.points) < MIN_POINTS or not own:
        return None
    points = combine_thresholds(curve, own)
    worst = {
        point.threshold: matched.find_worst_rate(point.threshold)
        for point in matched.points
        if point.resolved and point.threshold is not None
    }
    return Calibration(
        points=tuple((rate, round(threshold, DIGITS)) for rate, threshold in points),
        margin=_compute_margin(curve.points),
        source=source,
        logistic=logistic,
        anybody=curve.points,
        worst_group=tuple(
            (float(f"{rate:.3g}"), round(threshold, DIGITS)) for threshold, rate in worst.items() if rate is not None
        ),
        missed=tuple(
            (round(1 - point.tar.value, DIGITS), round(point.threshold, DIGITS))
            for point in anybody
            if point.resolved and point.threshold is not None and point.tar and point.tar.value < 1
        ),
    )


def _compute_margin(points: tuple[tuple[float, float], ...]) -> float:
    """Return by how much the best person must be ahead of the next, from points of any two people.

    A fifth of the distance between the first and the third threshold: for dlib's network on LFW that is the 0.01 that
    was chosen by measurement.
    """
    return round((points[2][1] - points[0][1]) / 5, DIGITS)


def _list_resolved(points: Iterable[VerificationPoint | MatchedPoint]) -> tuple[tuple[float, float], ...]:
    found: list[tuple[float, float]] = []
    for point in points:
        if point.resolved and point.threshold is not None:
            lower = found[-1][1] if found else -1.0
            found.append((point.target_fmr, max(lower, round(point.threshold, DIGITS))))
    return tuple(found)


def build_calibration(report: PairsReport) -> Calibration:
    """Return the thresholds of all pairs whose false match rates the data resolve.

    Raises:
        InvalidInputError: The data set is too small to resolve three rates.
    """
    points = _list_resolved(report.all.points)
    if len(points) < MIN_POINTS:
        raise InvalidInputError(
            f"The data set has {report.all.impostor:,} pairs of different people, which resolve {len(points)} false "
            f"match rates; {MIN_POINTS} are needed to keep thresholds. Add photos of more people."
        )
    evaluated = report.evaluated
    return Calibration(
        points=points,
        margin=_compute_margin(points),
        source=(
            f"{evaluated.data}, {evaluated.photos:,} photos of {evaluated.persons:,} persons, all "
            f"{report.all.impostor:,} pairs of different people; vultus evaluate pairs, "
            f"{evaluated.provenance.created_at[:10]}"
        ),
        logistic=report.all.logistic,
    )
