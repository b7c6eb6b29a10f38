"""What a worker sends is decoded into plain values of declared types, or refused."""

from __future__ import annotations

import pickle
from dataclasses import asdict, replace
from typing import Any

import msgspec
import numpy as np
import pytest

from vultus.domain import (
    Analysis,
    Box,
    Calibration,
    Crop,
    DescribedFace,
    DetectedFace,
    Embedding,
    Liveness,
    LivenessReason,
    LoadedSpace,
    NetworkOrigin,
    Quality,
    QualityRule,
    SpaceRegistry,
    Want,
)
from vultus.errors import UnsupportedImageError, VultusError, WeightsError
from vultus.models.pipeline import AnalysisRequest
from vultus.models.workers.messages import (
    ERRORS_BY_CODE,
    LENGTH_HEADER,
    BatchAnswer,
    Failure,
    Hello,
    PhotoBatch,
    decode_batch,
    decode_hello,
    decode_loaded,
    decode_results,
    encode_loaded,
    encode_message,
    encode_results,
)

FACE = DescribedFace(
    DetectedFace(Box(1.5, 2, 30, 40), np.arange(10, dtype=np.float32).reshape(5, 2), 0.9),
    Quality(30, 100, 0.5, -3, 2, 1, 0.75),
    Embedding(np.array([0.6, 0.8], np.float32), "space-1"),
    Crop(b"\xff\xd8", Box(0, 0, 1, 1)),
    Liveness(0.7, LivenessReason.SPOOF),
)
ANALYSIS = Analysis(512, 384, "ab" * 32, (FACE,), {"decode": 1.25})


def body_of(message: bytes | bytearray) -> bytes:
    """Return a message without its header, which must be right."""
    (length,) = LENGTH_HEADER.unpack_from(message)
    assert length == len(message) - LENGTH_HEADER.size
    return bytes(message[LENGTH_HEADER.size :])


def answer_with(*results: Any) -> bytes:
    return msgspec.msgpack.encode(["BatchAnswer", list(results)])


def analysis_with(**fields: Any) -> bytes:
    """Return an answer that is right but for fields of its one face."""
    face = asdict(replace(FACE, embedding=None)) | fields
    face["face"]["landmarks"] = fields.get("landmarks", ["<f4", [5, 2], bytes(40)])
    return answer_with(["PhotoAnalyzed", asdict(replace(ANALYSIS, faces=())) | {"faces": [face]}])


def test_an_analysis_arrives_as_it_was_sent() -> None:
    (received,) = decode_results(body_of(encode_results([ANALYSIS])))

    assert isinstance(received, Analysis)
    (face,) = received.faces
    assert (received.width, received.height, received.sha256, received.timings_ms) == (
        512,
        384,
        ANALYSIS.sha256,
        {"decode": 1.25},
    )
    assert (face.face.box, face.quality, face.crop, face.liveness) == (
        FACE.face.box,
        FACE.quality,
        FACE.crop,
        FACE.liveness,
    )
    assert {face.face.landmarks.dtype, face.vector.dtype} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(face.face.landmarks, FACE.face.landmarks)
    np.testing.assert_array_equal(face.vector, FACE.vector)


def test_numbers_and_strided_arrays_of_numpy_are_sent_as_plain_ones() -> None:
    strided = np.arange(20, dtype=np.float32).reshape(5, 4)[:, ::2]
    face = DetectedFace(FACE.face.box, strided, np.float64(0.5))
    sent = replace(ANALYSIS, faces=(replace(FACE, face=face, quality=replace(FACE.quality, yaw_deg=np.float64(2))),))

    (received,) = decode_results(body_of(encode_results([sent])))

    assert isinstance(received, Analysis)
    np.testing.assert_array_equal(received.faces[0].face.landmarks, strided)
    assert (type(received.faces[0].face.score), received.faces[0].quality.yaw_deg) == (float, 2.0)


def test_a_photo_arrives_with_what_is_wanted_of_it() -> None:
    batch = PhotoBatch(
        "space-1",
        [AnalysisRequest(b"\x00photo", Want(crops=True, known_boxes=(Box(1, 2.5, 3, 4),))), AnalysisRequest(b"")],
    )

    assert decode_batch(body_of(encode_message(batch))) == batch


