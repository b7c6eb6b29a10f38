"""The page of a verification report shows what was resolved and states what was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vultus.domain import Calibration
from vultus.evaluation.datasets import DataSet, ListedPairs
from vultus.evaluation.pairs import evaluate_all_pairs, evaluate_listed_pairs
from vultus.evaluation.pairs_page import render_pairs_page
from vultus.evaluation.provenance import build_provenance
from vultus.evaluation.record import PairsReport, build_evaluation_context
from vultus.evaluation.runner import DescribedPhotos, Timing

PERSONS, PHOTOS = 150, 4


@pytest.fixture(scope="module")
def report() -> PairsReport:
    """600 photos, 178,800 pairs of different persons: 10⁻⁴ is resolved, 10⁻⁵ is not."""
    generator = np.random.default_rng(11)
    person = np.repeat(np.arange(PERSONS), PHOTOS)
    vectors = generator.normal(size=(PERSONS, 16))[person] + 0.6 * generator.normal(size=(len(person), 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = tuple(f"p{who}/{at}" for at, who in enumerate(person))
    data = DataSet(Path("made-up"), tuple(f"p{who}" for who in range(PERSONS)), names, person)
    timing = Timing((), 1.0, 1)
    described = DescribedPhotos(
        vectors.astype(np.float32), np.ones(len(person), bool), (None,) * len(person), 0, (), timing
    )
    first = np.tile(np.arange(0, len(person), PHOTOS), 2)
    second = np.concatenate((first[:PERSONS] + 1, np.roll(first[:PERSONS], 1)))
    listed = ListedPairs(first, second, np.arange(2 * PERSONS) < PERSONS, np.tile(np.arange(PERSONS) % 5, 2))
    return PairsReport(
        build_evaluation_context(data, described, build_provenance(pack="made up", contract_id="none", command="none")),
        evaluate_listed_pairs(listed, described),
        evaluate_all_pairs(data, described, Calibration(((1e-2, 0.6), (1e-4, 0.8)), 0.0, "made up")),
    )


def test_resolved_rates_have_thresholds_that_keep_them(report: PairsReport) -> None:
    for point in report.all.points[:4]:
        assert point.resolved
        assert point.fmr is not None
        assert point.fmr.value <= point.target_fmr
        assert point.fmr.low < point.fmr.value < point.fmr.high

    assert [point.resolved for point in report.all.points[4:]] == [False, False]
    assert len(report.all.closest) <= 20


def test_few_listed_pairs_resolve_little(report: PairsReport) -> None:
    assert report.listed is not None
    one, *others = report.listed.points

    assert (one.threshold is not None, one.resolved) == (True, False)
    assert all(point.threshold is None for point in others)


def test_the_headline_figures_are_the_resolved_ones(report: PairsReport) -> None:
    text = render_pairs_page(report)

    assert "TAR at FMR 10⁻³" in text
    assert "TAR at FMR 10⁻⁴" in text
    assert "no: 1.8 errors expected" in text
    assert "no: 0.18 errors expected" in text


def test_a_pack_without_thresholds_has_none_to_evaluate(report: PairsReport) -> None:
    without = replace(report, all=replace(report.all, calibration=()))

    assert "The pack's thresholds" in render_pairs_page(report)
    assert "The pack's thresholds" not in render_pairs_page(without)
