"""The drawn people are whom the networks take them for: faces, distinct ones, and each the same in every photo."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from tests.networks import load_pipeline
from tests.weights import FOLDER, real_weights

from vultus.demo.film import FPS, LOOP_S, WALKS, draw_frame, list_walkers
from vultus.demo.people import CAST, NEWCOMER, STAFF, STRANGER, TAKES, draw_group, photograph
from vultus.models.catalog.packs import BUILTIN, RECOMMENDED
from vultus.models.pipeline import FacePipeline
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

FACES = (*(character.face for character in CAST), STRANGER, NEWCOMER)


@cache
def open_pipeline(pack: str) -> FacePipeline:
    if pack == BUILTIN.name:
        return load_pipeline()
    for network in (RECOMMENDED.detector, RECOMMENDED.embedder):
        for file in network.files.values():
            real_weights(file.filename)
    return FacePipeline.load(InferenceSettings(), PhotoSettings(), WeightsStore(FOLDER), pack=pack)


@cache
def take_photo(face: int, take: int) -> bytes:
    return photograph(face, take)


@pytest.mark.parametrize("pack", [BUILTIN.name, RECOMMENDED.name])
def test_photos_are_enrolled_by_the_rules_and_tell_the_people_apart(pack: str) -> None:
    pipeline = open_pipeline(pack)
    rule, vectors = pipeline.enrol_rule, []
    for face in FACES:
        for take in range(len(TAKES)):
            (found,) = pipeline.analyze_photo(take_photo(face, take)).faces
            quality = found.quality
            assert found.face.score >= rule.min_score, (face, take)
            assert quality.sharpness >= rule.min_sharpness, (face, take)
            assert quality.face_score is not None
            assert quality.face_score >= rule.min_face_score, (face, take)
            assert abs(quality.yaw_deg) <= rule.max_yaw_deg, (face, take)
            assert found.embedding is not None
            vectors.append(found.embedding.vector)

    cosines = np.array(vectors) @ np.array(vectors).T
    people = np.repeat(np.arange(len(FACES)), len(TAKES))
    same = people[:, None] == people
    threshold = pipeline.calibration.get_threshold(pipeline.calibration.default_fmr)
    assert cosines[same].min() > threshold > cosines[~same].max()


def test_nobody_is_in_the_demo_twice() -> None:
    names = [character.name for character in (*CAST, *STAFF)]

    assert len(set(names)) == len(names)
    assert len({*FACES, *(character.face for character in STAFF)}) == len(FACES) + len(STAFF)


def test_the_film_shows_everybody_one_after_another_and_some_together() -> None:
    together = {len(list_walkers(number / FPS)) for number in range(round(LOOP_S * FPS))}
    middle = WALKS[0].begin_s + WALKS[0].seconds / 2
    (walk, left, _), *_ = list_walkers(middle)
    columns = slice(round(left), round(left) + walk.side_px)
    shown, empty = (draw_frame(round(at * FPS))[:, columns].astype(int) for at in (middle, LOOP_S - 1))

    assert together == {0, 1, 2}
    assert {walk.face for walk in WALKS} >= {STRANGER, CAST[0].face}
    assert max(walk.begin_s + walk.seconds for walk in WALKS) < LOOP_S
    assert abs(shown - empty).mean() > 10


def test_the_group_has_three_of_the_cast_and_a_stranger() -> None:
    pipeline = open_pipeline(BUILTIN.name)

    assert len(pipeline.analyze_photo(draw_group()).faces) == 4
