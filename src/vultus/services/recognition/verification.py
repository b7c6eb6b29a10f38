"""Verification: one-to-one comparison of two photos, or of a photo with an enrolled person."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import (
    Calibration,
    Collection,
    Decision,
    DecisionPolicy,
    DescribedFace,
    LivenessMode,
    Permission,
    Person,
    Verdict,
)
from vultus.domain.decision import decide_verdict, find_quality_faults
from vultus.domain.decision_records import Answer
from vultus.errors import InvalidInputError, KeyRingError, TooLargeError, UnsupportedImageError
from vultus.services.collections import (
    ensure_same_search_space,
    get_calibration,
    retry_if_collection_changed,
)
from vultus.services.people.persons import ensure_same_external_id
from vultus.services.photo_analysis import find_attack
from vultus.utils import metrics, timing

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import FloatArray, PersonReference, Principal, SpaceRegistry
    from vultus.services.limits import UsageLimiter
    from vultus.services.photo_analysis import Photo, PhotoAnalyzer
    from vultus.services.recognition.decision_log import DecisionLog


@dataclass(frozen=True, slots=True)
class PhotoComparison:
    """The faces of two photos, their cosine and verdict; no cosine if a face must be live and is not, or if hidden."""

    first: DescribedFace
    second: DescribedFace
    similarity: float | None
    probability: float | None
    decision: Decision


@dataclass(frozen=True, slots=True)
class Verification:
    """The face of a photo compared with an enrolled person.

    Attributes:
        similarity: Cosine; None if the person has no face, the photo's must be live and is not, or it is hidden.
        probability: Probability of a match by `Calibration.compute_probability`; None without a cosine.
    """

    person: Person
    face: DescribedFace
    similarity: float | None
    probability: float | None
    decision: Decision


class Verifier:
    """Makes one-to-one comparisons under a collection's policy."""

    def __init__(
        self,
        database: Database,
        analyzer: PhotoAnalyzer,
        spaces: SpaceRegistry,
        limiter: UsageLimiter,
        decisions: DecisionLog,
    ) -> None:
        self._database = database
        self._limiter = limiter
        self._analyzer = analyzer
        self._spaces = spaces
        self._decisions = decisions

    async def compare(
        self,
        principal: Principal,
        first: Photo,
        second: Photo,
        *,
        reference: str,
        largest: bool = False,
        liveness: LivenessMode | None = None,
    ) -> PhotoComparison:
        """Decide whether two photos show the same person; nothing is stored.

        Raises:
            NoFaceFoundError: A photo shows no face.
            SeveralFacesError: A photo shows several and `largest` is not set.
            ImageError: A photo is none. Of these errors, the detail and the fact `photo` say which photo.
        """
        async with self._database.hot_queries() as work:
            collection = await work.open(reference, principal, Permission.RECOGNIZE)
        space = self._spaces.get_space(collection.space_id)
        mode = collection.policy.liveness.get_stricter_mode(liveness)

        async def get_face(photo: Photo, name: str) -> DescribedFace:
            try:
                return await self._analyzer.get_single_face(photo, collection.space_id, largest=largest, liveness=mode)
            except (InvalidInputError, UnsupportedImageError, TooLargeError) as error:
                raise type(error)(f"{name}: {error.detail}", photo=name, **error.facts) from None

        first_face, second_face = await asyncio.gather(get_face(first, "first"), get_face(second, "second"))
        attack = find_attack(first_face, mode) or find_attack(second_face, mode)
        similarity = float(np.dot(first_face.vector, second_face.vector))
        faults = tuple(
            dict.fromkeys(
                self._find_quality_faults(first_face, collection.policy)
                + self._find_quality_faults(second_face, collection.policy)
            )
        )
        calibration = get_calibration(collection, space)
        decision = self._build_decision([] if attack else [similarity], collection.policy, calibration, faults, attack)
        if not principal.may_see_scores:
            return PhotoComparison(first_face, second_face, None, None, decision.hide_scores())
        if attack:
            return PhotoComparison(first_face, second_face, None, None, decision)
        return PhotoComparison(
            first_face, second_face, similarity, calibration.compute_probability(similarity), decision
        )

    async def verify(
        self,
        principal: Principal,
        photo: Photo,
        *,
        reference: str,
        person: PersonReference,
        external_id: str | None = None,
        largest: bool = False,
        liveness: LivenessMode | None = None,
    ) -> Verification:
        """Decide whether a photo shows an enrolled person.

        Args:
            principal: The caller.
            photo: Of one person.
            reference: Id or name of the collection.
            person: Whom it should show.
            external_id: Theirs, if it was given too.
            largest: Take the largest face where several are found.
            liveness: Liveness mode, if stricter than the collection's policy.

        Raises:
            NotFoundError: There is no such collection or person.
            PersonMismatchError: The person has another external id.
            NoFaceFoundError: The photo shows no face.
            SeveralFacesError: It shows several and `largest` is not set.
            SearchLimitError: The caller's key may not search any more in this hour.
            VerificationLimitError: Too many verifications of the person with the caller's key have failed.
        """
        async with self._database.transaction(read_only=True) as work:
            found = await work.open(reference, principal, Permission.RECOGNIZE)
            expected = await work.persons.get_person(found.id, person)
            ensure_same_external_id(expected, external_id)

        async def run_attempt(collection: Collection) -> Verification:
            return await self._verify_once(principal, photo, collection, expected.id, liveness, largest=largest)

        await self._limiter.charge_searches(principal, 1)
        async with self._limiter.attempt_verification(principal, expected.id) as attempt:
            result = await retry_if_collection_changed(found, run_attempt)
            attempt.has_failed = result.decision.verdict in {Verdict.NO_MATCH, Verdict.NOT_LIVE}
        return result

    async def _verify_once(
        self,
        principal: Principal,
        photo: Photo,
        collection: Collection,
        person_id: UUID,
        liveness: LivenessMode | None,
        *,
        largest: bool,
    ) -> Verification:
        """Verify on the assumption that the collection is still as given.

        Raises:
            CollectionChangedError: It is not, and the photo must be analyzed again.
        """
        space = self._spaces.get_space(collection.space_id)
        mode = collection.policy.liveness.get_stricter_mode(liveness)
        face = await self._analyzer.get_single_face(photo, collection.space_id, largest=largest, liveness=mode)
        attack = find_attack(face, mode)
        current, enrolled, best = await self._compare_again(principal, collection, person_id, mode, face.vector)
        similarity = None if best is None or attack else best[0]
        scores = [] if similarity is None else [similarity]
        calibration = get_calibration(current, space)
        decision = self._build_decision(
            scores, current.policy, calibration, self._find_quality_faults(face, current.policy), attack
        )
        answer = Answer(
            decision=decision,
            person_id=enrolled.id,
            face_id=best and best[1],
            similarity=similarity,
            liveness=face.liveness,
        )
        await self._decisions.record(principal, current, space, "verify", [answer])
        if not principal.may_see_scores:
            return Verification(enrolled, face, None, None, decision.hide_scores())
        probability = None if similarity is None else calibration.compute_probability(similarity)
        return Verification(enrolled, face, similarity, probability, decision)

    async def _compare_again(
        self, principal: Principal, collection: Collection, person_id: UUID, mode: LivenessMode, vector: FloatArray
    ) -> tuple[Collection, Person, tuple[float, UUID] | None]:
        """Do as `_compare_enrolled`, again if the person got another key after its transaction saw the database."""
        try:
            return await self._compare_enrolled(principal, collection, person_id, mode, vector)
        except KeyRingError:
            return await self._compare_enrolled(principal, collection, person_id, mode, vector)

    async def _compare_enrolled(
        self, principal: Principal, collection: Collection, person_id: UUID, mode: LivenessMode, vector: FloatArray
    ) -> tuple[Collection, Person, tuple[float, UUID] | None]:
        """Return collection and person as they are now, and the person's cosine to a (d,) vector and closest face."""
        async with self._database.transaction(read_only=True) as work:
            current = await work.open(str(collection.id), principal, Permission.RECOGNIZE)
            ensure_same_search_space(collection, current, mode)
            enrolled = await work.persons.get_person(collection.id, person_id)
            with timing.measure_stage("search"):
                best = await work.templates.find_person_similarity(
                    collection.id, enrolled.id, current.space_id, vector, current.policy.fusion
                )
        return current, enrolled, best

    @staticmethod
    def _build_decision(
        similarities: list[float],
        policy: DecisionPolicy,
        calibration: Calibration,
        faults: tuple[str, ...],
        attack: str | None = None,
    ) -> Decision:
        decision = decide_verdict(
            similarities,
            policy=policy,
            calibration=calibration,
            gallery_size=len(similarities),
            is_search=False,
            faults=faults,
            attack_reason=attack,
        )
        metrics.get_labelled(metrics.VERDICTS, "verify", decision.verdict.value).inc()
        return decision

    @staticmethod
    def _find_quality_faults(face: DescribedFace, policy: DecisionPolicy) -> tuple[str, ...]:
        return find_quality_faults(face.quality, face.face.score, policy.recognize)
