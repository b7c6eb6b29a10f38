"""Shadow comparison: a share of the recognitions is repeated in the second embedding space, in the background."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vultus.domain import Lane, Verdict
from vultus.errors import SERVER_FAULT_KINDS, NotFoundError, VultusError
from vultus.services.migration.comparison import get_disagreement_kind
from vultus.services.migration.policy_translation import convert_policy
from vultus.services.photo_analysis import Photo, find_matching_face
from vultus.services.recognition.verdicts import Recognition, decide_faces
from vultus.services.search.request import build_query

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import SpaceRegistry
    from vultus.services.photo_analysis import AnalysisEngine
    from vultus.services.recognition.verdicts import RecognizedFace
    from vultus.services.search.search import Searcher

log = logging.getLogger(__name__)

QUEUE_SIZE = 4
"""Photos held in memory for comparison; further ones are dropped."""

MAX_CANDIDATES = 2


@dataclass(frozen=True, slots=True)
class _ShadowJob:
    photo: Photo
    recognition: Recognition


class ShadowComparer:
    """Compares recognitions with their repetition in the second embedding space."""

    def __init__(self, database: Database, engine: AnalysisEngine, spaces: SpaceRegistry, searcher: Searcher) -> None:
        self._database = database
        self._engine = engine
        self._spaces = spaces
        self._searcher = searcher
        self._queue: asyncio.Queue[_ShadowJob] = asyncio.Queue(QUEUE_SIZE)

    def offer_recognition(self, photo: Photo, recognition: Recognition, share: float) -> None:
        """Queue a recognition for comparison, subject to the share and queue capacity; return immediately."""
        if recognition.faces and random.random() < share:  # noqa: S311  a sample, not a secret
            with contextlib.suppress(asyncio.QueueFull):
                self._queue.put_nowait(_ShadowJob(photo, recognition))

    async def compare_next(self) -> None:
        """Wait for a recognition that was offered, and compare it; one that cannot be compared is left out.

        Raises:
            VultusError: The server is at fault, and not what was to be compared.
        """
        answered = await self._queue.get()
        try:
            await self.compare_recognition(answered.photo, answered.recognition)
        except VultusError as error:
            if error.kind in SERVER_FAULT_KINDS:
                raise
            log.debug("a recognition was not compared: %s", error.code)

    async def compare_recognition(self, photo: Photo, recognition: Recognition) -> None:
        """Repeat a recognition in the second embedding space and store differences: ids and scores, no image.

        Raises:
            WorkerLostError: The process that analysed the photo ended.
        """
        collection = recognition.collection
        if collection.second_space_id is None:
            return
        space = self._spaces.get_space(collection.second_space_id)
        analysis = await self._engine.analyze_photo(photo.content, space.id, lane=Lane.BATCH)
        named: tuple[RecognizedFace, ...] = ()
        if analysis.faces:
            probes = np.stack([face.vector for face in analysis.faces])
            shadow_collection = replace(collection, policy=convert_policy(collection, space.id, self._spaces))
            found = await self._searcher.search(build_query(shadow_collection, space, probes, MAX_CANDIDATES))
            named = decide_faces(shadow_collection, space, analysis, found, MAX_CANDIDATES)
        by_face = {id(one.described): one for one in named}
        for active_face in recognition.faces:
            matching = find_matching_face(analysis.faces, active_face.described.face.box)
            await self._count_agreement(recognition, active_face, by_face[id(matching)] if matching else None)

    async def _count_agreement(
        self, recognition: Recognition, active_face: RecognizedFace, shadow_face: RecognizedFace | None
    ) -> None:
        """Count the comparison of one face; `shadow_face` is None if the second network did not detect it."""
        collection = recognition.collection
        persons = (_get_person_id(active_face), _get_person_id(shadow_face))
        verdicts = (active_face.decision.verdict, shadow_face.decision.verdict if shadow_face else None)
        agreed = verdicts[0] is verdicts[1] and persons[0] == persons[1]
        if not agreed:
            kind = f"{verdicts[0]}_no_face" if verdicts[1] is None else get_disagreement_kind(verdicts[0], verdicts[1])
            answers = {
                collection.space_id: _format_answer(active_face),
                str(collection.second_space_id): _format_answer(shadow_face),
            }
            with contextlib.suppress(NotFoundError):  # a person was erased, or the migration has ended
                async with self._database.transaction() as work:
                    await work.comparisons.add_shadow_disagreement(collection.id, kind, persons, answers)
        async with self._database.transaction() as work:
            await work.comparisons.add_shadow_comparison(collection.id, agreed=agreed)


def _get_person_id(face: RecognizedFace | None) -> UUID | None:
    """Return the id of the person that the verdict names; None if it names none."""
    if face is None or face.best is None or face.decision.verdict not in (Verdict.MATCH, Verdict.AMBIGUOUS):
        return None
    return face.best.person_id


def _format_answer(face: RecognizedFace | None) -> dict[str, Any] | None:
    if face is None:
        return None
    person = _get_person_id(face)
    return {
        "verdict": face.decision.verdict,
        "person_id": str(person) if person else None,
        "similarity": round(face.best.similarity, 4) if face.best else None,
        "threshold": round(face.decision.threshold, 4),
    }
