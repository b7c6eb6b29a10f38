"""Events for principals that ask for them: listed in pages, or as a stream that does not end."""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vultus.domain import EventFilter, OutboxEntry, Permission
from vultus.errors import EventsExpiredError, OverloadedError, VultusError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from vultus.db.database import Database
    from vultus.domain import Principal
    from vultus.services.events.follower import OutboxFollower
    from vultus.settings import EventSettings

log = logging.getLogger(__name__)

KEY_CHECK_S = 5.0
"""Longest time until a stream ends after its key; no event is sent in it."""

STREAM_PAGE = 100
"""Events that a stream reads together: all that it holds in memory."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in ascending order.

    Attributes:
        entries: The events.
        position: Where to read on: all events up to this number have been read, or do not pass the filter.
        is_last: Whether no more were there.
    """

    entries: tuple[OutboxEntry, ...]
    position: int
    is_last: bool


class EventService:
    """Reads the outbox for principals: what happened in the collections that they may read."""

    def __init__(self, database: Database, follower: OutboxFollower, settings: EventSettings) -> None:
        self._database = database
        self._follower = follower
        self._max_streams = settings.max_streams
        self._streams = 0

    async def list_events(
        self,
        principal: Principal,
        *,
        collection: str | None = None,
        after: int = 0,
        limit: int,
        only: EventFilter | None = None,
    ) -> EventPage:
        """Return events in the order in which they were committed; all that were before the call.

        While a transaction that recorded an event lasts long, the events after its are listed later.

        Args:
            principal: The caller; without the permission to audit, it sees nothing about keys.
            collection: Id or name of the only one whose events are listed.
            after: Where to read on, the position of a page before; 0 for the oldest.
            limit: Most events.
            only: Which.

        Raises:
            EventsExpiredError: Events after `after` have been missed.
            ForbiddenError: The caller may not read.
            NotFoundError: There is no such collection.
        """
        try:
            settled = await self._follower.settle()
        except OverloadedError:
            settled = max(self._follower.settled, after)
        if after > settled:
            raise EventsExpiredError(
                "This position is beyond the last event: the database was restored from a backup. Start again without "
                "a cursor, and without Last-Event-ID."
            )
        only = await self._confine(principal, collection, only or EventFilter())
        return await self._read_page(after, settled, limit, only)

    async def open_stream(
        self,
        principal: Principal,
        *,
        collection: str | None = None,
        after: int | None = None,
        only: EventFilter | None = None,
    ) -> AsyncIterator[tuple[OutboxEntry, ...]]:
        """Return a stream of events as they are committed, in pages.

        It ends when the caller's key is revoked or expires; at once, if others began while it was opened and they are
        the most that may be open.

        Args:
            principal: The caller.
            collection: As in `list_events`.
            after: Number of the last event received; None for those from now on.
            only: Which.

        Raises:
            EventsExpiredError: As in `list_events`; as for the others.
            ForbiddenError: See there.
            NotFoundError: See there.
            OverloadedError: Too many streams are open.
        """
        if self._streams >= self._max_streams:
            raise OverloadedError(f"{self._max_streams} event streams are open; try again later, or list events.")
        if after is None:
            after = await self._follower.settle()
        else:
            await self.list_events(principal, collection=collection, after=after, limit=1, only=only)
        return self._stream(principal, after, await self._confine(principal, collection, only or EventFilter()))

    async def _stream(
        self, principal: Principal, position: int, only: EventFilter
    ) -> AsyncIterator[tuple[OutboxEntry, ...]]:
        if self._streams >= self._max_streams:
            log.warning("an event stream ended: others began while it was opened", extra={"count": self._streams})
            return
        self._streams += 1
        try:
            async with aclosing(self._read_on(principal, position, only)) as pages:
                async for entries in pages:
                    yield entries
        except VultusError as error:  # the reader comes back with its last number
            log.warning("an event stream ended: %s", error.detail, extra={"code": error.code})
        finally:
            self._streams -= 1

    async def _read_on(
        self, principal: Principal, position: int, only: EventFilter
    ) -> AsyncGenerator[tuple[OutboxEntry, ...], None]:
        while await self._is_live(principal):
            if position < self._follower.settled:
                page = await self._read_page(position, self._follower.settled, STREAM_PAGE, only)
                position = page.position
                if page.entries:
                    yield page.entries
                    continue
            await self._follower.wait_beyond(position, KEY_CHECK_S)

    async def _is_live(self, principal: Principal) -> bool:
        if principal.key is None:
            return True
        async with self._database.hot_queries() as work:
            return await work.keys.is_live(principal.key.id)

    async def _confine(self, principal: Principal, collection: str | None, only: EventFilter) -> EventFilter:
        """Return a filter that passes only what the principal may read."""
        principal.require(Permission.READ)
        if collection is None:
            sees_keys = principal.collections is None and Permission.AUDIT in principal.permissions
            return replace(only, collections=principal.collections, outside_collections=sees_keys)
        async with self._database.hot_queries() as work:
            found = await work.open(collection, principal, Permission.READ)
        return replace(only, collections=frozenset({found.id}))

    async def _read_page(self, after: int, until: int, limit: int, only: EventFilter) -> EventPage:
        async with self._database.transaction(read_only=True) as work:
            found = await work.outbox.list_events(after, until, limit + 1, only)
        is_last = len(found) <= limit
        entries = found[:limit]
        return EventPage(entries, until if is_last else entries[-1].number, is_last)
