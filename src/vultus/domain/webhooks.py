"""Webhooks: receivers that events are delivered to, and how far that has come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from vultus.domain.events import Event
from vultus.domain.records import OutboxEntry


class DeliveryState(StrEnum):
    """What has become of a delivery."""

    WAITING = "waiting"
    """It is attempted when it is due and its predecessors are done."""

    DELIVERED = "delivered"
    """The receiver accepted it."""

    DEAD = "dead"
    """Every attempt failed; it can be replayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookGrant:
    """What is decided about a webhook.

    Attributes:
        name: What it is for.
        url: Where events are sent.
        collections: Ids of the collections whose events it gets; None for all, those created later included.
        actions: Events and sightings it gets; None for all that happen in collections.
        with_names: Whether a person's name and external id are sent beside the id.
    """

    name: str
    url: str
    collections: frozenset[UUID] | None = None
    actions: frozenset[str] | None = None
    with_names: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook(WebhookGrant):
    """A webhook without its secrets.

    Attributes:
        key_id: API key that answers for it; None for the command line. With the key it ends.
        previous_until: Until when deliveries are signed with the secret before, too; None if there is none.
        failing_since: First failure since the last delivery that was accepted; None if none failed since.
        disabled_at: From when on nothing is delivered; None if it is.
        disabled_reason: Why, for people.
    """

    id: UUID
    key_id: UUID | None
    created_at: datetime
    previous_until: datetime | None = None
    failing_since: datetime | None = None
    disabled_at: datetime | None = None
    disabled_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An event on its way to a webhook.

    Attributes:
        number: Of the event in the outbox.
        attempts: How many were made.
        due_at: When the next one is made, if it waits.
        last_attempt_at: When the last one was made; None before the first.
        last_status: Of the receiver's answer; None if there was none.
        last_error: Why the last attempt failed, for people; None if it did not.
    """

    number: int
    event_id: UUID
    action: str
    state: DeliveryState
    attempts: int
    due_at: datetime
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery:
    """A delivery that this process attempts now, and nobody else.

    Attributes:
        webhook: Where it goes.
        entry: The event.
        attempt: Number of this attempt, from 1.
        sealed_secrets: What signs it, sealed; the present one first.
        person: External id and name of its person, where the webhook gets them and there is one.
    """

    webhook: Webhook
    entry: OutboxEntry
    attempt: int
    sealed_secrets: tuple[bytes, ...]
    person: tuple[str | None, str | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookCreated(Event):
    """A webhook was created; `object_id` is the webhook, as below."""

    action: ClassVar[str] = "webhook.created"
    object_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookChanged(Event):
    """Settings of a webhook were changed: which of them."""

    action: ClassVar[str] = "webhook.changed"
    object_id: UUID
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRotated(Event):
    """A webhook got a new secret."""

    action: ClassVar[str] = "webhook.rotated"
    object_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDisabled(Event):
    """A webhook is delivered nothing any more, for a reason that it shows."""

    action: ClassVar[str] = "webhook.disabled"
    object_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDeleted(Event):
    """A webhook was deleted with its deliveries."""

    action: ClassVar[str] = "webhook.deleted"
    object_id: UUID
