"""Verdicts of the faces of one photo: who may take a person from whom, and how the gallery's size counts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest

from vultus.domain import (
    Analysis,
    Box,
    Calibration,
    Candidate,
    DescribedFace,
    DetectedFace,
    Liveness,
    LivenessMode,
    LivenessReason,
    Quality,
    SearchResult,
    Verdict,
)
from vultus.services.recognition.verdicts import decide_faces

if TYPE_CHECKING:
    from vultus.domain import Collection, SpaceRegistry

SHARP = Quality(size_px=200, sharpness=5000, brightness=0.5, yaw_deg=0, pitch_deg=0, roll_deg=0)
BLURRED = replace(SHARP, sharpness=0)
CALIBRATION = Calibration(((1e-2, 0.5), (1e-4, 0.7), (1e-6, 0.9)), margin=0.05, source="made up")
ADA, BOB, EVE = (UUID(int=number) for number in (1, 2, 3))


def face(quality: Quality = SHARP, liveness: LivenessReason | None = None) -> DescribedFace:
    detected = DetectedFace(Box(0, 0, 200, 200), np.zeros((5, 2), np.float32), 1.0)
    return DescribedFace(detected, quality, None, liveness=Liveness(0.5, liveness) if liveness else None)


def result(*similarities: tuple[UUID, float], size: int = 10) -> SearchResult:
    candidates = tuple(Candidate(person, None, None, person, similarity) for person, similarity in similarities)
    return SearchResult(candidates, size)


def decide(
    collection: Collection,
    spaces: SpaceRegistry,
    *faces: tuple[DescribedFace, SearchResult],
    policy: dict[str, Any] | None = None,
    **options: Any,
) -> list[tuple[Verdict, list[UUID]]]:
    """Return the verdict and the candidates of every face, by a calibration that is the collection's own."""
    collection = replace(
        collection,
        policy=replace(collection.policy, **policy or {}),
        calibrations={collection.space_id: CALIBRATION},
    )
    analysis = Analysis(400, 400, "", tuple(each for each, _ in faces))
    decided = decide_faces(
        collection,
        spaces.default,
        analysis,
        [found for _, found in faces],
        3,
        **{"unique_per_image": True} | options,
    )
    return [(one.decision.verdict, [candidate.person_id for candidate in one.candidates or ()]) for one in decided]


async def test_a_face_of_low_quality_takes_nobody_from_another_face(
    collection: Collection, spaces: SpaceRegistry
) -> None:
    closest = (face(BLURRED), result((ADA, 0.99), (BOB, 0.3)))
    farther = (face(), result((ADA, 0.8), (BOB, 0.3)))

    for faces in ((closest, farther), (farther, closest)):
        decided = dict(decide(collection, spaces, *faces))

        assert decided == {Verdict.LOW_QUALITY: [ADA, BOB], Verdict.MATCH: [ADA, BOB]}


async def test_an_attack_takes_nobody_from_another_face(collection: Collection, spaces: SpaceRegistry) -> None:
    attack = (face(liveness=LivenessReason.SPOOF), result((ADA, 0.99)))
    live = (face(liveness=LivenessReason.LIVE), result((ADA, 0.8)))

    decided = decide(collection, spaces, attack, live, liveness=LivenessMode.REQUIRED)

    assert decided == [(Verdict.NOT_LIVE, []), (Verdict.MATCH, [ADA])]


async def test_of_two_good_faces_the_closer_one_keeps_the_person(collection: Collection, spaces: SpaceRegistry) -> None:
    faces = ((face(), result((ADA, 0.8), (BOB, 0.75))), (face(), result((ADA, 0.95), (EVE, 0.3))))

    assert decide(collection, spaces, *faces) == [(Verdict.MATCH, [BOB]), (Verdict.MATCH, [ADA, EVE])]
    assert [verdict for verdict, _ in decide(collection, spaces, *faces, unique_per_image=False)] == [
        Verdict.MATCH,
        Verdict.MATCH,
    ]


@pytest.mark.parametrize(
    ("size", "first"),
    [
        (10, (Verdict.MATCH, [ADA])),  # at FMR 1e-3 the threshold is 0.6: the pair of both faces is worth most
        (100_000, (Verdict.NO_MATCH, [ADA])),  # at FMR 1e-7 it is 0.9, which nobody reaches: nothing is assigned
    ],
)
async def test_persons_are_assigned_at_the_threshold_that_the_size_of_the_gallery_requires(
    collection: Collection, spaces: SpaceRegistry, size: int, first: tuple[Verdict, list[UUID]]
) -> None:
    faces = ((face(), result((ADA, 0.8), size=size)), (face(), result((ADA, 0.7), size=size)))

    decided = decide(collection, spaces, *faces, policy={"target_fmr": None, "target_fpir": 0.01})

    assert decided[0] == first
    assert decided[1] == (Verdict.NO_MATCH, [] if size == 10 else [ADA])
