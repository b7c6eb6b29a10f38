"""Webhooks on the wire: requests, responses, deliveries and tests."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, Field

from vultus.domain.webhooks import Delivery, DeliveryState, Webhook, WebhookGrant
from vultus.schemas.base import (
    TIMESTAMP,
    ApiModel,
    CollectionId,
    KeyId,
    MergePatch,
    Name,
    NotRemovable,
    RecordedAt,
    Reference,
    WholeNumber,
)
from vultus.schemas.reasons import EVENT_TYPES, EventType
from vultus.services.events.sending import Attempt
from vultus.services.events.webhooks import MAX_OVERLAP_S, MAX_URL_LENGTH
from vultus.utils.characters import escape_text

WebhookId = Annotated[UUID, Field(examples=["019f0c2d-4444-7ddd-8eee-abcdefabcdef"])]
EventId = Annotated[UUID, Field(examples=["019f0c2e-7f00-7abc-8def-001122334455"])]
_URL = "https://door.example.org/vultus"


def _validate_types(types: list[str]) -> list[str]:
    if unknown := sorted({*types} - EVENT_TYPES):
        raise ValueError(f"there are no events of type {escape_text(', '.join(unknown))}")
    return types


Types = Annotated[list[EventType], Field(min_length=1, max_length=len(EVENT_TYPES)), AfterValidator(_validate_types)]
Collections = Annotated[list[Reference], Field(min_length=1, max_length=1_000)]


class WebhookIn(ApiModel):
    """A new webhook."""

    name: Name = Field(examples=["door"])
    url: str = Field(
        min_length=1,
        max_length=MAX_URL_LENGTH,
        description="Where events are sent, by POST. Public addresses only, unless the operator allows others.",
        examples=[_URL],
    )
    collections: Collections | None = Field(
        None,
        description="Ids or names of the collections whose events are sent; null for all that the key reaches.",
        examples=[["default"]],
    )
    types: Types | None = Field(
        None,
        description="Events that are sent; null for all that happen in collections. Who was sent anything about a "
        "person gets `person.erased` in any case.",
        examples=[["recognised", "left"]],
    )
    with_names: bool = Field(
        False, description="Send a person's name and external id too, as `person` in `data`; else ids only."
    )

    def to_grant(self) -> WebhookGrant:
        """Return what is decided about it, without the collections."""
        actions = None if self.types is None else frozenset(self.types)
        return WebhookGrant(name=self.name, url=self.url, actions=actions, with_names=self.with_names)


class WebhookPatch(MergePatch):
    """Changes to a webhook; what is left out stays."""

    name: Annotated[Name | None, NotRemovable("a webhook always has a name")] = None
    url: Annotated[str | None, NotRemovable("a webhook always has an address")] = Field(
        None, min_length=1, max_length=MAX_URL_LENGTH
    )
    collections: Collections | None = Field(None, description="Null for all that the key reaches.")
    types: Types | None = Field(None, description="Null for all that happen in collections.")
    with_names: Annotated[bool | None, NotRemovable("it is true or false")] = None
    enabled: Annotated[bool | None, NotRemovable("it is true or false")] = Field(
        None, description="False: nothing is sent. True: sending goes on from where it stopped."
    )

    def to_changes(self) -> dict[str, Any]:
        """Return the members that were sent, in the service's words."""
        changes = self.to_patch()
        if "types" in changes:
            types = changes.pop("types")
            changes["actions"] = None if types is None else frozenset(types)
        return changes


class WebhookOut(ApiModel):
    """A webhook without its secret."""

    id: WebhookId
    name: str = Field(examples=["door"])
    url: str = Field(examples=[_URL])
    collections: list[CollectionId] | None = Field(description="Null for all.")
    types: list[EventType] | None = Field(
        description="Null for all that happen in collections.", examples=[["left", "recognised"]]
    )
    with_names: bool = Field(examples=[False])
    key_id: KeyId | None = Field(description="API key that answers for it: with the key it ends. Null: command line.")
    created_at: RecordedAt
    previous_until: datetime | None = Field(
        description="Until when deliveries are signed with the secret from before the last rotation, too."
    )
    failing_since: datetime | None = Field(description="First failure since the last success; null if none.")
    disabled_at: datetime | None = Field(description="From when on nothing is sent; null if it is.")
    disabled_reason: str | None = Field(examples=[None])

    @classmethod
    def from_domain(cls, webhook: Webhook, **more: object) -> Self:
        """Build the response from a domain value."""
        names = cls.model_fields.keys() - {"collections", "types", *more}
        return cls(
            **{name: getattr(webhook, name) for name in names},
            collections=None if webhook.collections is None else sorted(webhook.collections),
            types=None if webhook.actions is None else sorted(webhook.actions),
            **more,
        )


class NewWebhookOut(WebhookOut):
    """A webhook with its secret, shown this once."""

    secret: str = Field(
        description="Verifies deliveries, with any library for Standard Webhooks.", examples=["whsec_...shown once"]
    )


class WebhookRotationIn(ApiModel):
    """How a webhook's secret is replaced."""

    overlap_s: WholeNumber = Field(
        86_400, ge=0, le=int(MAX_OVERLAP_S), description="How long deliveries are signed with both, in seconds."
    )


class WebhookTestOut(ApiModel):
    """What became of an event of type `webhook.test`."""

    accepted: bool = Field(examples=[True])
    status: int | None = Field(description="Of the receiver's answer; null if there was none.", examples=[204])
    error: str | None = Field(description="Why it was not accepted.", examples=[None])

    @classmethod
    def from_attempt(cls, attempt: Attempt) -> Self:
        """Build the response from a service's result."""
        return cls(accepted=attempt.error is None, status=attempt.status, error=attempt.error)


class DeliveryOut(ApiModel):
    """An event on its way to a webhook."""

    event_id: EventId
    type: EventType = Field(examples=["recognised"])
    state: DeliveryState = Field(examples=["dead"])
    attempts: int = Field(examples=[14])
    due_at: datetime | None = Field(description="When the next attempt is made; null if there is none.")
    last_attempt_at: datetime | None = Field(examples=[TIMESTAMP])
    last_status: int | None = Field(description="Of the receiver's answer; null if there was none.", examples=[500])
    last_error: str | None = Field(examples=["HTTP 500"])

    @classmethod
    def from_domain(cls, delivery: Delivery) -> Self:
        """Build the response from a domain value."""
        names = cls.model_fields.keys() - {"type", "due_at"}
        return cls(
            **{name: getattr(delivery, name) for name in names},
            type=delivery.action,
            due_at=delivery.due_at if delivery.state == DeliveryState.WAITING else None,
        )


class ReplayIn(ApiModel):
    """Which dead deliveries are attempted again."""

    event_ids: list[EventId] | None = Field(
        None, min_length=1, max_length=1_000, description="Of these events; null for all.", examples=[None]
    )


class ReplayOut(ApiModel):
    """How many deliveries are attempted again."""

    replayed: int = Field(examples=[3])
