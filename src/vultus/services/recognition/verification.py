"""Is this the person? One-to-one comparisons: two photos, or a photo against an enrolled person."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import Calibration, Collection, Decision, DecisionPolicy, DescribedFace, LivenessMode, Person
from vultus.domain.decision import decide, quality_faults
from vultus.services.collections import calibration_of, check_searched, find_collection, under_contract
from vultus.services.photo_analysis import rejected
from vultus.utils import timing

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.models.pipelines import Pipelines
    from vultus.services.photo_analysis import Images, Photo


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two photos' faces, their cosine and the verdict; no cosine where a face that must be live is not."""

    first: DescribedFace
    second: DescribedFace
    similarity: float | None
    probability: float | None
    decision: Decision


@dataclass(frozen=True, slots=True)
class Verification:
    """A photo's face against one enrolled person; similarity is None when the person has no face.

    `probability` is that of `Calibration`.
    """

    person: Person
    face: DescribedFace
    similarity: float | None
    probability: float | None
    decision: Decision


class Verifier:
    """One-to-one comparisons under a collection's policy."""

    def __init__(self, database: Database, images: Images, pipelines: Pipelines) -> None:
        self._database = database
        self._images = images
        self._pipelines = pipelines

    async def compare(
        self,
        first: Photo,
        second: Photo,
        *,
        collection: str,
        largest: bool = False,
        liveness: LivenessMode | None = None,
    ) -> Comparison:
        """Say whether two photos show the same person; nothing is stored.

        Raises:
            NoFaceFoundError: A photo shows no face.
            SeveralFacesError: A photo shows several and `largest` is not set.
        """
        async with self._database.look() as work:
            home = await find_collection(work, collection)
        pipeline = self._pipelines.of(home.contract_id)
        mode = home.policy.liveness.at_least(liveness)
        one, other = await asyncio.gather(
            self._images.one_face(first, pipeline, largest=largest, liveness=mode),
            self._images.one_face(second, pipeline, largest=largest, liveness=mode),
        )
        attack = rejected(one, mode) or rejected(other, mode)
        similarity = float(np.dot(one.vector, other.vector))
        faults = tuple(dict.fromkeys(self._faults(one, home.policy) + self._faults(other, home.policy)))
        calibration = calibration_of(home, pipeline)
        decision = self._decide([] if attack else [similarity], home.policy, calibration, faults, attack)
        if attack:
            return Comparison(one, other, None, None, decision)
        return Comparison(one, other, similarity, calibration.probability(similarity), decision)

    async def verify(
        self,
        photo: Photo,
        *,
        collection: str,
        person_id: UUID,
        largest: bool = False,
        liveness: LivenessMode | None = None,
    ) -> Verification:
        """Say whether a photo shows an enrolled person.

        Raises:
            NotFoundError: No such person in the collection.
            NoFaceFoundError: The photo shows no face.
            SeveralFacesError: It shows several and `largest` is not set.
        """
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, collection)
            await work.persons.get(home.id, person_id)

        async def attempt(home: Collection) -> Verification:
            pipeline = self._pipelines.of(home.contract_id)
            mode = home.policy.liveness.at_least(liveness)
            face = await self._images.one_face(photo, pipeline, largest=largest, liveness=mode)
            attack = rejected(face, mode)
            async with self._database.work(read_only=True) as work:
                now = await work.collections.get(home.id)
                check_searched(home, now, mode)
                person = await work.persons.get(home.id, person_id)
                with timing.stage("search"):
                    best = await work.faces.best_of_person(
                        home.id, person_id, now.contract_id, face.vector, now.policy.fusion
                    )
            similarity = None if best is None or attack else best[0]
            scores = [] if similarity is None else [similarity]
            calibration = calibration_of(now, pipeline)
            decision = self._decide(scores, now.policy, calibration, self._faults(face, now.policy), attack)
            likely = None if similarity is None else calibration.probability(similarity)
            return Verification(person, face, similarity, likely, decision)

        return await under_contract(home, attempt)

    @staticmethod
    def _decide(
        similarities: list[float],
        policy: DecisionPolicy,
        calibration: Calibration,
        faults: tuple[str, ...],
        not_live: str | None = None,
    ) -> Decision:
        return decide(
            similarities,
            policy=policy,
            calibration=calibration,
            gallery_size=len(similarities),
            faults=faults,
            not_live=not_live,
        )

    @staticmethod
    def _faults(face: DescribedFace, policy: DecisionPolicy) -> tuple[str, ...]:
        return quality_faults(face.quality, face.face.score, policy.recognize)
