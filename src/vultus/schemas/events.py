"""Events on the wire: the same in lists, streams and deliveries, in the form that Standard Webhooks recommends."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import Field

from vultus import domain
from vultus.schemas.base import TIMESTAMP, ApiModel
from vultus.schemas.reasons import EventType
from vultus.services.events.listing import EventPage
from vultus.services.events.payload import build_payload


class EventOut(ApiModel):
    """Something that happened, or a sighting: ids, counts and times."""

    id: UUID = Field(
        description="The same wherever the event is listed, streamed or delivered.",
        examples=["019f0c2e-7f00-7abc-8def-001122334455"],
    )
    type: EventType = Field(description="As `action` in the audit record; sightings have no dot.", examples=["left"])
    timestamp: datetime = Field(description="When it was recorded.", examples=[TIMESTAMP])
    data: dict[str, Any] = Field(
        description="What it is about: `collection_id` and `person_id`, null where there is none; `object_id` of an "
        "event, such as a consent; of a sighting `origin` (session or source), `origin_id`, `track_id`, and `at`, when "
        "the frame was taken; of `recognised` the `band`, `clear` or `near_threshold`.",
        examples=[
            {
                "collection_id": "019f0c2d-1111-7aaa-8bbb-123456789abc",
                "person_id": "019f0c2e-6a7b-7cc1-a2b3-c4d5e6f70819",
                "origin": "source",
                "origin_id": "019f0c2d-3333-7ccc-8ddd-abcdefabcdef",
                "track_id": "019f0c2e-7e00-7abc-8def-001122334455",
                "track_ids": ["019f0c2e-7e00-7abc-8def-001122334455"],
                "since": "2026-11-24T09:29:12.000Z",
                "at": "2026-11-24T09:29:59.000Z",
            }
        ],
    )

    @classmethod
    def from_domain(cls, entry: domain.OutboxEntry) -> Self:
        """Build the response from a domain value."""
        return cls.model_validate(build_payload(entry))


class EventsOut(ApiModel):
    """Events in the order in which they happened, or the newest first."""

    items: list[EventOut]
    next_cursor: str | None = Field(description="For the next page; null on the last page.", examples=[None])
    last_cursor: str = Field(
        description="Of the newest end of this page: to ask later for what has happened since, or to stream it; with "
        "the oldest first on the last page, with the newest first on the first.",
        examples=["4711"],
    )

    @classmethod
    def from_page(cls, page: EventPage) -> Self:
        """Build the response from a service's result."""
        return cls(
            items=[EventOut.from_domain(entry) for entry in page.entries],
            next_cursor=None if page.is_last else str(page.entries[-1].number),
            last_cursor=str(page.position),
        )