@pytest.mark.parametrize("error", [UnsupportedImageError("GIF", format="GIF"), WeightsError("missing", tries=[1, 2])])
def test_an_error_keeps_its_class_detail_and_facts(error: VultusError) -> None:
    (received,) = decode_results(body_of(encode_results([error])))

    assert (type(received), str(received)) == (type(error), error.detail)
    assert isinstance(received, VultusError)
    assert received.facts == error.facts


def test_every_error_has_a_code_of_its_own() -> None:
    classes, waiting = set(), [VultusError]
    while waiting:
        found = waiting.pop()
        waiting += [one for one in found.__subclasses__() if one.__module__ == "vultus.errors"]
        classes.add(found)

    assert set(ERRORS_BY_CODE.values()) == classes


def test_the_message_of_a_defect_stays_in_the_worker() -> None:
    (received,) = decode_results(body_of(encode_results([KeyError("Ada")])))

    assert type(received) is RuntimeError
    assert "KeyError" in str(received)
    assert "Ada" not in str(received)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\xc1",
        b"cposix\nsystem\n.",
        pickle.dumps([WeightsError("missing")]),
        body_of(encode_message(Hello(1))),
        msgspec.msgpack.encode([1]),
        msgspec.msgpack.encode({}),
        answer_with(1),
        answer_with({"width": 1}),
        answer_with(["PhotoAnalyzed", None]),
        answer_with(["PhotoAnalyzed", {"width": "1", "height": 1, "sha256": "", "faces": []}]),
        answer_with(["Failure", "worker_lost"]),
        answer_with(["Failure", "no_such_code", "detail", {}]),
        answer_with(["Failure", "weights", "detail", {"detail": "two"}]),
        answer_with(["Failure", "weights", "detail", {"fact": {"nested": 1}}]),
        answer_with(["Failure", "weights", "detail", {"fact": b"bytes"}]),
        body_of(encode_message(BatchAnswer([Failure("ValueError", "", {})]))),
        body_of(encode_results([ANALYSIS]))[:-1],
        body_of(encode_results([ANALYSIS])) + b"\x00",
        analysis_with(landmarks=["|O", [5, 2], bytes(40)]),
        analysis_with(landmarks=["<f8", [5, 1], bytes(40)]),
        analysis_with(landmarks=["<f4", [5, 3], bytes(40)]),
        analysis_with(landmarks=["<f4", [5, -1], bytes(40)]),
        analysis_with(landmarks=["<f4", [10], bytes(39)]),
        analysis_with(landmarks=bytes(40)),
        analysis_with(liveness={"score": 0.5, "reason": "certainly"}),
        analysis_with(quality=None),
    ],
)
def test_an_answer_is_analyses_and_errors_or_refused(sent: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        decode_results(sent)


def test_the_malformed_answers_are_malformed_in_one_place_only() -> None:
    (received,) = decode_results(analysis_with())

    assert isinstance(received, Analysis)


def test_loaded_spaces_arrive_as_they_were_sent() -> None:
    rule = QualityRule(0.5, 40, 10, 30, 30)
    calibration = Calibration(((1e-3, 0.9), (1e-4, 0.95)), 0.02, "a data set", (40.0, -36.0))
    origins = (NetworkOrigin("mtcnn", "MIT", "Zhang 2016"), NetworkOrigin("dlib", "CC0", "King 2017"))
    spaces = [
        LoadedSpace(
            name, "net", "ab" * 32, "aligned", 128, calibration, rule, rule, name, *origins, True, {"detector": "CPU"}
        )
        for name in ("first", "second")
    ]

    received = decode_loaded(body_of(encode_loaded(SpaceRegistry(*spaces))))

    assert list(received) == spaces
    assert received.default == spaces[0]


def test_an_error_instead_of_loaded_spaces_is_raised() -> None:
    with pytest.raises(WeightsError, match="missing"):
        decode_loaded(body_of(encode_loaded(WeightsError("missing"))))


def test_another_version_is_refused() -> None:
    assert decode_hello(body_of(encode_message(Hello(7)))).pid == 7
    with pytest.raises(msgspec.ValidationError):
        decode_hello(msgspec.msgpack.encode(["Hello", 7, 1]))
