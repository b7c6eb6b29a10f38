"""Every photo yields a vector or a named failure, in the order of the data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vultus.domain import Analysis, Box, DescribedFace, DetectedFace, Embedding, Quality
from vultus.errors import InvalidInputError
from vultus.evaluation.datasets import read_person_folders
from vultus.evaluation.runner import PhotoFailure, describe_photos, find_central_face

QUALITY = Quality(100, 100, 0.5, 0, 0, 0)


def face(box: Box) -> DescribedFace:
    return DescribedFace(
        DetectedFace(box, np.zeros((5, 2), np.float32), 0.9), QUALITY, Embedding(np.ones(1, np.float32), "fake")
    )


def chosen(*boxes: Box) -> Box:
    best = find_central_face(Analysis(250, 250, "", tuple(map(face, boxes))))
    assert best is not None
    return best.face.box


def test_photos_keep_their_order_whatever_thread_is_first(folder: Path, pipeline: Any) -> None:
    data = read_person_folders(folder)
    calls: list[tuple[int, int]] = []

    described = describe_photos(pipeline, data, workers=4, progress=lambda done, all_: calls.append((done, all_)))

    assert calls == [(done, 26) for done in range(1, 27)]
    assert (
        described.vectors[described.has_vector].argmax(axis=1).tolist()
        == data.person_indices[described.has_vector].tolist()
    )
    assert np.allclose(np.linalg.norm(described.vectors[described.has_vector], axis=1), 1)


def test_photos_without_a_face_are_named_with_the_reason(folder: Path, pipeline: Any) -> None:
    described = describe_photos(pipeline, read_person_folders(folder), workers=1)

    assert described.failures == (
        PhotoFailure("person_0/person_0_0003.jpg", "no_face"),
        PhotoFailure("person_1/person_1_0004.jpg", "not_an_image"),
    )
    assert described.multi_face_count == 1
    assert not described.vectors[~described.has_vector].any()
    assert [face is None for face in described.faces] == (~described.has_vector).tolist()


def test_time_is_reported_by_stage(folder: Path, pipeline: Any) -> None:
    timing = describe_photos(pipeline, read_person_folders(folder), workers=2).timing

    assert [(stage.stage, stage.median_ms) for stage in timing.stages] == [
        ("decode", 1),
        ("detect", 2),
        ("embed", 3),
        ("total", 6),
    ]
    assert timing.photos_per_s > 0


def test_a_data_set_without_any_face_is_refused(tmp_path: Path, pipeline: Any) -> None:
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada/1.jpg").write_text("none")

    with pytest.raises(InvalidInputError, match="No face was found in any of the 1 photos"):
        describe_photos(pipeline, read_person_folders(tmp_path), workers=1)


def test_the_central_face_is_the_subject() -> None:
    centre = Box(85, 85, 165, 165)

    assert chosen(Box(0, 0, 120, 120), centre) == centre
    assert chosen(Box(110, 110, 130, 130), centre) == centre
    assert chosen(Box(-40, -40, 290, 290), centre) == Box(-40, -40, 290, 290)


def test_a_large_face_beside_the_middle_does_not_win() -> None:
    tiny = Box(120, 120, 122, 122)

    assert chosen(Box(900, 900, 1400, 1400), tiny) == tiny
    assert chosen(Box(20, 20, 200, 200), tiny) == tiny


def test_no_faces_no_choice() -> None:
    assert find_central_face(Analysis(10, 10, "", ())) is None
