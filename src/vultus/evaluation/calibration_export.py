"""Exports of measured thresholds: a verification report as a calibration, and thresholds for matched impostors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.domain import Calibration
from vultus.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vultus.evaluation.pairs import VerificationPoint
    from vultus.evaluation.record import PairsReport
    from vultus.statistics.matched import MatchedImpostors, MatchedPoint

MIN_POINTS = 3
DIGITS = 4


@dataclass(frozen=True, slots=True)
class WorstGroup:
    """Matched adults at one threshold.

    Attributes:
        threshold: Cosine, rounded as in the lists.
        fmr: False match rate of all matched pairs.
        group: The worst group; None where no group is large enough.
        group_fmr: Its false match rate.
        resolved: Whether that is resolved.
    """

    threshold: float
    fmr: float
    group: str | None
    group_fmr: float | None
    resolved: bool


@dataclass(frozen=True, slots=True)
class ThresholdExport:
    """Thresholds to keep for an embedding space: rates that the data resolve, descending; thresholds never fall.

    Attributes:
        matched: (false match rate among matched adults, cosine); empty without such data.
        anybody: (false match rate among all pairs, cosine).
        worst: The worst group at each threshold of both, ascending.
    """

    matched: tuple[tuple[float, float], ...]
    anybody: tuple[tuple[float, float], ...]
    worst: tuple[WorstGroup, ...]


def export_thresholds(anybody: Sequence[VerificationPoint], matched: MatchedImpostors | None) -> ThresholdExport:
    """Return the resolved thresholds of all pairs and of matched impostors.

    Args:
        anybody: Operating points of all pairs, rates descending.
        matched: Matched impostors, evaluated at the thresholds of `anybody` too.
    """
    lists = (_list_resolved(matched.points if matched else ()), _list_resolved(anybody))
    used = {threshold for thresholds in lists for _, threshold in thresholds}
    return ThresholdExport(
        *lists,
        worst=tuple(
            WorstGroup(
                round(rates.threshold, DIGITS),
                rates.fmr.value,
                rates.worst,
                rates.worst_fmr.fmr.value if rates.worst_fmr else None,
                bool(rates.worst_fmr and rates.worst_fmr.resolved),
            )
            for rates in (matched.rates if matched else ())
            if round(rates.threshold, DIGITS) in used
        ),
    )


def _list_resolved(points: Iterable[VerificationPoint | MatchedPoint]) -> tuple[tuple[float, float], ...]:
    found: list[tuple[float, float]] = []
    for point in points:
        if point.resolved and point.threshold is not None:
            lower = found[-1][1] if found else -1.0
            found.append((point.target_fmr, max(lower, round(point.threshold, DIGITS))))
    return tuple(found)


def build_calibration(report: PairsReport) -> Calibration:
    """Return the thresholds of all pairs whose false match rates the data resolve.

    The margin, by which the best person must be ahead of the next, is a fifth of the distance between the first and the
    third threshold: for dlib's network on LFW that is the 0.01 that was chosen by measurement.

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
        margin=round((points[2][1] - points[0][1]) / 5, DIGITS),
        source=(
            f"{evaluated.data}, {evaluated.photos:,} photos of {evaluated.persons:,} persons, all "
            f"{report.all.impostor:,} pairs of different people; vultus evaluate pairs, "
            f"{evaluated.provenance.created_at[:10]}"
        ),
        logistic=report.all.logistic,
    )
