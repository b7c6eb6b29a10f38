"""Events: listed in pages, and streamed as they happen."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent

from vultus import errors
from vultus.api.deps import PrincipalDep, ServicesDep
from vultus.api.guard import create_router, require_permission
from vultus.api.problems import build_validation_error, declare_problems
from vultus.domain import EventFilter, Permission
from vultus.schemas.base import Name, Timestamp
from vultus.schemas.events import EventOut, EventsOut
from vultus.schemas.reasons import EVENT_TYPES
from vultus.utils.request_scope import get_scope

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from vultus.services.events.listing import EventStream

router = create_router(tags=["events"])

HEARTBEAT_S = 15
SEND_TIMEOUT_S = 20.0
"""Longest time for which a reader may not read."""

RETRY_MS = 2000
LINE_END = "\n"
"""Of three that are allowed the one that `cut` and `grep` know."""

MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events a request asks for."""

    collection: str | None
    only: EventFilter


async def _parse_query(
    collection: Annotated[Name | None, Query(description="Id or name; only events of this collection.")] = None,
    person_id: Annotated[UUID | None, Query(description="Only what concerns this person.")] = None,
    origin_id: Annotated[UUID | None, Query(description="Only what this live session or source saw.")] = None,
    type: Annotated[
        str | None, Query(max_length=2_000, description="Only these, separated by commas: `recognised,person.erased`.")
    ] = None,
    since: Annotated[Timestamp | None, Query(description="Only what was recorded from this time on.")] = None,
    until: Annotated[Timestamp | None, Query(description="Only what was recorded before this time.")] = None,
) -> EventQuery:
    actions = None if type is None else frozenset(word.strip() for word in type.split(","))
    if unknown := (actions or frozenset()) - EVENT_TYPES:
        message = (
            f"there are no events of type {', '.join(sorted(unknown))}; there are {', '.join(sorted(EVENT_TYPES))}"
        )
        raise build_validation_error([{"path": "query.type", "message": message, "code": "event_type"}])
    only = EventFilter(person_id=person_id, origin_id=origin_id, actions=actions, since=since, until=until)
    return EventQuery(collection, only)


QueryDep = Annotated[EventQuery, Depends(_parse_query)]


def parse_number(text: str | None, path: str) -> int | None:
    """Return the number of a cursor; None without one."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > MAX_NUMBER:
        raise build_validation_error(
            [{"path": path, "message": "not a cursor of this API; start without one", "code": "cursor_invalid"}]
        )
    return int(text)


@router.get(
    "/events",
    summary="List events",
    responses=declare_problems(errors.NotFoundError, errors.EventsExpiredError),
    openapi_extra=require_permission(Permission.READ),
)
async def list_events(
    services: ServicesDep,
    principal: PrincipalDep,
    query: QueryDep,
    cursor: Annotated[
        str | None, Query(max_length=64, description="From `next_cursor` or `last_cursor` of a page before.")
    ] = None,
    newest_first: Annotated[
        bool, Query(description="From the newest to the oldest; a cursor is of one order.")
    ] = False,
    limit: Annotated[int, Query(ge=1, le=500, description="Most items on a page.")] = 50,
) -> EventsOut:
    """List what happened and who was seen, for as long as events are kept; none is ever left out.

    A key that is bound to collections sees their events; events of keys need the permission `audit` as well.
    """
    number = parse_number(cursor, "query.cursor")
    wanted: dict[str, Any] = {"collection": query.collection, "limit": limit, "only": query.only}
    if newest_first:
        return EventsOut.from_page(await services.events.list_latest_events(principal, before=number, **wanted))
    return EventsOut.from_page(await services.events.list_events(principal, after=number or 0, **wanted))


_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events that do not end: `id` is the cursor, `event` the type, `data` an `Event`.",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'id: 4711\nevent: recognised\ndata: {"id": "019f…", "type": "recognised", "data": {}}\n\n',
            }
        },
    }
}


@router.get(
    "/events/stream",
    summary="Follow events",
    response_class=EventSourceResponse,
    response_model=None,
    responses=declare_problems(
        errors.NotFoundError, errors.EventsExpiredError, errors.OverloadedError, errors.StreamLimitError
    )
    | _STREAM,
    openapi_extra=require_permission(Permission.READ),
)
async def stream_events(
    services: ServicesDep,
    principal: PrincipalDep,
    query: QueryDep,
    cursor: Annotated[
        str | None, Query(max_length=64, description="Begin after this one; else with what happens from now on.")
    ] = None,
    last_event_id: Annotated[
        str | None, Header(max_length=64, description="Of the last event received; browsers send it themselves.")
    ] = None,
) -> EventSourceResponse:
    """Send events as they happen, with a comment line in every silence.

    The stream ends with the key, with the server, and when it is read too slowly; send `Last-Event-ID` to go on
    without a gap.
    """
    number = parse_number(last_event_id, "header.last-event-id")
    if number is None:
        number = parse_number(cursor, "query.cursor")
    return _EventResponse(
        await services.events.open_stream(principal, collection=query.collection, after=number, only=query.only)
    )


class _EventResponse(EventSourceResponse):
    """Sends a stream, and closes it whatever becomes of it: also if nothing of it is read, as for HEAD."""

    def __init__(self, stream: EventStream) -> None:
        super().__init__(_format_events(stream), ping=HEARTBEAT_S, send_timeout=SEND_TIMEOUT_S, sep=LINE_END)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()


async def _format_events(stream: EventStream) -> AsyncIterator[ServerSentEvent]:
    scope = get_scope()
    scope.begin_wait()  # a stream costs nothing while nothing happens; streams have a limit of their own
    try:
        # So that the head of the answer is sent now.
        yield ServerSentEvent(comment="events follow", retry=RETRY_MS, sep=LINE_END)
        async for entry in stream:
            data = EventOut.from_domain(entry).model_dump_json()
            yield ServerSentEvent(data, event=entry.action, id=str(entry.number), sep=LINE_END)
    finally:
        scope.end_wait()
