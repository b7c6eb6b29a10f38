"""Only thresholds that the data resolve are exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vultus.domain import Calibration
from vultus.errors import InvalidInputError
from vultus.evaluation.calibration_export import build_calibration, build_matched_calibration
from vultus.evaluation.datasets import read_person_folders
from vultus.evaluation.pairs import evaluate_all_pairs
from vultus.evaluation.provenance import build_provenance
from vultus.evaluation.record import PairsReport, build_evaluation_context
from vultus.evaluation.runner import describe_photos
from vultus.statistics.intervals import compute_wilson_rate
from vultus.statistics.matched import GroupFmr, MatchedGroup, MatchedImpostors, MatchedPoint, MatchedRates

NOT_MEASURED = Calibration((), 0.0, "")


@pytest.fixture
def report(folder: Path, pipeline: Any) -> PairsReport:
    data = read_person_folders(folder)
    described = describe_photos(pipeline, data, workers=1)
    source = build_provenance(pack="fake", contract_id="fake-1", command="test")
    return PairsReport(
        build_evaluation_context(data, described, source), None, evaluate_all_pairs(data, described, NOT_MEASURED)
    )


def resolving(report: PairsReport, *thresholds: float | None) -> PairsReport:
    """Return the report as one of a larger data set, with these thresholds, the laxest rate first."""
    points = tuple(
        replace(point, resolved=True, threshold=threshold)
        for point, threshold in zip(report.all.points, thresholds, strict=False)
    )
    unresolved = replace(report.all.points[-1], resolved=False, threshold=0.999)
    return replace(report, all=replace(report.all, points=(*points, unresolved), logistic=(30.0, -12.5)))


def test_resolved_rates_become_thresholds_with_their_source(report: PairsReport) -> None:
    made = build_calibration(resolving(report, 0.30004, 0.4, 0.50012, None))

    assert [threshold for _, threshold in made.points] == [0.3, 0.4, 0.5001]
    assert [rate for rate, _ in made.points] == [point.target_fmr for point in report.all.points[:3]]
    assert made.logistic == (30.0, -12.5)
    assert "people, 26 photos of 8 persons, all 246 pairs of different people" in made.source


def test_the_margin_follows_the_spread_of_the_thresholds_as_the_built_in_one_does(report: PairsReport) -> None:
    assert build_calibration(resolving(report, 0.30, 0.35, 0.50, 0.9)).margin == pytest.approx(0.04)
    # dlib's network on LFW: measured thresholds at 1e-1, 1e-2 and 1e-3, and the margin chosen by measurement.
    assert build_calibration(resolving(report, 0.8829, 0.9111, 0.9293)).margin == pytest.approx(0.01, abs=1e-3)


def test_data_that_resolve_too_few_rates_are_refused(report: PairsReport) -> None:
    # 246 pairs of different people: 24.6 false matches at 1e-1, 2.5 at 1e-2.
    with pytest.raises(InvalidInputError, match="246 pairs of different people, which resolve 1 false match rates"):
        build_calibration(report)


def test_a_calibration_by_matched_impostors_is_whole(report: PairsReport) -> None:
    """Resolved rates from both data sets, stricter ones raised alike, and the worst group that resolves a rate."""
    anybody = resolving(report, 0.2, 0.30004, 0.4, 0.5).all.points
    small, few, worst = (compute_wilson_rate(hits, trials) for hits, trials in ((90, 1000), (9, 3000), (30, 3000)))
    groups = tuple(
        MatchedGroup(name, 80, rate.trials, (GroupFmr(rate, 12.0, resolved=True),) * 3)
        for name, rate in (("small", small), ("few", few), ("worst", worst))
    )
    everybody = compute_wilson_rate(5, 5000)
    rates = tuple(MatchedRates(threshold, everybody, None, None) for threshold in (0.25, 0.45006, 0.9))
    points = (
        MatchedPoint(1e-1, 500, resolved=True, threshold=0.25),
        MatchedPoint(1e-2, 50, resolved=True, threshold=0.45006),
        MatchedPoint(1e-3, 5, resolved=False, threshold=0.9),
    )
    matched = MatchedImpostors(100, 5000, points, rates, groups, (), 0, 0)

    made = build_matched_calibration(anybody, matched, source="two data sets", logistic=(30.0, -12.5))

    assert made is not None
    assert made.anybody == ((1e-1, 0.2), (1e-2, 0.3), (1e-3, 0.4), (1e-4, 0.5))
    assert made.points == ((1e-1, 0.25), (1e-2, 0.4501), (1e-3, 0.5501), (1e-4, 0.6501))
    assert made.worst_group == ((0.01, 0.25), (0.01, 0.4501))
    assert (made.source, made.logistic, made.margin) == ("two data sets", (30.0, -12.5), 0.04)
    assert build_matched_calibration(anybody[:1], matched, source="", logistic=None) is None
