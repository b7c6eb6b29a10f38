"""What happened, as it is listed afterwards: entries of the audit record and of the outbox, and which are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An event in the audit record, with who caused it."""

    id: UUID
    at: datetime
    actor: str
    request_id: str | None
    action: str
    collection_id: UUID | None
    person_id: UUID | None
    object_id: UUID | None
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries of the audit record are listed; None for any.

    Attributes:
        since: Earliest time.
        until: Time before which they were written.
        collections: Ids of collections, in one of which they happened.
    """

    actor: str | None = None
    action: str | None = None
    collection_id: UUID | None = None
    person_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    collections: frozenset[UUID] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events of the outbox are listed; None for any.

    Attributes:
        collections: Ids of collections, in one of which they happened.
        outside_collections: Whether events of no collection are listed, such as those of keys.
        origin_id: Live session or source that saw it.
        actions: Names of events and sightings.
        since: Earliest time of recording.
        until: Time before which they were recorded.
    """

    collections: frozenset[UUID] | None = None
    outside_collections: bool = True
    person_id: UUID | None = None
    origin_id: UUID | None = None
    actions: frozenset[str] | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """An event or a sighting in the outbox.

    Attributes:
        number: Greater than that of everything committed before, once it is settled; see `OutboxRepository`.
        id: The same wherever it is listed or delivered.
        created_at: When it was recorded.
        object_id: As in `Event`; of a sighting its session or source.
    """

    number: int
    id: UUID
    created_at: datetime
    action: str
    collection_id: UUID | None
    person_id: UUID | None
    object_id: UUID | None
    detail: dict[str, Any]
