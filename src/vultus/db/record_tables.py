"""Tables of what happened: the audit record, the outbox, and tombstones of templates."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, ForeignKey, Identity, Index, UniqueConstraint, Uuid, func, text
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
