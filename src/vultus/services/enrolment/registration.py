"""Registration of a person: consent first, each photo screened, all accepted faces stored together or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from vultus.domain import (
    Collection,
    Consent,
    Face,
    FloatArray,
    IdempotencyContext,
    Lane,
    Liveness,
    LivenessMode,
    Permission,
    Person,
    PersonReference,
    Principal,
)
from vultus.domain.events import FacesAdded, PersonRegistered
from vultus.domain.metadata import require_metadata
from vultus.domain.texts import require_optional_text
from vultus.errors import ConsentRequiredError, InvalidInputError, NoPhotoAcceptedError, PersonMismatchError
from vultus.services.collections import (
    ensure_same_write_spaces,
    retry_if_collection_changed,
)
from vultus.services.enrolment.lookalikes import Lookalike, LookalikeFinder, LookalikeSearch
from vultus.services.enrolment.photo_screening import AcceptedFace, RejectedPhoto, screen_photos
from vultus.services.enrolment.templates import enrol_faces
from vultus.services.people.consents import ConsentGrant, add_consent, get_live_consent
from vultus.services.people.erasure import release_external_id
from vultus.services.people.persons import build_person_change, ensure_same_external_id
from vultus.services.photo_analysis import Photo

if TYPE_CHECKING:
    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import SpaceRegistry
    from vultus.services.crop_vault import CropVault
    from vultus.services.limits import UsageLimiter
    from vultus.services.photo_analysis import PhotoAnalyzer
    from vultus.services.search.search import Searcher
    from vultus.settings import PhotoSettings


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """A person to register, with photos and a consent; texts are normalised, or refused, as it is built.

    Attributes:
        collection: Id or name.
        photos: At least one.
        person: Add to this person; else
        external_id: finds the person, or is given to a new one; else a new person is created. Beside `person`: theirs.
        name: Display name; need not be unique. Of a person who has one: that one.
        metadata: Any JSON object; replaces the person's.
        consent: A new consent, or
        consent_id: a live one that the person gave before.
        largest_face: Take the largest face of a photo that shows several.
        allow_lookalike: Enrol even if another person in the collection looks the same (twins, checked by a human).
        liveness: Liveness mode, if stricter than the collection's policy.
        lane: How urgent the analysis of the photos is.
    """

    collection: str
    photos: tuple[Photo, ...]
    person: PersonReference | None = None
    external_id: str | None = None
    name: str | None = None
    metadata: dict[str, Any] | None = None
    consent: ConsentGrant | None = None
    consent_id: UUID | None = None
    largest_face: bool = False
    allow_lookalike: bool = False
    liveness: LivenessMode | None = None
    lane: Lane = Lane.INTERACTIVE

    def __post_init__(self) -> None:
        """Apply the rule for texts.

        Raises:
            InvalidInputError: Name, external id or metadata cannot be kept.
        """
        object.__setattr__(self, "name", require_optional_text("The name", self.name))
        object.__setattr__(self, "external_id", require_optional_text("The external_id", self.external_id))
        if self.metadata is not None:
            object.__setattr__(self, "metadata", require_metadata(self.metadata))


@dataclass(frozen=True, slots=True)
class RegisteredFace:
    """An enrolled face and its photo, counted from 0."""

    photo: int
    filename: str | None
    face: Face
    liveness: Liveness | None = None


@dataclass(frozen=True, slots=True)
class RegistrationResult:
    """Result of a registration that stored at least one face; `created` if the person is new."""

    collection: Collection
    person: Person
    created: bool
    consent: Consent
    accepted: tuple[RegisteredFace, ...]
    rejected: tuple[RejectedPhoto, ...]


@dataclass(frozen=True, slots=True)
class _ScreenedPhotos:
    """The photos of a registration before its collection is locked; `lookalikes` of `accepted`, None if allowed."""

    accepted: list[AcceptedFace]
    rejected: list[RejectedPhoto]
    lookalikes: LookalikeSearch | None = None


class Registrar:
    """Registers persons and adds faces to them."""

    def __init__(
        self,
        database: Database,
        analyzer: PhotoAnalyzer,
        spaces: SpaceRegistry,
        searcher: Searcher,
        vault: CropVault,
        limiter: UsageLimiter,
        settings: PhotoSettings,
    ) -> None:
        self._database = database
        self._analyzer = analyzer
        self._lookalikes = LookalikeFinder(database, spaces, searcher)
        self._vault = vault
        self._limiter = limiter
        self._max_photos = settings.max_photos

    async def register(
        self, principal: Principal, request: RegistrationRequest, *, idempotency: IdempotencyContext | None = None
    ) -> RegistrationResult:
        """Enrol the usable faces of the photos for one person.

        Checks that do not need the networks come first; the networks and the search for lookalikes run outside any
        writing transaction; then one compares with what was enrolled since, and writes person, consent, faces and audit
        entry.

        Raises:
            ConsentRequiredError: Neither a consent nor a live consent's id was given.
            NoPhotoAcceptedError: No photo could be enrolled; its `rejected` fact gives the reasons for each.
            NotFoundError: The collection, person or consent does not exist.
            PersonMismatchError: The person has another external id or name.
            SearchLimitError: The caller's key may not search for so many lookalikes in this hour.
        """

        async def run_attempt(collection: Collection) -> RegistrationResult:
            screened = await self._screen_photos(principal, collection, request)
            async with self._database.transaction(idempotency=idempotency, writes_to=request.collection) as work:
                result = await self._write_registration(principal, work, collection, request, screened)
                await work.store_response(result, result.person.id)
            return result

        self._limiter.ensure_searches_left(principal)
        return await retry_if_collection_changed(await self._get_checked_collection(principal, request), run_attempt)

    async def screen_photos(
        self,
        principal: Principal,
        reference: str,
        photos: tuple[Photo, ...],
        *,
        largest: bool = False,
        liveness: LivenessMode | None = None,
    ) -> tuple[list[AcceptedFace], list[RejectedPhoto]]:
        """Return which photos a registration would take, and which not; nothing is stored, nobody is searched for.

        Raises:
            InvalidInputError: Too many photos.
            NotFoundError: There is no such collection.
        """
        self._check_number(photos)
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.ENROL)
        return await screen_photos(
            self._analyzer,
            photos,
            collection.space_id,
            rule=collection.policy.enrol,
            largest=largest,
            liveness=collection.policy.liveness.get_stricter_mode(liveness),
        )

    def _check_number(self, photos: tuple[Photo, ...]) -> None:
        if not 1 <= len(photos) <= self._max_photos:
            raise InvalidInputError(f"Send 1 to {self._max_photos} photos; {len(photos)} were sent.")

    async def _get_checked_collection(self, principal: Principal, request: RegistrationRequest) -> Collection:
        """Return the collection of a request, after all checks that do not need the networks."""
        _check_request(request)
        self._check_number(request.photos)
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(request.collection, principal, Permission.ENROL)
            person = await _find_person(work, collection, request)
            if request.consent_id:
                await get_live_consent(work, collection, person, request.consent_id)
        return collection

    async def _screen_photos(
        self, principal: Principal, collection: Collection, request: RegistrationRequest
    ) -> _ScreenedPhotos:
        """Analyze the photos, and search for lookalikes of the accepted faces, unless they are allowed."""
        accepted, rejected = await screen_photos(
            self._analyzer,
            request.photos,
            collection.space_id,
            rule=collection.policy.enrol,
            largest=request.largest_face,
            second_space_id=collection.second_space_id,
            crops=collection.policy.keep_crops,
            liveness=collection.policy.liveness.get_stricter_mode(request.liveness),
            lane=request.lane,
        )
        if not accepted or request.allow_lookalike:
            return _ScreenedPhotos(accepted, rejected)
        await self._limiter.charge_searches(principal, len(accepted))
        return _ScreenedPhotos(accepted, rejected, await self._lookalikes.search(collection, _get_vectors(accepted)))

    async def _write_registration(
        self,
        principal: Principal,
        work: UnitOfWork,
        collection: Collection,
        request: RegistrationRequest,
        screened: _ScreenedPhotos,
    ) -> RegistrationResult:
        # Writers of one collection are serialized: two requests must not both miss the other as a lookalike.
        current = await work.open(str(collection.id), principal, Permission.ENROL)
        ensure_same_write_spaces(collection, current, collection.policy.liveness.get_stricter_mode(request.liveness))
        collection = current
        existing = await _find_person(work, collection, request)
        new_faces, duplicates = await self._reject_duplicates(principal, work, collection, existing, screened)
        rejected = sorted([*screened.rejected, *duplicates], key=lambda photo: photo.photo)
        if not new_faces:
            raise _build_rejection_error(rejected)
        person = await _write_person(principal, work, collection, request, existing)
        if request.consent:
            consent = await add_consent(work, collection, person.id, request.consent)
        else:
            consent = await get_live_consent(work, collection, person, request.consent_id)
        faces = await enrol_faces(work, collection, consent, new_faces, self._vault)
        event = FacesAdded if existing else PersonRegistered
        await work.record(
            principal,
            event(
                collection_id=collection.id,
                person_id=person.id,
                object_id=consent.id,
                faces=len(faces),
                rejected=len(rejected),
                proof={"consent": consent.build_proof()} if request.consent else {},
            ),
        )
        accepted = tuple(
            RegisteredFace(source.photo, source.filename, face, source.face.liveness)
            for source, face in zip(new_faces, faces, strict=True)
        )
        return RegistrationResult(collection, person, existing is None, consent, accepted, tuple(rejected))

    async def _reject_duplicates(
        self,
        principal: Principal,
        work: UnitOfWork,
        collection: Collection,
        person: Person | None,
        screened: _ScreenedPhotos,
    ) -> tuple[list[AcceptedFace], list[RejectedPhoto]]:
        """Separate photos that the person already has, and faces that are enrolled as another person."""
        known = await work.faces.list_photo_digests(collection.id, person.id) if person else set()
        lookalikes: list[Lookalike | None] = [None] * len(screened.accepted)
        if screened.lookalikes:
            lookalikes = await self._lookalikes.complete_search(
                work, collection, screened.lookalikes, person.id if person else None
            )
        kept: list[AcceptedFace] = []
        rejected: list[RejectedPhoto] = []
        for face, lookalike in zip(screened.accepted, lookalikes, strict=True):
            if face.sha256 in known:
                rejected.append(_build_duplicate_rejection(face))
            elif lookalike:
                rejected.append(_build_lookalike_rejection(face, lookalike, scores=principal.may_see_scores))
            else:
                kept.append(face)
                known.add(face.sha256)
        return kept, rejected


def _check_request(request: RegistrationRequest) -> None:
    if request.consent is None and request.consent_id is None:
        raise ConsentRequiredError(
            "Registering a face needs the person's consent: give its purpose and who recorded it, or the id of a "
            "live consent. Nothing was stored."
        )
    if request.consent is not None and request.consent_id is not None:
        raise InvalidInputError("Give either a new consent or the id of one, not both.")
    if request.consent_id is not None and request.person is None and request.external_id is None:
        raise InvalidInputError("A consent_id belongs to a person: give person_id or external_id too.")
    if request.person is None and request.external_id is None and request.name is None:
        raise InvalidInputError("Say who it is: give name, external_id or person_id.")


async def _find_person(work: UnitOfWork, collection: Collection, request: RegistrationRequest) -> Person | None:
    """Return the person whom a request means; None if they are new.

    Raises:
        NotFoundError: There is no such person.
        PersonMismatchError: They have another external id, or another name.
    """
    person = None
    if request.person is not None:
        person = await work.persons.get_person(collection.id, request.person)
        ensure_same_external_id(person, request.external_id)
    elif request.external_id is not None:
        person = await work.persons.find_person_by_external_id(collection.id, request.external_id)
    if person and person.name and request.name and person.name != request.name:
        named = f"with external_id '{person.external_id}'" if request.external_id else str(person.id)
        raise PersonMismatchError(
            f"The person {named} has another name than '{request.name}'. Nothing was stored: if it is them, leave the "
            "name out, or change it first by PATCH of the person."
        )
    return person


async def _write_person(
    principal: Principal,
    work: UnitOfWork,
    collection: Collection,
    request: RegistrationRequest,
    existing: Person | None,
) -> Person:
    if existing is None:
        if request.external_id is not None:
            await release_external_id(work, collection.id, request.external_id)
        return await work.persons.add_person(
            collection.id, external_id=request.external_id, name=request.name, metadata=request.metadata or {}
        )
    given = {"name": request.name, "metadata": request.metadata}
    changes = {field: new for field, new in given.items() if new is not None and new != getattr(existing, field)}
    if not changes:
        return existing
    changed = await work.persons.update_person(collection.id, existing.id, **changes)
    await work.record(principal, build_person_change(existing, changed, tuple(sorted(changes))))
    return changed


def _get_vectors(accepted: list[AcceptedFace]) -> FloatArray:
    return np.stack([face.face.vector for face in accepted])


def _build_duplicate_rejection(face: AcceptedFace) -> RejectedPhoto:
    detail = "the same photo is already enrolled for this person, or was sent twice"
    return RejectedPhoto(face.photo, face.filename, ("duplicate_photo",), detail)


def _build_lookalike_rejection(face: AcceptedFace, lookalike: Lookalike, *, scores: bool) -> RejectedPhoto:
    other = lookalike.candidate
    facts: dict[str, Any] = {"person_id": str(other.person_id)}
    if scores:
        facts |= {"similarity": round(other.similarity, 4), "threshold": round(lookalike.threshold, 4)}
    return RejectedPhoto(
        face.photo,
        face.filename,
        ("enrolled_as_other_person",),
        f"the face is already enrolled as another person, {other.person_id}; add to that person, or set "
        "allow_lookalike after a human has checked",
        facts,
    )


def _build_rejection_error(rejected: list[RejectedPhoto]) -> NoPhotoAcceptedError:
    return NoPhotoAcceptedError(
        "No photo could be enrolled, so nothing was stored: "
        + "; ".join(f"photo {photo.filename or photo.photo}: {photo.detail}" for photo in rejected),
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
