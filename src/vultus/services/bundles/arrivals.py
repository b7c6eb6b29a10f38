"""Who of a bundle is added to a collection here, and under which ids."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from vultus.domain import Consent, NewFace, Person, Quality
from vultus.domain.events import CollectionDeleted, ConsentExpired, ConsentWithdrawn, FaceDeleted, PersonErased
from vultus.utils.chained_file import ChainedFile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from vultus.domain import Collection, FloatArray
    from vultus.services.bundles.records import BundledConsent, BundledFace, BundledPerson


@dataclass(frozen=True, slots=True)
class Endings:
    """Ids of what has ended for good in this installation, by what it was."""

    collections: frozenset[UUID]
    persons: frozenset[UUID]
    faces: frozenset[UUID]
    consents: frozenset[UUID]

    @classmethod
    def read(cls, ledger: Path) -> Endings:
        """Return what a ledger of erasures says.

        Raises:
            LedgerError: It cannot be read, or was changed.
        """
        found: defaultdict[str, set[UUID]] = defaultdict(set)
        fields = {CollectionDeleted.action: "collection", PersonErased.action: "person"}
        for record in ChainedFile(ledger).read()[0]:
            action = record.get("action", "")
            if subject := record.get(fields.get(action, "object")):
                found[action].add(UUID(subject))
        return cls._build(found)

    @classmethod
    def _build(cls, found: defaultdict[str, set[UUID]]) -> Endings:
        return cls(
            collections=frozenset(found[CollectionDeleted.action]),
            persons=frozenset(found[PersonErased.action]),
            faces=frozenset(found[FaceDeleted.action]),
            consents=frozenset(found[ConsentWithdrawn.action] | found[ConsentExpired.action]),
        )

    def add_erasures(self, erasures: Iterable[tuple[str, UUID, UUID | None]]) -> Endings:
        """Return these with what was erased since; action, person and object of each."""
        found: defaultdict[str, set[UUID]] = defaultdict(set)
        for action, person_id, object_id in erasures:
            found[action].add(object_id or person_id)
        if not found:
            return self
        fresh = self._build(found)
        return Endings(
            collections=self.collections,
            persons=self.persons | fresh.persons,
            faces=self.faces | fresh.faces,
            consents=self.consents | fresh.consents,
        )


class Arrivals:
    """Collects who is to be added.

    Args:
        collection: Into which.
        endings: What does not come back.
        now: When consents that end by then have ended.
    """

    def __init__(self, collection: Collection, endings: Endings, now: datetime) -> None:
        self._collection = collection
        self._endings = endings
        self._now = now
        self.persons: list[Person] = []
        self.consents: list[Consent] = []
        self.faces: list[NewFace] = []
        self.erased = 0
        self.lapsed = 0

    def take(self, person: BundledPerson, vectors: FloatArray, *, is_free: bool, taken: set[UUID]) -> None:
        """Take a person with the consents that have not ended and the faces that rest on them.

        Args:
            person: Who is not here.
            vectors: (n, d) of their faces.
            is_free: Whether nobody here has the person's id.
            taken: Ids that consents and faces here have.
        """
        space, endings = self._collection, self._endings
        if endings.persons.intersection(list_ids(space.id, person.id)):
            self.erased += 1
            return
        person_id = person.id if is_free else derive_id(space.id, person.id)
        consents = {
            one.id: self._build_consent(one, person_id, is_free=one.id not in taken)
            for one in person.consents
            if not endings.consents.intersection(list_ids(space.id, one.id))
        }
        live = {key: one for key, one in consents.items() if one.expires_at is None or one.expires_at > self._now}
        if not live:
            self.lapsed += 1
            return
        self.persons.append(
            Person(person_id, space.id, person.external_id, person.name, person.metadata, person.created_at, self._now)
        )
        self.consents += live.values()
        for face, vector in zip(person.faces, vectors, strict=True):
            has_ended = not endings.faces.isdisjoint(list_ids(space.id, face.id))
            if (consent := live.get(face.consent_id)) is not None and not has_ended:
                face_id = derive_id(space.id, face.id) if face.id in taken else face.id
                self.faces.append(_build_face(face, face_id, vector, consent, space.space_id))

    def _build_consent(self, consent: BundledConsent, person_id: UUID, *, is_free: bool) -> Consent:
        """Return a consent that ends no later than the rules of the collection here allow."""
        own_end, seen_at, ends = consent.expires_at, None, []
        if (days := self._collection.retention_days) is not None:
            latest = consent.granted_at + timedelta(days=days)
            own_end = min(latest, own_end or latest)
        if self._collection.unseen_days is not None:
            seen_at = consent.seen_at or self._now
            ends.append(self._collection.compute_unseen_end(seen_at))
        return Consent(
            id=consent.id if is_free else derive_id(self._collection.id, consent.id),
            collection_id=self._collection.id,
            person_id=person_id,
            purpose=consent.purpose,
            recorded_by=consent.recorded_by,
            evidence_ref=consent.evidence_ref,
            granted_at=consent.granted_at,
            expires_at=min((end for end in (own_end, *ends) if end is not None), default=None),
            withdrawn_at=None,
            seen_at=seen_at,
            granted_until=None if seen_at is None else own_end,
        )


def _build_face(face: BundledFace, face_id: UUID, vector: FloatArray, consent: Consent, space_id: str) -> NewFace:
    return NewFace(
        collection_id=consent.collection_id,
        person_id=consent.person_id,
        consent_id=consent.id,
        consent_expires_at=consent.expires_at,
        space_id=space_id,
        vector=vector,
        quality=Quality(face.size_px, face.sharpness, face.brightness, face.yaw_deg, face.pitch_deg, face.roll_deg),
        score=face.score,
        source_sha256=face.source_sha256,
        id=face_id,
        created_at=face.created_at,
    )


def derive_id(collection_id: UUID, given: UUID) -> UUID:
    """Return the id that something has in a collection where its own is taken: always the same."""
    return uuid5(collection_id, given.hex)


def list_ids(collection_id: UUID, given: UUID) -> tuple[UUID, UUID]:
    """Return the ids that something of a bundle may have in a collection."""
    return given, derive_id(collection_id, given)
