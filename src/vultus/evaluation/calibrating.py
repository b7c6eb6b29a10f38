"""Thresholds for a pack, from the pairs of different people of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.domain import Calibration
from vultus.errors import InvalidInputError

if TYPE_CHECKING:
    from vultus.evaluation.record import PairsReport

MARGIN = 2 / 7
"""Margin in standard deviations of the cosines of different people.

The built-in pack's margin of 0.01 was chosen by its effect in a gallery, where that deviation is 0.035. Cosines of two
networks are not comparable; measured in this deviation they roughly are.
"""


def calibration_from(report: PairsReport) -> Calibration:
    """Return the thresholds of the false match rates that a report resolves.

    Raises:
        InvalidInputError: The data set has too few pairs of different people for any.
    """
    points: list[tuple[float, float]] = []
    for point in report.all.points:
        if point.resolved and point.threshold is not None and (not points or point.threshold > points[-1][1]):
            points.append((point.target_fmr, point.threshold))
    if not points:
        raise InvalidInputError(
            f"{report.all.impostor:,} pairs of different people resolve no false match rate; nothing was kept. "
            "Measure on more photos."
        )
    on = report.evaluated
    return Calibration(
        tuple(points),
        margin=MARGIN * report.all.impostor_sd,
        source=f"{on.data}, {on.photos:,} photos, all {report.all.impostor:,} pairs of different people; "
        f"vultus evaluate pairs, {on.provenance.created_at[:10]}",
    )
