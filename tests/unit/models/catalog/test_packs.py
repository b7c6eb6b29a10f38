"""Packs are complete, clean and named by everything that moves their vectors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vultus.errors import NotFoundError, WeightsError
from vultus.models.alignment import Template
from vultus.models.catalog.detectors import MTCNN, YUNET
from vultus.models.catalog.embedders import DLIB_RESNET, FACENET
from vultus.models.catalog.entries import Network
from vultus.models.catalog.packs import BUILTIN, PACKS, Pack, contract_of, network_named, networks_named, pack_named

FILE = DLIB_RESNET.file


def test_the_built_in_pack_may_be_used_commercially() -> None:
    assert BUILTIN.commercial_use
    assert [network.licence.name for network in BUILTIN.networks] == ["MIT", "CC0-1.0"]


@pytest.mark.parametrize("pack", [pack for pack in PACKS.values() if pack.calibration], ids=lambda pack: pack.name)
def test_calibrations_fall_in_rate_and_rise_in_threshold(pack: Pack) -> None:
    assert pack.calibration is not None
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


def test_the_built_in_contract_is_the_one_that_vectors_were_stored_under() -> None:
    assert BUILTIN.contract.id == "dlib-resnet-dc813b70"


@pytest.mark.parametrize(
    "other",
    [
        (replace(MTCNN, files={**MTCNN.files, "onet": MTCNN.files["rnet"]}), DLIB_RESNET, BUILTIN.template),
        (MTCNN, replace(DLIB_RESNET, files={"network": replace(FILE, sha256="0" * 64)}), BUILTIN.template),
        (MTCNN, DLIB_RESNET, Template(150, ((0, 0),) * 5)),
        (MTCNN, replace(DLIB_RESNET, steps="BGR"), BUILTIN.template),
        (YUNET, DLIB_RESNET, BUILTIN.template),
    ],
)
def test_whatever_moves_vectors_makes_another_contract(other: tuple[Network, Network, Template]) -> None:
    assert contract_of(*other).id != BUILTIN.contract.id


def test_weights_without_a_digest_have_no_contract_yet() -> None:
    with pytest.raises(WeightsError, match="vultus models pull facenet"):
        contract_of(MTCNN, FACENET, BUILTIN.template)


@pytest.mark.parametrize("pack", PACKS.values(), ids=lambda pack: pack.name)
def test_a_pack_is_found_by_its_name_and_by_its_networks(pack: Pack) -> None:
    assert pack_named(pack.name) is pack
    assert pack_named(f"{pack.detector.name}+{pack.embedder.name}") is pack
    assert pack.template.side in {112, 150}


def test_any_detector_and_embedder_whose_template_is_known_make_a_pack() -> None:
    pack = pack_named("yunet-n+mobilefacenet")

    assert (pack.name, pack.detector.name, pack.embedder.name) == (pack.pair, "yunet-n", "mobilefacenet")
    assert pack.calibration is None
    assert pack.contract.dimension == 128
    assert pack_named("mtcnn+deepface:Dlib").embedder.family == "deepface"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "no pack 'nothing'; there are .*builtin.*DETECTOR"),
        ("yunet+nothing", "no network 'nothing'; there are .*sface.*deepface:NAME"),
        ("sface+yunet", "the kind of sface is embedder"),
        ("centerface+dlib-resnet", "centerface fall in crops 'dlib-150'; known are mtcnn, yunet"),
    ],
)
def test_what_is_no_pack_is_refused_with_what_is(name: str, words: str) -> None:
    with pytest.raises(NotFoundError, match=words):
        pack_named(name)


def test_a_name_means_a_pack_or_a_single_network() -> None:
    assert [network.name for network in networks_named("buffalo_s")] == ["scrfd-500m", "arcface-mbf"]
    assert networks_named("minifasnet") == (network_named("minifasnet"),)
    assert [network.name for network in networks_named("yunet+sface")] == ["yunet", "sface"]
