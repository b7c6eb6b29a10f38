"""Tables of webhooks: receivers, deliveries, and which persons a receiver has heard of."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, ForeignKey, Index, Text, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from vultus.db.tables import Base
from vultus.utils.ids import new_id


class WebhookRow(Base):
    """A receiver of events; its secrets are sealed. Collections are ids without a foreign key, as those of keys.

    All events up to `position` have become deliveries, or do not concern it. Until `busy_until` an attempt may be under
    way.
    """

    __tablename__ = "webhooks"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    key_id: Mapped[UUID | None] = mapped_column(ForeignKey("api_keys.id"))
    name: Mapped[str]
    url: Mapped[str]
    collections: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))
    actions: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    with_names: Mapped[bool]
    sealed_secret: Mapped[bytes]
    sealed_previous: Mapped[bytes | None]
    previous_until: Mapped[datetime | None]
    position: Mapped[int] = mapped_column(BigInteger)
    busy_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    failing_since: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("(sealed_previous IS NULL) = (previous_until IS NULL)", name="previous"),
        CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled"),
    )


class WebhookDeliveryRow(Base):
    """An event on its way to a webhook; with the event it goes.

    Deliveries of one lane are attempted in the order of their numbers, one at a time.
    """

    __tablename__ = "webhook_deliveries"

    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("outbox.number", ondelete="CASCADE"), primary_key=True, index=True
    )
    lane: Mapped[UUID]
    state: Mapped[str] = mapped_column(server_default=text("'waiting'"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    due_at: Mapped[datetime]
    leased_until: Mapped[datetime | None]
    last_attempt_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'delivered', 'dead')", name="state"),
        Index(
            "ix_webhook_deliveries_waiting",
            "webhook_id",
            "lane",
            "number",
            postgresql_where=text("state = 'waiting'"),
        ),
        Index("ix_webhook_deliveries_dead", "webhook_id", "number", postgresql_where=text("state = 'dead'")),
    )


class WebhookPersonRow(Base):
    """A person of whom a webhook was sent something: it is told of their erasure."""

    __tablename__ = "webhook_persons"

    person_id: Mapped[UUID] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"), primary_key=True)
    webhook_id: Mapped[UUID] = mapped_column(
        ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True, index=True
    )
