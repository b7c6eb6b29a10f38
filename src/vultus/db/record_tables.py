"""Tables of what happened: the audit record, the outbox, tombstones of templates, erasures and their scrubs."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    UniqueConstraint,
    Uuid,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from vultus.db.tables import Base
from vultus.utils.ids import new_id


class AuditRow(Base):
    """An audit entry: action and actor; ids and counts only, no foreign keys: it outlives what it describes."""

    __tablename__ = "audit"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    actor: Mapped[str]
    request_id: Mapped[str | None]
    action: Mapped[str]
    collection_id: Mapped[UUID | None]
    person_id: Mapped[UUID | None]
    object_id: Mapped[UUID | None]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))

    __table_args__ = (Index(None, "person_id", "id", postgresql_where=text("person_id IS NOT NULL")),)


class AuditChangesRow(Base):
    """The values about a person that an entry changed, which go with the person; the entry has their digest."""

    __tablename__ = "audit_changes"

    entry_id: Mapped[UUID] = mapped_column(ForeignKey("audit.id", ondelete="CASCADE"), primary_key=True)
    person_id: Mapped[UUID] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"), index=True)
    changes: Mapped[str]


class AuditLinkRow(Base):
    """A link of the audit record's chain; it outlives its entry, which may be deleted for its age."""

    __tablename__ = "audit_links"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    entry_id: Mapped[UUID]
    at: Mapped[datetime]
    content: Mapped[bytes]
    digest: Mapped[bytes]

    __table_args__ = (UniqueConstraint("entry_id"),)


class OutboxRow(Base):
    """A recent event, as in the audit record, or a sighting, numbered for those that follow what happens.

    A sighting of a person goes with them, by the foreign key; an event that happened to a person does not. Receivers
    are webhooks that are told whatever they subscribe to.
    """

    __tablename__ = "outbox"

    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    id: Mapped[UUID] = mapped_column(server_default=func.gen_random_uuid())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    action: Mapped[str]
    collection_id: Mapped[UUID | None]
    person_id: Mapped[UUID | None]
    object_id: Mapped[UUID | None]
    detail: Mapped[dict[str, Any]]
    receivers: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))
    sighted_person_id: Mapped[UUID | None] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"))

    __table_args__ = (
        UniqueConstraint("id"),
        Index(None, "person_id", "number", postgresql_where=text("person_id IS NOT NULL")),
        Index(None, "object_id", "number", postgresql_where=text("object_id IS NOT NULL")),
        Index(None, "sighted_person_id", postgresql_where=text("sighted_person_id IS NOT NULL")),
    )


class OutboxFloorRow(Base):
    """The greatest number that was deleted from the outbox for its age: who read less has missed something. One row."""

    __tablename__ = "outbox_floor"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)


class TombstoneRow(Base):
    """The numbers of templates that one statement erased, written by a trigger of `faces`.

    Its own number is consecutive in commit order within the collection and embedding space.
    """

    __tablename__ = "tombstones"

    collection_id: Mapped[UUID] = mapped_column(primary_key=True)
    contract_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    numbers: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class DecisionRow(Base):
    """Why a probe was answered as it was. Without a name; when the person is erased, without the person too."""

    __tablename__ = "decisions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    kind: Mapped[str]
    actor: Mapped[str]
    request_id: Mapped[str | None]
    collection_id: Mapped[UUID] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    person_id: Mapped[UUID | None] = mapped_column(ForeignKey("persons.id", ondelete="SET NULL"))
    consent_id: Mapped[UUID | None] = mapped_column(ForeignKey("consents.id", ondelete="SET NULL"))
    origin_id: Mapped[UUID | None]
    track_id: Mapped[UUID | None]
    verdict: Mapped[str]
    band: Mapped[str | None]
    similarity: Mapped[float | None]
    threshold: Mapped[float]
    detail: Mapped[dict[str, Any]]

    __table_args__ = (
        Index(None, "collection_id", "id"),
        Index(None, "person_id", "id", postgresql_where=text("person_id IS NOT NULL")),
        Index(None, "consent_id", postgresql_where=text("consent_id IS NOT NULL")),
        Index(None, "request_id", postgresql_where=text("request_id IS NOT NULL")),
    )


class LedgerRow(Base):
    """Up to which byte a ledger of erasures, a file outside the database, has been applied to this database.

    Everything that the audit record held before `compared_at`, the ledger holds too. `database` is the one that noted
    this: in a restored one it is another.
    """

    __tablename__ = "ledgers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str]
    compared_at: Mapped[datetime]
    database: Mapped[str]


class InstallationRow(Base):
    """The one row says whose keys, outside the database, seal what is sealed in it."""

    __tablename__ = "installation"

    is_only: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    id: Mapped[UUID]

    __table_args__ = (CheckConstraint("is_only", name="is_only"),)


class ScrubRow(Base):
    """A run that rewrites what holds the bytes of what was erased; one that did not finish is taken up again."""

    __tablename__ = "scrubs"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    rewritten: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    report: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))


class ErasureRow(Base):
    """What an erasure destroyed, and how far its bytes are gone; ids and counts only, it outlives what it names."""

    __tablename__ = "erasures"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    erased_at: Mapped[datetime] = mapped_column(server_default=func.now())
    action: Mapped[str]
    actor: Mapped[str]
    collection_id: Mapped[UUID]
    person_id: Mapped[UUID | None]
    object_id: Mapped[UUID | None]
    persons: Mapped[int]
    faces: Mapped[int]
    consents: Mapped[int]
    crops: Mapped[int]
    is_sealed: Mapped[bool] = mapped_column(server_default=false())
    unreadable_at: Mapped[datetime | None]
    scrub_id: Mapped[UUID | None] = mapped_column(ForeignKey("scrubs.id"), index=True)
    scrubbed_at: Mapped[datetime | None]
    backups_expire_at: Mapped[datetime | None]

    __table_args__ = (
        Index(None, "collection_id", "id"),
        Index(None, "person_id", "id", postgresql_where=text("person_id IS NOT NULL")),
        Index("ix_erasures_unscrubbed", "id", postgresql_where=text("scrubbed_at IS NULL")),
    )


class SealingRow(Base):
    """A sealed collection that was open before: how many of its templates are sealed, up to which number."""

    __tablename__ = "sealings"

    collection_id: Mapped[UUID] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True)
    total: Mapped[int] = mapped_column(BigInteger)
    sealed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    last_number: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    begun_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
