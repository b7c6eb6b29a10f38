"""Packs are complete, and their space ids cover everything that changes their vectors."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from vultus.domain import Calibration
from vultus.errors import NotFoundError
from vultus.models.catalog.entries import Network, NetworkKind, PublishedFile
from vultus.models.catalog.measured import CALIBRATIONS, DLIB_CHIPS, get_quality_rules
from vultus.models.catalog.packs import BUILTIN, NETWORKS, PACKS, Pack, get_pack
from vultus.models.embedding.inputs import DLIB
from vultus.models.imaging.alignment import AlignmentTemplate
from vultus.models.loading import build_embedding_space
from vultus.models.views import MirrorCropper

DIGESTS = {"onet": "b" * 64, "pnet": "a" * 64}
SHA256 = re.compile("[0-9a-f]{64}")


def named(**changes: object) -> str:
    fields = {
        "pack": BUILTIN,
        "template": DLIB_CHIPS["mtcnn"],
        "crop": DLIB,
        "view_cropper": MirrorCropper(),
        "detector_digests": DIGESTS,
        "embedder_digest": "c" * 64,
    } | changes
    return build_embedding_space(**fields).id  # type: ignore[arg-type]


def test_the_default_pack_may_be_used_commercially() -> None:
    assert BUILTIN.is_commercial_use_allowed
    assert [licence.name for licence in BUILTIN.licences] == ["MIT", "CC0-1.0"]


@pytest.mark.parametrize("network", NETWORKS.values(), ids=lambda network: network.name)
def test_every_network_names_its_source_and_licence(network: Network) -> None:
    assert network.paper and network.inputs and network.files and network.licence.terms
    assert network.licence.must_be_accepted is not network.licence.commercial_use
    assert (network.dimension > 0) == (network.kind is NetworkKind.EMBEDDER)
    for file in network.files.values():
        assert file.sha256 is None or SHA256.fullmatch(file.sha256)
        if isinstance(file, PublishedFile) and file.archive:
            assert SHA256.fullmatch(file.archive.sha256) and file.sha256


def test_file_names_are_unique() -> None:
    names = [file.filename for network in NETWORKS.values() for file in network.files.values()]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("calibration", CALIBRATIONS.values(), ids=CALIBRATIONS)
def test_calibrations_fall_in_rate_and_rise_in_threshold(calibration: Calibration) -> None:
    rates, thresholds = zip(*calibration.points, strict=True)

    assert list(rates) == sorted(rates, reverse=True)
    assert list(thresholds) == sorted(thresholds)
    assert sorted(calibration.missed) == list(calibration.missed)
    assert [cosine for _, cosine in calibration.missed] == sorted(cosine for _, cosine in calibration.missed)
    assert 0 < calibration.margin < 0.1
    assert "pairs" in calibration.source


@pytest.mark.parametrize("family", ["mtcnn", "yunet", "retinaface", "scrfd"])
def test_enrolment_requires_more_than_recognition(family: str) -> None:
    enrol, recognize = get_quality_rules(family)

    assert enrol.min_score > recognize.min_score
    assert enrol.min_size_px > recognize.min_size_px
    assert enrol.min_sharpness > recognize.min_sharpness
    assert enrol.max_yaw_deg < recognize.max_yaw_deg
    assert enrol.max_pitch_deg < recognize.max_pitch_deg
    assert enrol.min_brightness > recognize.min_brightness
    assert enrol.max_brightness < recognize.max_brightness
    assert enrol.min_face_score > recognize.min_face_score == 0


def test_a_space_id_is_short_and_stable() -> None:
    assert named() == named(detector_digests=dict(reversed(DIGESTS.items())))
    assert re.fullmatch("dlib-resnet-[0-9a-f]{8}", named())


@pytest.mark.parametrize(
    "change",
    [
        {"detector_digests": DIGESTS | {"pnet": "d" * 64}},
        {"embedder_digest": "d" * 64},
        {"template": AlignmentTemplate(150, ((0, 0),) * 5)},
        {"crop": replace(DLIB, order="BGR")},
        {"pack": Pack("other", NETWORKS["yunet"], BUILTIN.embedder)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_vectors_makes_another_space(change: dict[str, object]) -> None:
    assert named(**change) != named()


def test_any_detector_and_embedder_make_a_pack() -> None:
    pack = get_pack("retinaface-mobilenet+deepface:Facenet512")

    assert (pack.detector.name, pack.embedder.name) == ("retinaface-mobilenet", "deepface:Facenet512")
    assert not pack.is_commercial_use_allowed
    assert get_pack("builtin") is PACKS["builtin"]


@pytest.mark.parametrize(
    ("name", "detail"), [("buffalo", "buffalo_l"), ("yunet+mtcnn", "not embedder"), ("nobody+sface", "yunet")]
)
def test_unknown_names_are_refused_with_the_known_ones(name: str, detail: str) -> None:
    with pytest.raises(NotFoundError, match=detail):
        get_pack(name)
