"""Error rates by threshold, for people who choose one: measured on a gallery, or stated by a calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain.decision import compute_fpir
from vultus.statistics.metrics import RocCurve, ScoreHistogram, find_position_at_threshold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vultus.domain import Calibration
    from vultus.statistics.metrics import Floats

STEPS = 100
"""Bins of a histogram and steps of a curve: coarse enough that none of them shows the cosine of two persons."""

ROUND = 0.05
"""Cosines at which bins may begin and end."""


@dataclass(frozen=True, slots=True)
class ScoreBins:
    """How similar the compared faces are, in bins of equal width.

    Attributes:
        low: Cosine at which the first bin begins.
        width: Of a bin, as cosine.
        genuine: Comparisons of one person by bin.
        impostor: Comparisons of different persons by bin.
    """

    low: float
    width: float
    genuine: tuple[int, ...]
    impostor: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What a threshold means.

    Attributes:
        threshold: Cosine.
        fmr: False match rate measured among the gallery's own faces; None where they were not compared.
        fnmr: False non-match rate measured among them, or else published for the network; None if unknown.
        stated_fmr: False match rate of any two persons by the calibration.
        worst_group_fmr: That of the group with the highest rate; None if it was not measured.
        fpir: False positive identification rate of a search of the whole gallery by the calibration.
    """

    threshold: float
    fmr: float | None
    fnmr: float | None
    stated_fmr: float
    worst_group_fmr: float | None
    fpir: float


def bin_scores(scores: ScoreHistogram) -> ScoreBins:
    """Return the scores of a gallery in `STEPS` bins, from a round cosine below all of them to one above."""
    edges = _compute_edges(scores)
    genuine, impostor = (
        np.histogram(scores.scores, edges, weights=counts)[0].astype(int)
        for counts in (scores.genuine, scores.impostor)
    )
    return ScoreBins(float(edges[0]), float(edges[1] - edges[0]), tuple(genuine.tolist()), tuple(impostor.tolist()))


def build_measured_curve(
    scores: ScoreHistogram, curve: RocCurve, calibration: Calibration, gallery_size: int, thresholds: Iterable[float]
) -> tuple[CurvePoint, ...]:
    """Return the error rates of a gallery at the edges of its bins and at some thresholds, ascending.

    Args:
        scores: Of the gallery's own comparisons.
        curve: Of these scores.
        calibration: What the gallery's searches would be decided by.
        gallery_size: Templates that a search compares.
        thresholds: Cosines to add.
    """
    points = []
    for threshold in sorted({*_compute_edges(scores).tolist(), *thresholds}):
        position = find_position_at_threshold(curve, threshold)
        fnmr = float(1 - curve.tar[position]) if scores.genuine_trials else None
        points.append(_build_point(threshold, calibration, gallery_size, float(curve.fmr[position]), fnmr))
    return tuple(points)


def build_stated_curve(calibration: Calibration, gallery_size: int, threshold: float) -> tuple[CurvePoint, ...]:
    """Return the error rates by a calibration, from its laxest to its strictest threshold and at one more, ascending.

    Args:
        calibration: The calibration.
        gallery_size: Templates that a search compares.
        threshold: Cosine to add.
    """
    known = [cosine for _, cosine in (*calibration.points, *calibration.anybody)]
    steps = {*np.linspace(min(known), max(known), STEPS + 1).tolist(), threshold}
    return tuple(_build_point(one, calibration, gallery_size, None, calibration.get_fnmr(one)) for one in sorted(steps))


def _build_point(
    threshold: float, calibration: Calibration, gallery_size: int, fmr: float | None, fnmr: float | None
) -> CurvePoint:
    stated = calibration.anybody_curve.get_fmr(threshold)
    worst = calibration.get_worst_group_fmr(threshold)
    return CurvePoint(threshold, fmr, fnmr, stated, worst, compute_fpir(stated, gallery_size))


def _compute_edges(scores: ScoreHistogram) -> Floats:
    """Return the edges of the bins, (`STEPS` + 1,); the last one is reached by no score.

    They begin and end at round cosines: the highest score is that of two persons.
    """
    low = np.floor(scores.scores[0] / ROUND) * ROUND
    high = np.ceil(scores.rejecting_threshold / ROUND) * ROUND
    edges: Floats = np.linspace(low, high, STEPS + 1)
    return edges
