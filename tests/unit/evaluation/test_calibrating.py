"""Thresholds of a pack are those its data resolves; the margin follows the spread of different people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vultus.domain import Calibration
from vultus.errors import InvalidInputError
from vultus.evaluation.calibrating import MARGIN, calibration_from
from vultus.evaluation.datasets import read_folders
from vultus.evaluation.pairs import evaluate_all
from vultus.evaluation.provenance import provenance
from vultus.evaluation.record import PairsReport, evaluated
from vultus.evaluation.runner import describe_all

NOT_MEASURED = Calibration((), 0.0, "")


@pytest.fixture
def report(folder: Path, pipeline: Any) -> PairsReport:
    data = read_folders(folder)
    described = describe_all(pipeline, data, workers=1)
    source = provenance(pack="fake", contract_id="fake-1", command="test")
    return PairsReport(evaluated(data, described, source), None, evaluate_all(data, described, NOT_MEASURED))


def test_only_resolved_rates_become_thresholds(report: PairsReport) -> None:
    # 246 pairs of different people: 24.6 false matches at 1e-1, 2.5 at 1e-2.
    made = calibration_from(report)

    assert [rate for rate, _ in made.points] == [1e-1]
    assert made.points[0][1] == report.all.points[0].threshold
    assert "246 pairs of different people" in made.source


def test_the_margin_is_measured_in_the_spread_of_different_people(
    report: PairsReport, folder: Path, pipeline: Any
) -> None:
    data = read_folders(folder)
    described = describe_all(pipeline, data, workers=1)
    vectors, person = described.vectors[described.found], data.person[described.found]
    rows, columns = np.triu_indices(len(vectors), 1)
    scores = (vectors @ vectors.T)[rows, columns][person[rows] != person[columns]]

    assert report.all.impostor_sd == pytest.approx(scores.std(), abs=1e-5)
    assert calibration_from(report).margin == pytest.approx(MARGIN * scores.std(), abs=1e-5)


def test_the_built_in_margin_follows_the_same_rule(report: PairsReport) -> None:
    like_dlib = replace(report, all=replace(report.all, impostor_sd=0.035))

    assert calibration_from(like_dlib).margin == pytest.approx(0.01)


def test_equal_thresholds_are_stated_once_and_too_few_pairs_refused(report: PairsReport) -> None:
    laxest = replace(report.all.points[0], resolved=True)
    twice = replace(report, all=replace(report.all, points=(laxest, replace(laxest, target_fmr=1e-2))))

    assert len(calibration_from(twice).points) == 1
    with pytest.raises(InvalidInputError, match="246 pairs of different people resolve no false match rate"):
        calibration_from(replace(report, all=replace(report.all, points=report.all.points[3:])))
