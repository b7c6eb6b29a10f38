"""Events for principals that ask for them: listed in pages, or as a stream that does not end."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vultus.domain import EventFilter, OutboxEntry, Permission
from vultus.errors import EventsExpiredError, OverloadedError, StreamLimitError, VultusError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import Principal
    from vultus.services.events.follower import OutboxFollower
    from vultus.settings import EventSettings

log = logging.getLogger(__name__)

KEY_CHECK_S = 5.0
"""Longest time until a stream ends after its key, and for which it sends what it has read; see `_read_on`."""

RETRY_AFTER_S = 15
"""When to try again where too many streams are open; they last."""

STREAM_PAGE = 100
"""Events that a stream reads together: all that it holds in memory."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in ascending order, or in descending order.

    Attributes:
        entries: The events.
        position: Where to read on: all events up to this number, but older pages, have been read, or do not pass the
            filter.
        is_last: Whether no more were there.
    """

    entries: tuple[OutboxEntry, ...]
    position: int
    is_last: bool


class EventStream:
    """Events as they are committed, for one reader; it counts as open until it is closed, read or not.

    Args:
        entries: The events.
        release: Called when it is closed.
    """

    def __init__(self, entries: AsyncIterator[OutboxEntry], release: Callable[[], None]) -> None:
        self._entries = entries
        self._release: Callable[[], None] | None = release

    def __aiter__(self) -> AsyncIterator[OutboxEntry]:
        return self._entries

    def close(self) -> None:
        """Let another be opened in its place."""
        if self._release:
            self._release()
        self._release = None


class EventService:
    """Reads the outbox for principals: what happened in the collections that they may read."""

    def __init__(self, database: Database, follower: OutboxFollower, settings: EventSettings) -> None:
        self._database = database
        self._follower = follower
        self._settings = settings
        self._streams: Counter[UUID | None] = Counter()

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
        settled = await self._settle()
        if after > settled:  # what was settled may have been erased since
            settled = await self._require_drawn(after)
        only = await self._confine(principal, collection, only or EventFilter())
        return await self._read_page(after, settled, limit, only)

    async def list_latest_events(
        self,
        principal: Principal,
        *,
        collection: str | None = None,
        before: int | None = None,
        limit: int,
        only: EventFilter | None = None,
    ) -> EventPage:
        """Return the newest events, the newest first; from the position of the first page on, a stream goes on.

        Args:
            principal: As in `list_events`.
            collection: See there.
            before: Number of the last event of the page before; None for the newest.
            limit: Most events.
            only: Which.

        Raises:
            ForbiddenError: As in `list_events`; as for the other.
            NotFoundError: See there.
        """
        settled = await self._settle()
        until = settled if before is None else min(before - 1, settled)
        only = await self._confine(principal, collection, only or EventFilter())
        async with self._database.transaction(read_only=True) as work:
            found = await work.outbox.list_events(0, until, limit + 1, only, newest_first=True)
        return EventPage(found[:limit], until, is_last=len(found) <= limit)

    async def open_stream(
        self,
        principal: Principal,
        *,
        collection: str | None = None,
        after: int | None = None,
        only: EventFilter | None = None,
    ) -> EventStream:
        """Return a stream of events as they are committed, which ends when the caller's key is revoked or expires.

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
            StreamLimitError: Too many of the caller's key.
        """
        release = self._admit_stream(principal)
        try:
            if after is None:
                after = await self._follower.settle()
            else:
                await self.list_events(principal, collection=collection, after=after, limit=1, only=only)
            confined = await self._confine(principal, collection, only or EventFilter())
        except BaseException:
            release()
            raise
        return EventStream(self._read_on(principal, after, confined), release)

    def _admit_stream(self, principal: Principal) -> Callable[[], None]:
        """Count a stream, and return what counts it as closed."""
        key_id = principal.key.id if principal.key else None
        if self._streams.total() >= self._settings.max_streams:
            raise OverloadedError(
                f"{self._settings.max_streams} event streams are open; try again later, or list events.",
                retry_after_s=RETRY_AFTER_S,
            )
        if key_id is not None and self._streams[key_id] >= self._settings.max_streams_per_key:
            raise StreamLimitError(
                f"This key has {self._settings.max_streams_per_key} event streams open; close one, or list events.",
                retry_after_s=RETRY_AFTER_S,
            )
        self._streams[key_id] += 1

        def release() -> None:
            self._streams -= Counter({key_id: 1})  # and forget a key without any

        return release

    async def _read_on(self, principal: Principal, position: int, only: EventFilter) -> AsyncIterator[OutboxEntry]:
        """Yield events; what was read is dropped if the reader takes long for it.

        Its key may have ended meanwhile, and somebody may have been erased.
        """
        try:
            while await self._is_live(principal):
                page = EventPage((), position, is_last=True)
                if position < self._follower.settled:
                    page = await self._read_page(position, self._follower.settled, STREAM_PAGE, only)
                read_at = time.monotonic()
                for entry in page.entries:
                    if time.monotonic() - read_at > KEY_CHECK_S:
                        break
                    yield entry
                    position = entry.number
                else:
                    position = page.position
                if not page.entries:
                    await self._follower.wait_beyond(position, KEY_CHECK_S)
        except VultusError as error:  # the reader comes back with its last number
            log.warning("an event stream ended: %s", error.detail, extra={"code": error.code})

    async def _is_live(self, principal: Principal) -> bool:
        """Return whether a caller would still be let in: its key, and the secret that it showed of it."""
        if principal.key is None:
            return True
        async with self._database.hot_queries() as work:
            if principal.key.shown_sha256 is None:
                return await work.keys.is_live(principal.key.id)
            return await work.keys.find_live_key(principal.key.shown_sha256) is not None

    async def _settle(self) -> int:
        """Return up to where the outbox can be read now, without what a long transaction holds back."""
        try:
            return await self._follower.settle()
        except OverloadedError:
            return self._follower.settled

    async def _require_drawn(self, number: int) -> int:
        """Return a number that there has been.

        Raises:
            EventsExpiredError: There has not.
        """
        async with self._database.hot_queries() as work:
            newest = await work.outbox.find_newest_number()
        if number > newest:
            raise EventsExpiredError(
                "This position is beyond the last event: the database was restored from a backup. Start again without "
                "a cursor, and without Last-Event-ID."
            )
        return number

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
