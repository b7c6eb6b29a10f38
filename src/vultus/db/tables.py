"""The tables. The database itself enforces the invariants, whatever the program does.

A face cannot exist without a live consent: its foreign key references the consent's `live` column, which is true only
while `withdrawn_at` is null, and its own copy of that column must be true. Withdrawing a consent that faces still
reference therefore fails; a change of its expiry cascades to the faces. Triggers refuse a face under an expired
consent, and that a consent which has ended begins anew.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Sequence,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, REAL
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from vultus.db.types import HalfVector, OpenEndedTimestamp
from vultus.utils.ids import new_id

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

UNSAMPLED_COLUMNS = {
    "persons": ("external_id", "name", "metadata"),
    "consents": ("purpose", "recorded_by", "evidence_ref"),
    "faces": ("embedding", "sealed", "source_sha256", "code"),
    "codings": ("centre",),
    "idempotency": ("key_sha256", "request_sha256", "body"),
    "crops": ("sealed",),
    "webhooks": ("url", "sealed_secret", "sealed_previous"),
    "sources": ("sealed_address",),
    "audit_changes": ("changes",),
}
"""Columns that ANALYZE must not copy into pg_statistic, where values would outlive their row."""

INLINE_COLUMNS = {"faces": ("embedding", "sealed", "source_sha256", "contract_id", "code"), "codings": ("centre",)}
"""Columns never moved to a TOAST table, which would keep a second copy that scans read."""


class Base(DeclarativeBase):
    """Root of the table classes."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        datetime: DateTime(timezone=True),
        bytes: BYTEA,
        float: REAL,
        dict[str, Any]: JSONB,
    }


class CollectionRow(Base):
    """An isolated gallery."""

    __tablename__ = "collections"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    contract_id: Mapped[str]
    policy: Mapped[dict[str, Any]]
    retention_days: Mapped[int | None]
    unseen_days: Mapped[int | None]
    second_contract_id: Mapped[str | None]
    calibrations: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    search: Mapped[str] = mapped_column(server_default=text("'auto'"))
    graph: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("name"),
        CheckConstraint("retention_days > 0", name="retention_days"),
        CheckConstraint("unseen_days > 0", name="unseen_days"),
        CheckConstraint("search IN ('auto', 'exact', 'hnsw')", name="search"),
        CheckConstraint("(search = 'hnsw') = (graph IS NOT NULL)", name="graph"),
    )


class PersonRow(Base):
    """An identity in a collection."""

    __tablename__ = "persons"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    collection_id: Mapped[UUID] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    external_id: Mapped[str | None]
    name: Mapped[str | None]
    # Declarative classes reserve `metadata`.
    extra: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"))
    # Of the key that seals what is theirs, in the file of keys outside the database.
    key_slot: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("collection_id", "external_id"),
        UniqueConstraint("id", "collection_id"),
        Index(None, "collection_id", "id"),
        Index("uq_persons_key_slot", "key_slot", unique=True, postgresql_where=text("key_slot IS NOT NULL")),
    )


class SpentKeyRow(Base):
    """A key of a person who was deleted or got another one; triggers enter it, and it goes once it is destroyed."""

    __tablename__ = "spent_keys"

    slot: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    person_id: Mapped[UUID] = mapped_column(primary_key=True)


class ConsentRow(Base):
    """A record that a person agreed.

    In a collection that ends who is not seen, `expires_at` is the earlier of `granted_until`, the consent's own end,
    and the rule's, counted from `seen_at`: whoever reads knows one end.
    """

    __tablename__ = "consents"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    collection_id: Mapped[UUID]
    person_id: Mapped[UUID]
    purpose: Mapped[str]
    recorded_by: Mapped[str]
    evidence_ref: Mapped[str | None]
    granted_at: Mapped[datetime]
    expires_at: Mapped[datetime | None] = mapped_column(
        OpenEndedTimestamp, nullable=False, server_default=text("'infinity'")
    )
    withdrawn_at: Mapped[datetime | None]
    seen_at: Mapped[datetime | None]
    granted_until: Mapped[datetime | None] = mapped_column(OpenEndedTimestamp)
    live: Mapped[bool] = mapped_column(Boolean, Computed("withdrawn_at IS NULL", persisted=True), nullable=False)

    __table_args__ = (
        UniqueConstraint("id", "person_id", "collection_id", "live", "expires_at", name="uq_consents_face"),
        CheckConstraint("(seen_at IS NULL) = (granted_until IS NULL)", name="seen"),
        ForeignKeyConstraint(
            ["person_id", "collection_id"], ["persons.id", "persons.collection_id"], ondelete="CASCADE"
        ),
        Index(None, "person_id", "id"),
        # The expiry sweep queries live consents that have ended; open-ended ones need no entry.
        Index("ix_consents_ending", "expires_at", postgresql_where=text("live AND expires_at < 'infinity'")),
    )


