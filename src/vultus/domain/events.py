"""Events: what can happen, one class for each; ids and counts only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from vultus.domain.keys import Permission
from vultus.utils.moments import format_moment

_NO_DETAIL = {"collection_id", "person_id", "object_id", "proof", "personal"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. Contents of photos and vectors have no place in it, and names none but in `personal`.

    Attributes:
        action: Its name in the audit record and in the outbox; never changed.
        collection_id: Collection it happened in, if any.
        person_id: Person it concerns, if any.
        object_id: Key, consent or face it concerns, if any.
        proof: What the audit record alone keeps beside the detail, for JSON: purpose and proof of consents.
        personal: Values about the person before and now, by name, for JSON: beside the audit record, until they are
            erased.
    """

    action: ClassVar[str]
    collection_id: UUID | None = None
    person_id: UUID | None = None
    object_id: UUID | None = None
    proof: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    personal: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)

    @property
    def detail(self) -> dict[str, Any]:
        """Every other field, by its name, for JSON."""
        return {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in _NO_DETAIL
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCreated(Event):
    """An API key was created.

    Attributes:
        permissions: What it may do.
        collections: Ids of the collections it is bound to; None for all.
        expires_at: When it ends; None for never.
    """

    action: ClassVar[str] = "key.created"
    object_id: UUID
    permissions: tuple[Permission, ...]
    collections: tuple[UUID, ...] | None
    expires_at: datetime | None

    @property
    def detail(self) -> dict[str, Any]:
        """The permissions, and what confines the key, if something does."""
        return {
            "permissions": self.permissions,
            **({} if self.collections is None else {"collections": [str(one) for one in self.collections]}),
            **({} if self.expires_at is None else {"expires_at": format_moment(self.expires_at)}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotated(Event):
    """An API key got a new secret; the one before is accepted until `previous_until`, or from then on refused."""

    action: ClassVar[str] = "key.rotated"
    object_id: UUID
    previous_until: datetime | None

    @property
    def detail(self) -> dict[str, Any]:
        """Until when the secret before is accepted."""
        return {"previous_until": self.previous_until and format_moment(self.previous_until)}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRevoked(Event):
    """An API key was revoked."""

    action: ClassVar[str] = "key.revoked"
    object_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionCreated(Event):
    """A collection was created."""

    action: ClassVar[str] = "collection.created"
    collection_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionChanged(Event):
    """Settings of a collection were changed.

    Attributes:
        fields: Names of the settings that are another than before, those of the policy as `policy.enrol.min_score`.
        changes: Of these, but for the collection's name, the values before and now.
        crops_deleted: Number of crops that a policy without crops deleted.
        consents_shortened: Number of consents that end at another time by a new retention.
    """

    action: ClassVar[str] = "collection.changed"
    collection_id: UUID
    fields: tuple[str, ...]
    changes: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    crops_deleted: int = 0
    consents_shortened: int = 0

    @property
    def detail(self) -> dict[str, Any]:
        """The fields, values as `from` and `to`; crops and consents only if there were any."""
        changes = {name: {"from": before, "to": now} for name, (before, now) in self.changes.items()}
        more = {"changes": changes, "crops_deleted": self.crops_deleted, "consents_shortened": self.consents_shortened}
        return {"fields": self.fields} | {name: value for name, value in more.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchGraphSet(Event):
    """A collection is searched along an HNSW graph from now on: its parameters and the loss measured."""

    action: ClassVar[str] = "collection.changed"
    collection_id: UUID
    fields: tuple[str, ...] = ("search",)
    m: int
    ef_construction: int
    ef_search: int
    probes: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionCalibrated(Event):
    """A collection was calibrated on its own faces.

    Attributes:
        contract_id: Embedding space.
        points: False match rate and threshold of each operating point.
        target_fmr: New target of the policy, if it was given.
        target_fpir: As above.
    """

    action: ClassVar[str] = "collection.calibrated"
    collection_id: UUID
    contract_id: str
    points: tuple[tuple[float, float], ...]
    target_fmr: float | None
    target_fpir: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionUncalibrated(Event):
    """A collection's own calibration for an embedding space was deleted."""

    action: ClassVar[str] = "collection.uncalibrated"
    collection_id: UUID
    contract_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionDeleted(Event):
    """A collection was deleted with its persons and faces."""

    action: ClassVar[str] = "collection.deleted"
    collection_id: UUID
    persons: int
    faces: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStarted(Event):
    """A migration to another embedding space was started."""

    action: ClassVar[str] = "transition.begun"
    collection_id: UUID
    contract_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationRetried(Event):
    """An active migration was started again, so that failed faces are retried."""

    action: ClassVar[str] = "transition.retried"
    collection_id: UUID
    contract_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationCutOver(Event):
    """A collection is searched in its other embedding space from now on."""

    action: ClassVar[str] = "transition.switched"
    collection_id: UUID
    from_contract_id: str
    to_contract_id: str
    persons_left_behind: int

    @property
    def detail(self) -> dict[str, Any]:
        """The embedding spaces as `from` and `to`, and the unmigrated persons."""
        return {
            "from": self.from_contract_id,
            "to": self.to_contract_id,
            "persons_left_behind": self.persons_left_behind,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationFinished(Event):
    """The templates of the second embedding space were deleted.

    Attributes:
        kept: Embedding space that remains.
        removed: The other one.
        templates: Number of templates deleted.
        faces_lost: Faces that had no other template.
        persons_left_behind: Persons without a template in the remaining space.
    """

    action: ClassVar[str] = "transition.finished"
    collection_id: UUID
    kept: str
    removed: str
    templates: int
    faces_lost: int
    persons_left_behind: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonCreated(Event):
    """A person was created without faces; `object_id` is the consent."""

    action: ClassVar[str] = "person.created"
    collection_id: UUID
    person_id: UUID
    object_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class FacesAdded(Event):
    """Faces of an existing person were enrolled, and photos rejected; `object_id` is the consent."""

    action: ClassVar[str] = "faces.added"
    collection_id: UUID
    person_id: UUID
    object_id: UUID
    faces: int
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonRegistered(FacesAdded):
    """The same, of a new person."""

    action: ClassVar[str] = "person.registered"


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorsRegistered(Event):
    """Persons were registered from vectors, each with one face."""

    action: ClassVar[str] = "vectors.registered"
    collection_id: UUID
    persons: int
    faces: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonChanged(Event):
    """A person's external id, name or metadata were changed: which of them; to what is in `personal`."""

    action: ClassVar[str] = "person.changed"
    collection_id: UUID
    person_id: UUID
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonErased(Event):
    """A person was erased with faces and consents."""

    action: ClassVar[str] = "person.erased"
    collection_id: UUID
    person_id: UUID
    faces: int
    consents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceDeleted(Event):
    """A face was deleted; `object_id` is the face."""

    action: ClassVar[str] = "face.deleted"
    collection_id: UUID
    person_id: UUID
    object_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRecorded(Event):
    """A further consent of a person was recorded; `object_id` is the consent."""

    action: ClassVar[str] = "consent.recorded"
    collection_id: UUID
    person_id: UUID
    object_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentChanged(Event):
    """A consent's expiry or evidence was changed: which of them; `object_id` is the consent."""

    action: ClassVar[str] = "consent.changed"
    collection_id: UUID
    person_id: UUID
    object_id: UUID
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentWithdrawn(Event):
    """A consent was withdrawn and its faces deleted; `object_id` is the consent."""

    action: ClassVar[str] = "consent.withdrawn"
    collection_id: UUID
    person_id: UUID
    object_id: UUID
    faces: int
    granted_at: datetime
    ended_at: datetime

    @property
    def detail(self) -> dict[str, Any]:
        """The number of faces, and the consent's time in ISO 8601."""
        return {
            "faces": self.faces,
            "granted_at": format_moment(self.granted_at),
            "ended_at": format_moment(self.ended_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentExpired(ConsentWithdrawn):
    """The same of a consent that had expired."""

    action: ClassVar[str] = "consent.expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTrimmed(Event):
    """Entries of the audit record were deleted for their age: how many, and that all from before `before` may be."""

    action: ClassVar[str] = "audit.trimmed"
    before: datetime
    entries: int

    @property
    def detail(self) -> dict[str, Any]:
        """The number, and the time in ISO 8601."""
        return {"before": format_moment(self.before), "entries": self.entries}


def list_actions() -> list[str]:
    """Return the names of everything that can happen, in their order."""
    waiting, actions = [Event], set[str]()
    while waiting:
        found = waiting.pop()
        waiting += found.__subclasses__()
        if action := getattr(found, "action", None):
            actions.add(action)
    return sorted(actions)
