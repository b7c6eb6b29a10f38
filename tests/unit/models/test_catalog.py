"""Packs are complete, clean and named by everything that moves their vectors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vultus.models.alignment import Template
from vultus.models.catalog import (
    BUILTIN,
    DLIB_FIVE_POINTS,
    DLIB_RESNET,
    MTCNN,
    PACKS,
    DetectorSpec,
    EmbedderSpec,
    LandmarkSpec,
    Pack,
    contract_of,
)
from vultus.settings import InferenceSettings

Parts = tuple[DetectorSpec, EmbedderSpec, Template, LandmarkSpec, str]

STEPS = "RGB"
ALL: Parts = (MTCNN, DLIB_RESNET, BUILTIN.template, DLIB_FIVE_POINTS, STEPS)
REST = ALL[1:]


def test_the_default_pack_may_be_used_commercially() -> None:
    pack = PACKS[InferenceSettings().pack]

    assert pack.commercial_use
    parts = (pack.detector, pack.landmarks, pack.embedder)
    assert [part.licence.name for part in parts] == ["MIT", "CC0-1.0", "CC0-1.0"]


@pytest.mark.parametrize("pack", PACKS.values(), ids=lambda pack: pack.name)
def test_calibrations_fall_in_rate_and_rise_in_threshold(pack: Pack) -> None:
    rates, thresholds = zip(*pack.calibration.points, strict=True)

    assert list(rates) == sorted(rates, reverse=True)
    assert list(thresholds) == sorted(thresholds)
    assert 0 < pack.calibration.margin < 0.1
    assert "pairs" in pack.calibration.source


@pytest.mark.parametrize("pack", PACKS.values(), ids=lambda pack: pack.name)
def test_enrolment_asks_for_more_than_recognition(pack: Pack) -> None:
    enrol, recognize = pack.enrol_rule, pack.recognize_rule

    assert enrol.min_score >= recognize.min_score
    assert enrol.min_size_px > recognize.min_size_px
    assert enrol.min_sharpness > recognize.min_sharpness
    assert enrol.max_yaw_deg < recognize.max_yaw_deg
    assert enrol.max_pitch_deg < recognize.max_pitch_deg


def test_a_contract_is_short_stable_and_says_what_it_is() -> None:
    assert BUILTIN.contract == contract_of(
        MTCNN, DLIB_RESNET, BUILTIN.template, DLIB_FIVE_POINTS, BUILTIN.contract.preprocessing.split("; ", 4)[4]
    )
    assert BUILTIN.contract.id.startswith("dlib-resnet-")
    assert len(BUILTIN.contract.id) == len("dlib-resnet-") + 8


@pytest.mark.parametrize(
    "other",
    [
        (replace(MTCNN, files={**MTCNN.files, "onet": MTCNN.files["rnet"]}), *REST),
        (MTCNN, replace(DLIB_RESNET, file=replace(DLIB_RESNET.file, sha256="0" * 64)), *REST[1:]),
        (MTCNN, DLIB_RESNET, Template(150, ((0, 0),) * 5), *REST[2:]),
        (*ALL[:3], replace(DLIB_FIVE_POINTS, file=MTCNN.files["onet"]), STEPS),
        (*ALL[:3], replace(DLIB_FIVE_POINTS, square=(0, 0, 150)), STEPS),
        (*ALL[:3], replace(DLIB_FIVE_POINTS, template=BUILTIN.template), STEPS),
        (*ALL[:4], "BGR"),
    ],
)
def test_whatever_moves_vectors_makes_another_contract(other: Parts) -> None:
    assert contract_of(*other).id != contract_of(*ALL).id


def test_a_threshold_of_the_detector_keeps_the_contract() -> None:
    patient = replace(MTCNN, parameters=replace(MTCNN.parameters, thresholds=(0.5, 0.6, 0.7)))

    assert contract_of(patient, *REST) == contract_of(*ALL)