def _build_consent_foreign_key() -> ForeignKeyConstraint:
    """Return the foreign key of a table whose rows require a live consent."""
    own_columns = ["consent_id", "person_id", "collection_id", "consent_live", "consent_expires_at"]
    consent_columns = [f"consents.{name}" for name in ("id", "person_id", "collection_id", "live", "expires_at")]
    return ForeignKeyConstraint(own_columns, consent_columns, onupdate="CASCADE", ondelete="CASCADE")


FACE_NUMBERS = Sequence("face_numbers", metadata=Base.metadata)


class FaceRow(Base):
    """A template of an enrolled face, in its collection's partition; one row per embedding space, with the same id."""

    __tablename__ = "faces"

    collection_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    person_id: Mapped[UUID]
    consent_id: Mapped[UUID]
    consent_live: Mapped[bool] = mapped_column(server_default=true())
    consent_expires_at: Mapped[datetime | None] = mapped_column(OpenEndedTimestamp, nullable=False)
    contract_id: Mapped[str] = mapped_column(primary_key=True)
    embedding: Mapped[Any | None] = mapped_column(HalfVector)
    sealed: Mapped[bytes | None]
    size_px: Mapped[float]
    sharpness: Mapped[float]
    brightness: Mapped[float]
    yaw_deg: Mapped[float]
    pitch_deg: Mapped[float]
    roll_deg: Mapped[float]
    score: Mapped[float]
    source_sha256: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # Ascends in commit order within a collection; see `lock_collection`.
    number: Mapped[int] = mapped_column(BigInteger, server_default=FACE_NUMBERS.next_value())
    code: Mapped[bytes | None]

    __table_args__ = (
        Index(None, "number"),
        CheckConstraint("consent_live", name="consent_live"),
        CheckConstraint("num_nonnulls(embedding, sealed) = 1", name="sealed"),
        CheckConstraint("sealed IS NULL OR code IS NULL", name="sealed_code"),
        # Also serves the foreign key's look-ups by collection and person.
        UniqueConstraint("collection_id", "person_id", "source_sha256", "contract_id", name="uq_faces_source"),
        _build_consent_foreign_key(),
        {"postgresql_partition_by": "LIST (collection_id)"},
    )


class CodingRow(Base):
    """Quantizer parameters of a collection's templates in an embedding space."""

    __tablename__ = "codings"

    collection_id: Mapped[UUID] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True)
    contract_id: Mapped[str] = mapped_column(primary_key=True)
    centre: Mapped[Any] = mapped_column(HalfVector, nullable=False)
    bits: Mapped[int]
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CropRow(Base):
    """Encrypted crop from which a face can be embedded again; a trigger binds it to its face."""

    __tablename__ = "crops"

    collection_id: Mapped[UUID] = mapped_column(primary_key=True)
    face_id: Mapped[UUID] = mapped_column(primary_key=True)
    person_id: Mapped[UUID]
    consent_id: Mapped[UUID] = mapped_column(index=True)
    consent_live: Mapped[bool] = mapped_column(server_default=true())
    consent_expires_at: Mapped[datetime | None] = mapped_column(OpenEndedTimestamp, nullable=False)
    key_id: Mapped[str | None]  # of the key of all crops that version 0.1 had; the keys of persons have none
    sealed: Mapped[bytes]

    __table_args__ = (
        CheckConstraint("consent_live", name="consent_live"),
        _build_consent_foreign_key(),
        Index("ix_crops_old", "collection_id", "face_id", postgresql_where=text("key_id IS NOT NULL")),
    )


