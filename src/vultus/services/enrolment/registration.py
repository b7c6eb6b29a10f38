"""Registering a person: consent first, every photo judged on its own, all of what is accepted or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from vultus.domain import (
    Actor,
    Candidate,
    Collection,
    Consent,
    Face,
    FloatArray,
    Fusion,
    Liveness,
    LivenessMode,
    Person,
)
from vultus.domain.decision import lookalike_threshold
from vultus.errors import (
    ConsentRequiredError,
    IdempotencyInFlightError,
    IdempotencyMismatchError,
    InvalidInputError,
    NoPhotoAcceptedError,
)
from vultus.services.collections import calibration_of, check_written, find_collection, under_contract
from vultus.services.enrolment.photo_screening import JudgedFace, RejectedPhoto, judge_photos
from vultus.services.enrolment.templates import enrol
from vultus.services.people.consents import ConsentGrant, add_consent, live_consent
from vultus.services.people.erasure import open_for_writing
from vultus.services.photo_analysis import Photo
from vultus.services.search.request import Query, ways
from vultus.utils import timing

if TYPE_CHECKING:
    from vultus.db.database import Database, Work
    from vultus.models.pipelines import Pipelines
    from vultus.services.crop_vault import CropVault
    from vultus.services.photo_analysis import Images
    from vultus.services.search.search import Searcher


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """Whom to register, from what, and with which consent.

    Attributes:
        collection: Id or name.
        photos: At least one.
        person_id: Add to this person; else
        external_id: finds the person or names a new one; else a new person is made.
        name: For people to read; need not be unique.
        metadata: Any JSON object; replaces the person's.
        consent: A new consent, or
        consent_id: a live one the person gave before.
        largest_face: Take the largest face of a photo that shows several.
        allow_lookalike: Enrol even if somebody else in the collection looks the same (twins, checked by a human).
        liveness: What is done about presentation attacks, beyond the collection's policy.
    """

    collection: str
    photos: tuple[Photo, ...]
    person_id: UUID | None = None
    external_id: str | None = None
    name: str | None = None
    metadata: dict[str, Any] | None = None
    consent: ConsentGrant | None = None
    consent_id: UUID | None = None
    largest_face: bool = False
    allow_lookalike: bool = False
    liveness: LivenessMode | None = None


@dataclass(frozen=True, slots=True)
class AcceptedFace:
    """An enrolled face and the photo, counted from 0, it came from."""

    photo: int
    filename: str | None
    face: Face
    liveness: Liveness | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """The outcome of a registration that stored at least one face; `created` when the person is new."""

    collection: Collection
    person: Person
    created: bool
    consent: Consent
    accepted: tuple[AcceptedFace, ...]
    rejected: tuple[RejectedPhoto, ...]


@dataclass(frozen=True, slots=True)
class Once:
    """Makes a registration happen at most once.

    Attributes:
        api_key_id: Whose key; two callers may use the same word.
        key: The Idempotency-Key.
        request_sha256: Digest of everything that was asked.
        encode: The answer as it will be replayed.
    """

    api_key_id: str
    key: str
    request_sha256: bytes
    encode: Callable[[Registered], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Replayed:
    """The stored answer to an earlier identical request."""

    body: dict[str, Any]


class Registrar:
    """Registers persons and adds faces to them."""

    def __init__(
        self,
        database: Database,
        images: Images,
        pipelines: Pipelines,
        searcher: Searcher,
        vault: CropVault,
        *,
        max_photos: int,
    ) -> None:
        self._database = database
        self._images = images
        self._pipelines = pipelines
        self._searcher = searcher
        self._vault = vault
        self._max_photos = max_photos

    async def register(self, request: RegistrationRequest, *, actor: Actor) -> Registered:
        """Enrol the usable faces of the photos for one person.

        What can be refused without the networks is refused first; the networks run outside any transaction; then one
        transaction checks for lookalikes and writes person, consent, faces and audit.

        Raises:
            ConsentRequiredError: Neither a consent nor a live consent's id was given.
            NoPhotoAcceptedError: No photo could be enrolled; its `rejected` fact says why for each.
            NotFoundError: The collection, person or consent does not exist.
        """

        async def attempt(home: Collection) -> Registered:
            judged, rejected = await self._judge(home, request)
            async with self._database.work() as work:
                return await self._write(work, home, request, judged, rejected, actor)

        return await under_contract(await self._home(request), attempt)

    async def register_once(self, request: RegistrationRequest, once: Once, *, actor: Actor) -> Registered | Replayed:
        """Register as `register` does, or replay the answer of an earlier identical request.

        The answer is stored in the transaction that writes the person: there is never one without the other.

        Raises:
            IdempotencyMismatchError: The key was used with another request.
            IdempotencyInFlightError: The key's first request is still running.
        """
        async with self._database.work(read_only=True) as work:
            if stored := await _replay(work, once):
                return stored

        async def attempt(home: Collection) -> Registered | Replayed:
            judged, rejected = await self._judge(home, request)
            async with self._database.work() as work:
                if not await work.idempotency.try_lock(once.api_key_id, once.key):
                    raise IdempotencyInFlightError("The first request with this Idempotency-Key is still running.")
                if stored := await _replay(work, once):
                    return stored
                done = await self._write(work, home, request, judged, rejected, actor)
                await work.idempotency.add(
                    api_key_id=once.api_key_id,
                    key=once.key,
                    request_sha256=once.request_sha256,
                    status=201,
                    body=once.encode(done),
                    person_id=done.person.id,
                )
            return done

        return await under_contract(await self._home(request), attempt)

    async def _home(self, request: RegistrationRequest) -> Collection:
        """Return where to register, having refused what can be refused without the networks."""
        _check(request, self._max_photos)
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, request.collection)
            person = await _existing(work, home, request)
            if request.consent_id:
                await live_consent(work, home, person, request.consent_id)
        return home

    async def _judge(
        self, home: Collection, request: RegistrationRequest
    ) -> tuple[list[JudgedFace], list[RejectedPhoto]]:
        return await judge_photos(
            self._images,
            request.photos,
            self._pipelines.of(home.contract_id),
            rule=home.policy.enrol,
            largest=request.largest_face,
            second=self._pipelines.of(home.second_contract_id) if home.second_contract_id else None,
            crops=home.policy.keep_crops,
            liveness=home.policy.liveness.at_least(request.liveness),
        )

    async def _write(
        self,
        work: Work,
        home: Collection,
        request: RegistrationRequest,
        judged: list[JudgedFace],
        rejected: list[RejectedPhoto],
        actor: Actor,
    ) -> Registered:
        # One writer a collection at a time: two requests must not both find the same new face unknown.
        now = await open_for_writing(work, str(home.id))
        check_written(home, now, home.policy.liveness.at_least(request.liveness))
        home = now
        existing = await _existing(work, home, request)
        judged, doubles = await self._without_doubles(work, home, request, existing, judged)
        rejected = sorted([*rejected, *doubles], key=lambda photo: photo.photo)
        if not judged:
            raise _nothing_accepted(rejected)
        person = await _write_person(work, home, request, existing)
        if request.consent:
            consent = await add_consent(work, home, person.id, request.consent)
        else:
            consent = await live_consent(work, home, person, request.consent_id)
        faces = await enrol(work, home, consent, judged, self._vault)
        await work.audit.add(
            actor,
            "faces.added" if existing else "person.registered",
            collection_id=home.id,
            person_id=person.id,
            object_id=consent.id,
            detail={"faces": len(faces), "rejected": len(rejected)},
        )
        accepted = tuple(
            AcceptedFace(judgement.photo, judgement.filename, face, judgement.face.liveness)
            for judgement, face in zip(judged, faces, strict=True)
        )
        return Registered(home, person, existing is None, consent, accepted, tuple(rejected))

    async def _without_doubles(
        self,
        work: Work,
        home: Collection,
        request: RegistrationRequest,
        person: Person | None,
        judged: list[JudgedFace],
    ) -> tuple[list[JudgedFace], list[RejectedPhoto]]:
        """Part with photos the person already has and with faces that are enrolled as somebody else."""
        known = await work.faces.sources_of(home.id, person.id) if person else frozenset()
        once = {face.sha256: face for face in reversed(judged) if face.sha256 not in known}
        fresh = [face for face in judged if once.get(face.sha256) is face]
        rejected = [_duplicate(face) for face in judged if once.get(face.sha256) is not face]
        if not fresh or request.allow_lookalike:
            return fresh, rejected
        calibration = calibration_of(home, self._pipelines.of(home.contract_id))
        query = Query(
            collection_id=home.id,
            contract_id=home.contract_id,
            probes=_vectors(fresh),
            limit=1,
            fusion=Fusion.BEST,
            needed=lambda size: (lookalike_threshold(home.policy, calibration, size), 0.0),
            **ways(home, home.contract_id),
        )
        with timing.stage("search"):
            found = await self._searcher.search(work, query)
        kept: list[JudgedFace] = []
        for face, result in zip(fresh, found, strict=True):
            limit = lookalike_threshold(home.policy, calibration, result.gallery_size)
            best = next((one for one in result.candidates if one.similarity >= limit), None)
            if best is None or (person is not None and best.person_id == person.id):
                kept.append(face)
            else:
                rejected.append(_lookalike(face, best, limit))
        return kept, rejected


def _check(request: RegistrationRequest, max_photos: int) -> None:
    if request.consent is None and request.consent_id is None:
        raise ConsentRequiredError(
            "Registering a face needs the person's consent: give its purpose and who recorded it, or the id of a "
            "live consent. Nothing was stored."
        )
    if request.consent is not None and request.consent_id is not None:
        raise InvalidInputError("Give either a new consent or the id of one, not both.")
    if request.consent_id is not None and request.person_id is None and request.external_id is None:
        raise InvalidInputError("A consent_id belongs to a person: give person_id or external_id too.")
    if request.person_id is None and request.external_id is None and request.name is None:
        raise InvalidInputError("Say who it is: give name, external_id or person_id.")
    if not 1 <= len(request.photos) <= max_photos:
        raise InvalidInputError(f"Send 1 to {max_photos} photos; {len(request.photos)} were sent.")


async def _existing(work: Work, home: Collection, request: RegistrationRequest) -> Person | None:
    if request.person_id is not None:
        return await work.persons.get(home.id, request.person_id)
    if request.external_id is not None:
        return await work.persons.by_external_id(home.id, request.external_id)
    return None


async def _write_person(work: Work, home: Collection, request: RegistrationRequest, existing: Person | None) -> Person:
    if existing is None:
        return await work.persons.add(
            home.id, external_id=request.external_id, name=request.name, metadata=request.metadata or {}
        )
    given = {"name": request.name, "metadata": request.metadata}
    changes = {field: value for field, value in given.items() if value is not None}
    return await work.persons.change(home.id, existing.id, **changes) if changes else existing


async def _replay(work: Work, once: Once) -> Replayed | None:
    stored = await work.idempotency.find(once.api_key_id, once.key)
    if stored is None:
        return None
    if stored.request_sha256 != once.request_sha256:
        raise IdempotencyMismatchError(
            "This Idempotency-Key was used before with another request; use a new key for a new request."
        )
    return Replayed(stored.body)


def _vectors(judged: list[JudgedFace]) -> FloatArray:
    return np.stack([face.face.vector for face in judged])


def _duplicate(face: JudgedFace) -> RejectedPhoto:
    detail = "the same photo is already enrolled for this person, or was sent twice"
    return RejectedPhoto(face.photo, face.filename, ("duplicate_photo",), detail)


def _lookalike(face: JudgedFace, other: Candidate, limit: float) -> RejectedPhoto:
    return RejectedPhoto(
        face.photo,
        face.filename,
        ("enrolled_as_other_person",),
        f"the face is already enrolled as another person, {other.person_id}; add to that person, or set "
        "allow_lookalike after a human has checked",
        {
            "person_id": str(other.person_id),
            "similarity": round(other.similarity, 4),
            "threshold": round(limit, 4),
        },
    )


def _nothing_accepted(rejected: list[RejectedPhoto]) -> NoPhotoAcceptedError:
    return NoPhotoAcceptedError(
        "No photo could be enrolled, so nothing was stored: "
        + "; ".join(f"photo {photo.photo + 1}: {photo.detail}" for photo in rejected),
        rejected=[
            {
                "photo": photo.photo,
                "filename": photo.filename,
                "reasons": list(photo.reasons),
                "detail": photo.detail,
                **photo.facts,
            }
            for photo in rejected
        ],
    )
