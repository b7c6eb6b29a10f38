"""The second contract answers a share of the recognitions too, behind the caller's back and when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vultus.domain import Verdict
from vultus.errors import NotFoundError, VultusError
from vultus.services.migration.comparison import kind_of
from vultus.services.migration.policy_translation import policy_under
from vultus.services.photo_analysis import Photo, same_face
from vultus.services.recognition.verdicts import Recognition, name_faces
from vultus.services.search.request import query_of

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.models.pipelines import Pipelines
    from vultus.models.workers.pool import AnalysisPool
    from vultus.services.recognition.verdicts import NamedFace
    from vultus.services.search.search import Searcher

log = logging.getLogger(__name__)

WAITING = 4
"""Photos held in memory for their second answer; further ones are not compared."""

PATIENCE_S = 10.0
CANDIDATES = 2


@dataclass(frozen=True, slots=True)
class _Answered:
    photo: Photo
    recognition: Recognition


class Shadow:
    """Compares answers that were given with those the second contract would have given."""

    def __init__(self, database: Database, pool: AnalysisPool, pipelines: Pipelines, searcher: Searcher) -> None:
        self._database = database
        self._pool = pool
        self._pipelines = pipelines
        self._searcher = searcher
        self._waiting: asyncio.Queue[_Answered] = asyncio.Queue(WAITING)

    def offer(self, photo: Photo, recognition: Recognition, share: float) -> None:
        """Have a recognition compared, if chance and room allow; returns at once."""
        if recognition.faces and random.random() < share:  # noqa: S311  a sample, not a secret
            with contextlib.suppress(asyncio.QueueFull):
                self._waiting.put_nowait(_Answered(photo, recognition))

    async def forever(self) -> None:
        """Compare what was offered, for ever."""
        while True:
            answered = await self._waiting.get()
            try:
                await self.compare(answered.photo, answered.recognition)
            except VultusError as error:
                log.debug("a recognition was not compared: %s", error.code)
            except Exception as error:
                log.error("a recognition was not compared", exc_info=error)

    async def compare(self, photo: Photo, recognition: Recognition) -> None:
        """Answer a photo by the second contract, and keep where that differs: ids and scores, no picture.

        Raises:
            OverloadedError: The analysis threads are busy after all.
        """
        home = recognition.collection
        if home.second_contract_id is None:
            return
        pipeline = self._pipelines.of(home.second_contract_id)
        await self._pool.room(PATIENCE_S)
        analysis = await self._pool.analyze(photo.content, pipeline)
        named: tuple[NamedFace, ...] = ()
        if analysis.faces:
            probes = np.stack([face.vector for face in analysis.faces])
            there = replace(home, policy=policy_under(home, pipeline.contract.id, self._pipelines))
            async with self._database.work(read_only=True) as work:
                found = await self._searcher.search(work, query_of(there, pipeline, probes, CANDIDATES))
            named = name_faces(there, pipeline, analysis, found, CANDIDATES)
        by_face = {id(one.described): one for one in named}
        for ours in recognition.faces:
            seen = same_face(analysis.faces, ours.described.face.box)
            await self._count(recognition, ours, by_face[id(seen)] if seen else None)

    async def _count(self, recognition: Recognition, ours: NamedFace, theirs: NamedFace | None) -> None:
        """Count one face; the second contract may not have seen it."""
        home = recognition.collection
        persons = (_named(ours), _named(theirs))
        verdicts = (ours.decision.verdict, theirs.decision.verdict if theirs else None)
        agreed = verdicts[0] is verdicts[1] and persons[0] == persons[1]
        if not agreed:
            kind = f"{verdicts[0]}_no_face" if verdicts[1] is None else kind_of(verdicts[0], verdicts[1])
            answers = {home.contract_id: _answer(ours), str(home.second_contract_id): _answer(theirs)}
            with contextlib.suppress(NotFoundError):  # somebody it names was erased, or the transition ended
                async with self._database.work() as work:
                    await work.comparisons.add_disagreement(home.id, kind, persons, answers)
        async with self._database.work() as work:
            await work.comparisons.count_shadow(home.id, agreed=agreed)


def _named(face: NamedFace | None) -> UUID | None:
    """Return who a face was said to be."""
    if face is None or face.decision.verdict not in (Verdict.MATCH, Verdict.AMBIGUOUS):
        return None
    return face.candidates[0].person_id


def _answer(face: NamedFace | None) -> dict[str, Any] | None:
    if face is None:
        return None
    person = _named(face)
    return {
        "verdict": face.decision.verdict,
        "person_id": str(person) if person else None,
        "similarity": round(face.candidates[0].similarity, 4) if face.candidates else None,
        "threshold": round(face.decision.threshold, 4),
    }
