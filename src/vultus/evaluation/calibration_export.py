"""Exports a verification report as a calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.domain import Calibration
from vultus.errors import InvalidInputError

if TYPE_CHECKING:
    from vultus.evaluation.record import PairsReport

MIN_POINTS = 3


def build_calibration(report: PairsReport) -> Calibration:
    """Return the thresholds of all pairs whose false match rates the data resolve.

    The margin, by which the best person must be ahead of the next, is a fifth of the distance between the first and the
    third threshold: for dlib's network on LFW that is the 0.01 that was chosen by measurement.

    Raises:
        InvalidInputError: The data set is too small to resolve three rates.
    """
    points = tuple(
        (point.target_fmr, round(point.threshold, 4))
        for point in report.all.points
        if point.resolved and point.threshold is not None
    )
    if len(points) < MIN_POINTS:
        raise InvalidInputError(
            f"The data set has {report.all.impostor:,} pairs of different people, which resolve {len(points)} false "
            f"match rates; {MIN_POINTS} are needed to keep thresholds. Add photos of more people."
        )
    evaluated = report.evaluated
    return Calibration(
        points=points,
        margin=round((points[2][1] - points[0][1]) / 5, 4),
        source=(
            f"{evaluated.data}, {evaluated.photos:,} photos of {evaluated.persons:,} persons, all "
            f"{report.all.impostor:,} pairs of different people; vultus evaluate pairs, "
            f"{evaluated.provenance.created_at[:10]}"
        ),
        logistic=report.all.logistic,
    )
