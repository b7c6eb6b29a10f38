"""Identification in a gallery of people who resemble each other: as deep as the verdict and the assignment need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.callers import CALLER
from tests.db.test_engine import NumpyEngine

from vultus.domain import Analysis, Box, DescribedFace, DetectedFace, Embedding, Quality, Verdict
from vultus.services.limits import UsageLimiter
from vultus.services.people.last_seen import LastSeenLog
from vultus.services.photo_analysis import Photo
from vultus.services.recognition.decision_log import DecisionLog
from vultus.services.recognition.identification import Recognizer
from vultus.services.search.recall_monitor import RecallMonitor
from vultus.services.search.search import Searcher
from vultus.settings import IndexSettings, LimitSettings

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray, SpaceRegistry
    from vultus.services.collections import CollectionService

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
TILTS = (0.0, 0.1, 0.2, 0.3)
"""Angles of four persons to the first axis: every one's cosine to every other is above the threshold."""

SHARP = Quality(size_px=200, sharpness=5000, brightness=0.5, yaw_deg=0, pitch_deg=0, roll_deg=0)


class Analyzer:
    """In place of the networks: finds one face per vector in every photo."""

    def __init__(self, space_id: str, vectors: list[FloatArray]) -> None:
        face = DetectedFace(Box(0, 0, 200, 200), np.zeros((5, 2), np.float32), 1.0)
        self._faces = tuple(DescribedFace(face, SHARP, Embedding(vector, space_id)) for vector in vectors)

    async def analyze_photo(self, *_: Any, **__: Any) -> Analysis:
        return Analysis(800, 200, "", self._faces)


@pytest.fixture
async def recognizer(
    database: Database,
    collections: CollectionService,
    collection: Collection,
    spaces: SpaceRegistry,
    enrol: Enrol,
    towards: Towards,
) -> Recognizer:
    """Of a photo with three faces, in a collection of four persons."""
    await collections.update_collection(CALLER, "home", policy={"threshold": 0.9, "margin": 0.002})
    async with database.transaction() as work:
        for number, tilt in enumerate(TILTS):
            await enrol(work, collection, f"p{number}", towards(0, tilt))
    without: Any = None
    analyzer: Any = Analyzer(collection.space_id, [towards(0, tilt) for tilt in (-0.02, -0.01, 0.0)])
    decisions = DecisionLog(database, LastSeenLog(database))
    nobody = NumpyEngine(np.empty(0, np.int64), np.empty((0, 0), np.float32), forgets_after=0)
    searcher = Searcher(database, nobody, RecallMonitor(0, 0), IndexSettings())
    return Recognizer(database, analyzer, spaces, searcher, without, UsageLimiter(database, LimitSettings()), decisions)


async def recognize(recognizer: Recognizer, **options: Any) -> list[tuple[Verdict, list[str | None], bool]]:
    """Return per face the verdict, the candidates' external ids, and whether there was a runner-up."""
    found = await recognizer.recognize(CALLER, Photo(b"", None), reference="home", **options)
    return [
        (face.decision.verdict, [one.external_id for one in face.candidates or ()], face.decision.margin is not None)
        for face in found.faces
    ]


async def test_every_face_gets_a_person_of_its_own_though_all_resemble_the_same_two(recognizer: Recognizer) -> None:
    found = await recognize(recognizer, limit=1, unique_per_image=True)

    assert sorted(candidates for _, candidates, _ in found) == [["p0"], ["p1"], ["p2"]]
    assert Verdict.NO_MATCH not in {verdict for verdict, _, _ in found}


async def test_the_runner_up_counts_though_one_candidate_is_asked_for(recognizer: Recognizer) -> None:
    assert await recognize(recognizer, limit=1) == [(Verdict.MATCH, ["p0"], True)] * 3


async def test_candidates_are_as_many_as_asked_for_or_there_are(recognizer: Recognizer) -> None:
    assert [candidates for _, candidates, _ in await recognize(recognizer, limit=3)] == [["p0", "p1", "p2"]] * 3
    assert [len(candidates) for _, candidates, _ in await recognize(recognizer, limit=9)] == [len(TILTS)] * 3
