"""Packs are measured on the same photos; one person under two names is left out where both other families say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vultus.domain import Calibration
from vultus.evaluation.datasets import DataSet, read_person_folders
from vultus.evaluation.pack_evaluation import (
    MatchedData,
    PackVectors,
    PhotoTime,
    VerificationData,
    evaluate_packs,
    measure_photo_times,
)
from vultus.evaluation.runner import PhotoVectors
from vultus.statistics.matched import Demographics

PERSONS, STRANGERS = 260, 120


def normalize(vectors: np.ndarray) -> PhotoVectors:
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return PhotoVectors(unit, np.ones(len(unit), bool))


def build_pack(name: str, seed: int, calibration: Calibration) -> PackVectors:
    """Embed 260 persons with two photos each, and 120 strangers; the first two of both are one person."""
    random = np.random.default_rng(seed)
    centres, strangers = random.normal(size=(PERSONS, 32)), random.normal(size=(STRANGERS, 32))
    centres[1], strangers[1] = centres[0], strangers[0]
    photos = np.repeat(centres, 2, axis=0) + 0.4 * random.normal(size=(2 * PERSONS, 32))
    strangers[1] += 0.1 * random.normal(size=32)
    return PackVectors(name, name, True, f"{name}-1", calibration, normalize(photos), normalize(strangers))


@pytest.fixture
def verification() -> VerificationData:
    persons = tuple(f"p{at}" for at in range(PERSONS))
    photos = tuple(f"{person}/{at}" for person in persons for at in range(2))
    return VerificationData(DataSet(Path("lfw"), persons, photos, np.repeat(np.arange(PERSONS), 2)), None)


@pytest.fixture
def matched() -> MatchedData:
    names = tuple(f"s{at}" for at in range(STRANGERS))
    labels = Demographics(np.full(STRANGERS, 40), ("male",) * STRANGERS, ("a",) * STRANGERS)
    return MatchedData(DataSet(Path("utk"), names, names, np.arange(STRANGERS)), labels)


CALIBRATED = Calibration(((1e-2, 0.4), (1e-4, 0.6)), 0.02, "made up")
TIMES = {name: PhotoTime(1.0, 1.0) for name in "abc"}


def test_doubles_are_left_out_and_named(verification: VerificationData, matched: MatchedData) -> None:
    packs = [build_pack(name, seed, CALIBRATED) for seed, name in enumerate("abc")]

    for found in evaluate_packs(packs, verification, matched, TIMES):
        assert found.doubles == (("p0", "p1"),)
        assert found.matched_doubles == (("s0", "s1"),)
        assert found.default.threshold == pytest.approx(0.6)
        assert found.default.fmr.trials == 520 * 519 // 2 - PERSONS - 4
        assert found.points[0].fmr is not None
        assert found.points[0].fmr.trials == 520 * 519 // 2 - PERSONS
        assert found.matched is not None
        assert found.matched.pairs == STRANGERS * (STRANGERS - 1) // 2 - 1
        assert found.matched.get_rates(found.default.threshold).worst == "male 35–49 a"
        assert found.calibration is not None
        assert [rate for rate, _ in found.calibration.anybody] == [1e-1, 1e-2, 1e-3, 1e-4]
        assert [rate for rate, _ in found.calibration.points] == [1e-1, 1e-2, 1e-3, 1e-4]
        missed = [1 - point.tar.value for point in found.points[:4] if point.tar and point.tar.value < 1]
        assert [rate for rate, _ in found.calibration.missed] == pytest.approx(missed, abs=1e-4)


def test_children_are_never_taken_for_doubles(verification: VerificationData, matched: MatchedData) -> None:
    packs = [build_pack(name, seed, CALIBRATED) for seed, name in enumerate("abc")]
    age = matched.labels.age.copy()
    age[:2] = 4
    children = MatchedData(matched.data, Demographics(age, matched.labels.sex, matched.labels.race))

    for found in evaluate_packs(packs, verification, children, TIMES):
        assert found.matched_doubles == ()
        assert found.matched is not None
        assert found.matched.children[0].rates[-1].fmr.trials == 1


def test_two_families_leave_nothing_out(verification: VerificationData, matched: MatchedData) -> None:
    packs = [build_pack(name, seed, CALIBRATED) for seed, name in enumerate("ab")]

    found = evaluate_packs(packs, verification, matched, TIMES)

    assert [pack.doubles for pack in found] == [(), ()]


def test_a_pack_without_thresholds_is_measured_at_those_found(verification: VerificationData) -> None:
    pack = build_pack("a", 1, Calibration((), 0.0, "not measured"))

    (found,) = evaluate_packs([pack], verification, None, TIMES)

    assert not found.is_calibrated
    assert found.default.threshold == found.points[3].threshold
    assert (found.matched, found.matched_without_face, found.calibration) == (None, None, None)


def test_packs_are_timed_photo_by_photo_in_turn(folder: Path, pipeline: Any) -> None:
    (folder / "person_1/person_1_0004.jpg").unlink()
    ticks = iter(range(10_000))
    now = 0.0

    def advance() -> float:
        nonlocal now
        now += 0.002 if next(ticks) % 4 == 3 else 0.001  # every second photo takes twice as long
        return now

    times = measure_photo_times(
        {"one": pipeline, "other": pipeline}, read_person_folders(folder), reference="one", clock=advance
    )

    assert times["one"].median_ms == pytest.approx(1)
    assert times["other"].relative == pytest.approx(2)