class TransitionRow(Base):
    """A collection being migrated to another embedding space, and which worker backfills its faces."""

    __tablename__ = "transitions"

    collection_id: Mapped[UUID] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True)
    contract_id: Mapped[str]
    shadow_share: Mapped[float]
    begun_at: Mapped[datetime] = mapped_column(server_default=func.now())
    switched_at: Mapped[datetime | None]
    worker_id: Mapped[UUID | None]
    leased_until: Mapped[datetime | None]
    policies: Mapped[dict[str, Any] | None]
    shadow_compared: Mapped[int] = mapped_column(server_default=text("0"))
    shadow_agreed: Mapped[int] = mapped_column(server_default=text("0"))


class CarryFailureRow(Base):
    """Why a face could not be backfilled in an embedding space; a trigger binds it to its face."""

    __tablename__ = "carry_failures"

    collection_id: Mapped[UUID] = mapped_column(
        ForeignKey("transitions.collection_id", ondelete="CASCADE"), primary_key=True
    )
    face_id: Mapped[UUID] = mapped_column(primary_key=True)
    contract_id: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class ShadowDisagreementRow(Base):
    """A recognition with different results in a collection's two embedding spaces: ids and scores only."""

    __tablename__ = "shadow_disagreements"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    collection_id: Mapped[UUID] = mapped_column(ForeignKey("transitions.collection_id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    kind: Mapped[str]
    active_person_id: Mapped[UUID | None] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"), index=True)
    second_person_id: Mapped[UUID | None] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"), index=True)
    answers: Mapped[dict[str, Any]]

    __table_args__ = (Index(None, "collection_id", "id"),)


class KeyRow(Base):
    """An API key: the digest of its secret, never the secret. It has a role or permissions of its own.

    The collections it is bound to are ids without a foreign key: one that is deleted must not widen what is left.
    """

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    owner: Mapped[str | None]
    role: Mapped[str | None]
    permissions: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    collections: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))
    searches_per_hour: Mapped[int | None]
    secret_sha256: Mapped[bytes]
    previous_sha256: Mapped[bytes | None]
    previous_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("secret_sha256"),
        UniqueConstraint("previous_sha256"),
        CheckConstraint("(role IS NULL) <> (permissions IS NULL)", name="permissions"),
        CheckConstraint("searches_per_hour > 0", name="searches_per_hour"),
        CheckConstraint("(previous_sha256 IS NULL) = (previous_until IS NULL)", name="previous"),
    )


class KeyUsageRow(Base):
    """How many faces a key has searched for in an hour. Unlogged: no commit waits for it, and a crash forgets it."""

    __tablename__ = "key_usage"

    key_id: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    searches: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = ({"prefixes": ["UNLOGGED"]},)


class VerificationFailureRow(Base):
    """How many verifications of a person with a key have failed, as the time when all are forgotten. Unlogged, too."""

    __tablename__ = "verification_failures"

    key_id: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True)
    person_id: Mapped[UUID] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"), primary_key=True, index=True)
    forgotten_at: Mapped[datetime]
    blocked_until: Mapped[datetime]

    __table_args__ = ({"prefixes": ["UNLOGGED"]},)


class IdempotencyRow(Base):
    """The stored response of a request with an idempotency key.

    With the person it names the response goes, by a trigger; the row stays, so that a late retry stores nobody again.
    """

    __tablename__ = "idempotency"

    api_key_id: Mapped[str] = mapped_column(primary_key=True)
    key_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    request_sha256: Mapped[bytes]
    status: Mapped[int]
    body: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    person_id: Mapped[UUID | None] = mapped_column(ForeignKey("persons.id", ondelete="SET NULL"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class LiveTicketRow(Base):
    """What a live session that is opened with a ticket may do: the digest of its secret, never the secret. Unlogged."""

    __tablename__ = "live_tickets"

    secret_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    key_id: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    key_sha256: Mapped[bytes]
    collection_id: Mapped[UUID] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"), index=True)
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text))
    frames_per_second: Mapped[float] = mapped_column(Double)
    session_s: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[datetime]

    __table_args__ = ({"prefixes": ["UNLOGGED"]},)
