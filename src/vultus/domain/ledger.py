"""The ledger of erasures: what was ended for good, kept outside the database so that no backup brings it back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from vultus.domain.events import (
    CollectionDeleted,
    ConsentExpired,
    ConsentWithdrawn,
    FaceDeleted,
    KeyRevoked,
    KeyRotated,
    PersonErased,
)
from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from vultus.domain.records import AuditEntry

ENDINGS = (CollectionDeleted, PersonErased, ConsentWithdrawn, ConsentExpired, FaceDeleted, KeyRevoked, KeyRotated)
"""Events after which something must never be there again, in the order in which a restored database meets them."""

ENDING_ACTIONS = tuple(event.action for event in ENDINGS)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """Something that was ended; ids only.

    Attributes:
        id: Of its entry in the audit record.
        at: When.
        action: One of `ENDING_ACTIONS`.
        actor: Who ended it.
        collection_id: Collection that was deleted, or in which something ended.
        person_id: Person who was erased, or whose face or consent ended.
        object_id: Face, consent or key that ended.
        database: Where it ended, as the ledger tells databases apart; None for one of an entry not written yet.
    """

    id: UUID
    at: datetime
    action: str
    actor: str
    collection_id: UUID | None = None
    person_id: UUID | None = None
    object_id: UUID | None = None
    database: str | None = None

    @classmethod
    def from_audit(cls, entry: AuditEntry) -> LedgerEntry:
        """Build the entry of an event in the audit record."""
        return cls(entry.id, entry.at, entry.action, entry.actor, entry.collection_id, entry.person_id, entry.object_id)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> LedgerEntry:
        """Read an entry as `build_record` wrote it.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        collection, person, subject = (
            UUID(record[name]) if record.get(name) else None for name in ("collection", "person", "object")
        )
        return cls(
            id=UUID(record["id"]),
            at=datetime.fromisoformat(record["at"]),
            action=str(record["action"]),
            actor=str(record["actor"]),
            collection_id=collection,
            person_id=person,
            object_id=subject,
            database=record.get("database"),
        )

    def build_record(self) -> dict[str, str]:
        """Return the entry for JSON, without what it has not."""
        ids = {"collection": self.collection_id, "person": self.person_id, "object": self.object_id}
        return {
            "id": str(self.id),
            "at": format_moment(self.at),
            "action": self.action,
            "actor": self.actor,
            **{name: str(one) for name, one in ids.items() if one is not None},
        }
