"""Verification of a data set whose pairs can be counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vultus.domain import Calibration
from vultus.evaluation.datasets import DataSet, read_pairs, read_person_folders
from vultus.evaluation.pairs import AllPairsResult, evaluate_all_pairs, evaluate_listed_pairs
from vultus.evaluation.runner import DescribedPhotos, describe_photos


@pytest.fixture
def data(folder: Path) -> DataSet:
    return read_person_folders(folder)


@pytest.fixture
def described(data: DataSet, pipeline: Any) -> DescribedPhotos:
    return describe_photos(pipeline, data, workers=1)


@pytest.fixture
def everything(data: DataSet, described: DescribedPhotos, pipeline: Any) -> AllPairsResult:
    return evaluate_all_pairs(data, described, pipeline.calibration)


def test_all_pairs_are_counted(everything: AllPairsResult) -> None:
    # 24 of 26 photos show a face: two persons have 3 of 4, four have 4, two have 1.
    assert everything.genuine == 6 * 6
    assert everything.genuine_not_compared == 2 * 3
    assert everything.impostor == 24 * 23 // 2 - (4 * 6 + 2 * 3)
    assert everything.persons_with_pairs == 6


def test_a_photo_without_a_face_is_a_rejection(everything: AllPairsResult) -> None:
    point = everything.points[0]

    assert point.tar is not None
    assert point.tar.value == pytest.approx(30 / 36)
    assert point.tar_by_person is not None
    assert point.tar_by_person.value == pytest.approx((4 * 1 + 2 * 0.5) / 6)
    assert everything.auc == 1


def test_rates_without_enough_comparisons_are_not_resolved(everything: AllPairsResult) -> None:
    # 246 impostor pairs: 24.6 errors at 0.1, 2.46 at 0.01, a quarter at 0.001.
    assert [point.resolved for point in everything.points] == [True, False, False, False, False, False]
    assert [point.threshold is None for point in everything.points] == [False, False, True, True, True, True]


def test_the_packs_thresholds_are_evaluated(everything: AllPairsResult) -> None:
    assert [(check.stated_fmr, check.threshold) for check in everything.calibration] == [(1e-2, 0.7), (1e-4, 0.8)]
    assert everything.calibration[0].fmr.value == 0
    assert everything.calibration[0].tar is not None
    assert everything.calibration[0].tar.value == pytest.approx(30 / 36)


def test_the_most_similar_non_mates_are_named_by_photo(everything: AllPairsResult) -> None:
    one, two, score = everything.closest[0]

    assert one.split("/")[0] != two.split("/")[0]
    assert score == max(score for _, _, score in everything.closest)


def test_listed_pairs_without_a_face_are_wrong(folder: Path, data: DataSet, described: DescribedPhotos) -> None:
    pairs = read_pairs(folder / "pairs.txt", data)
    result = evaluate_listed_pairs(pairs, described)

    # person_1 1 3 and person_2 1 4 are fine; in person_0 1 2 everything is found; nothing listed lacks a face.
    assert (result.pairs, result.not_compared) == (12, 0)
    assert result.accuracy.pooled.value == 1

    blind = described.has_vector.copy()
    blind[pairs.first[0]] = False
    blinded = DescribedPhotos(described.vectors, blind, described.faces, 0, (), described.timing)
    result = evaluate_listed_pairs(pairs, blinded)

    assert result.not_compared == 2
    assert result.accuracy.pooled.hits == 10
    assert result.points[0].threshold is None


def test_histograms_hold_every_score(everything: AllPairsResult) -> None:
    drawing = everything.drawing

    assert sum(drawing.genuine) == pytest.approx(1)
    assert sum(drawing.impostor) == pytest.approx(1)
    assert len(drawing.edges) == len(drawing.genuine) + 1


def test_one_person_with_several_photos_has_no_mean_by_person() -> None:
    data = DataSet(Path(), ("ada", "bob"), ("a/1", "a/2", "b/1"), np.array([0, 0, 1]))
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    described = DescribedPhotos(vectors, np.ones(3, bool), (None,) * 3, 0, (), None)  # type: ignore[arg-type]

    result = evaluate_all_pairs(data, described, Calibration((), 0.0, "made up"))

    assert result.calibration == ()
    assert all(point.tar_by_person is None for point in result.points)
