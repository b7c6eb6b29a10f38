"""Erasures: what was destroyed, and how far its bytes are gone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class ErasureState(StrEnum):
    """How far something that was erased is gone, in this order."""

    UNFINDABLE = "unfindable"
    """No process finds, lists or reads it; its bytes may still be in files of the database."""

    UNREADABLE = "unreadable"
    """The key of what was sealed is destroyed: no copy of the database opens it, but one from before it was sealed."""

    SCRUBBED = "scrubbed"
    """The files that held its bytes were rewritten: `vultus scrub`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyedCounts:
    """How much an erasure destroyed."""

    persons: int = 0
    faces: int = 0
    consents: int = 0
    crops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure(DestroyedCounts):
    """Something that was erased, ids and counts only; it outlives what it names.

    Attributes:
        id: Of the entry in the audit record, and of the ledger's.
        action: What was recorded: `person.erased`, `consent.withdrawn`, `face.deleted`, `collection.deleted`, ….
        actor: Who erased.
        person_id: Who was erased, or whose face or consent; None of a collection.
        object_id: The face or the consent.
        unreadable_at: When the key of everything it destroyed was destroyed too, or it was scrubbed.
        scrubbed_at: When the database's files were free of its bytes.
        backups_expire_at: When the last backup that may hold its bytes is deleted, as the operator stated by then.
        report: Of the scrub; see `ScrubReport`.
    """

    id: UUID
    erased_at: datetime
    action: str
    actor: str
    collection_id: UUID
    person_id: UUID | None
    object_id: UUID | None
    unreadable_at: datetime | None = None
    scrubbed_at: datetime | None = None
    backups_expire_at: datetime | None = None
    report: dict[str, Any] | None = None

    @property
    def state(self) -> ErasureState:
        """How far it is gone."""
        if self.scrubbed_at is not None:
            return ErasureState.SCRUBBED
        return ErasureState.UNFINDABLE if self.unreadable_at is None else ErasureState.UNREADABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureFilter:
    """Which erasures are listed; None for any.

    Attributes:
        collections: Ids of collections, in one of which they happened.
    """

    state: ErasureState | None = None
    collection_id: UUID | None = None
    person_id: UUID | None = None
    collections: frozenset[UUID] | None = None
