"""Identification in a data set whose results are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vultus.evaluation.datasets import DataSet, read_person_folders
from vultus.evaluation.gallery import GalleryResult, evaluate_gallery
from vultus.evaluation.identification import GallerySplit
from vultus.evaluation.runner import DescribedPhotos, describe_photos

# Persons 0 to 3 are enrolled with their first photo, person 6 is a distractor, 4, 5 and 7 are non-mates.
PARTS = GallerySplit(
    enrolled=np.array([0, 4, 8, 12, 24]),
    mates=np.array([1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15]),
    strangers=np.array([16, 17, 18, 19, 20, 21, 22, 23, 25]),
    distractor_count=1,
)


@pytest.fixture
def data(folder: Path) -> DataSet:
    return read_person_folders(folder)


@pytest.fixture
def described(data: DataSet, pipeline: Any) -> DescribedPhotos:
    return describe_photos(pipeline, data, workers=1)


@pytest.fixture
def result(data: DataSet, described: DescribedPhotos, pipeline: Any) -> GalleryResult:
    return evaluate_gallery(data, PARTS, described, pipeline)


def test_searches_and_failures_are_counted(result: GalleryResult) -> None:
    assert (result.enrolled_persons, result.templates, result.distractors) == (5, 5, 1)
    assert (result.mate_searches, result.mate_persons) == (12, 4)
    assert (result.stranger_searches, result.stranger_persons) == (9, 3)
    assert (result.failed_to_enrol, result.failed_probes, result.unreachable) == (0, 2, 0)


def test_a_probe_without_a_face_is_a_miss(result: GalleryResult) -> None:
    assert result.identified[1].value == pytest.approx(10 / 12)
    assert result.cmc[0] == result.cmc[-1] == pytest.approx(10 / 12)


def test_few_non_mates_resolve_no_strict_rate(result: GalleryResult) -> None:
    assert [point.resolved for point in result.points] == [False, False, False]
    assert [point.fnir is None for point in result.points] == [True, True, True]


def test_every_search_has_one_outcome(result: GalleryResult) -> None:
    for decisions in (result.decisions_mate, result.decisions_stranger):
        assert sum(rate.value for rate in decisions.values()) == pytest.approx(1)
    assert result.decision_threshold == 0.8
    assert result.decisions_mate["correct_match"].hits == 10
    assert result.decisions_mate["no_face"].hits == 2
    assert result.decisions_stranger["no_match"].hits == 9


def test_a_person_who_could_not_be_enrolled_is_missed(data: DataSet, described: DescribedPhotos, pipeline: Any) -> None:
    parts = replace(PARTS, enrolled=np.array([2, 4, 8, 12, 24]), mates=np.array([0, 1, *PARTS.mates[3:]]))

    result = evaluate_gallery(data, parts, described, pipeline)

    assert (result.failed_to_enrol, result.unreachable) == (1, 2)
    assert result.identified[10].value == pytest.approx(8 / 11)


def test_a_poor_probe_is_not_decided(data: DataSet, described: DescribedPhotos, pipeline: Any) -> None:
    sharp = described.faces[1]
    assert sharp is not None
    blurred = replace(sharp, quality=replace(sharp.quality, sharpness=0.1))
    faces = (*described.faces[:1], blurred, *described.faces[2:])

    result = evaluate_gallery(data, PARTS, replace(described, faces=faces), pipeline)

    assert result.decisions_mate["low_quality"].hits == 1


def test_points_are_reported_as_far_as_non_mates_allow(
    data: DataSet, described: DescribedPhotos, pipeline: Any
) -> None:
    # Every non-mate search ten times: 90 searches, of which 9 may be false positives at 0.1.
    parts = replace(PARTS, strangers=np.repeat(PARTS.strangers, 10))

    point = evaluate_gallery(data, parts, described, pipeline).points[0]

    assert point.expected_errors == pytest.approx(9)
    assert point.fpir is not None
    assert point.fnir is not None
    assert point.fpir.value <= 0.1
    assert point.fnir.value == pytest.approx(2 / 12)


def test_policies_are_compared_on_the_same_searches(result: GalleryResult) -> None:
    default, without_margin, *others = result.policies

    assert default.right.hits == result.decisions_mate["correct_match"].hits
    assert (default.wrong.hits, default.named.hits) == (0, result.decisions_stranger["wrong_match"].hits)
    assert (default.threshold, without_margin.threshold, without_margin.margin) == (
        result.decision_threshold,
        result.decision_threshold,
        0.0,
    )
    by_fmr = [one.threshold for one in others if one.target_fmr]
    by_fpir = [one.threshold for one in others if one.target_fpir]
    assert (by_fmr, by_fpir) == (sorted(by_fmr), sorted(by_fpir))
