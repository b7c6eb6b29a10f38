"""Records what live sessions and sources see, also while the database is away for a moment."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from vultus.domain import Permission
from vultus.errors import NotFoundError, VultusError
from vultus.utils import metrics
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import Principal
    from vultus.domain.sightings import Sighting
    from vultus.services.events.follower import OutboxFollower

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Sightings kept in memory while the database is away; beyond, the oldest are dropped and counted."""

BATCH_SIZE = 500


class OutboxSightingLog:
    """Writes sightings to the outbox, in their order."""

    def __init__(self, database: Database, follower: OutboxFollower) -> None:
        self._database = database
        self._follower = follower
        self._writing = asyncio.Lock()
        self._waiting: deque[tuple[UUID, Sighting]] = deque()

    async def record(self, principal: Principal, sighting: Sighting, event_id: UUID | None = None) -> None:
        """Record a sighting: durably, unless the database is away, then as soon as it is back.

        Raises:
            ForbiddenError: The principal may not recognise people in live video.
            NotFoundError: The collection does not exist for the principal.
        """
        principal.require(Permission.LIVE)
        if not principal.can_reach(sighting.collection_id):
            raise NotFoundError(f"There is no collection with id {sighting.collection_id}.")
        self._waiting.append((event_id or new_id(), sighting))
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            metrics.SIGHTINGS_LOST.inc()
        try:
            await self.write_waiting()
        except VultusError as error:
            log.warning("sightings wait for the database: %s", error.detail, extra={"count": len(self._waiting)})

    async def write_waiting(self) -> int:
        """Write what waits, the oldest first; return how many: one run of a background job.

        Raises:
            VultusError: The database is away; nothing is lost.
        """
        written = 0
        async with self._writing:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH_SIZE, len(self._waiting)))]
                try:
                    async with self._database.transaction() as work:
                        for event_id, sighting in batch:
                            await work.record_sighting(sighting, event_id)
                except BaseException:
                    self._waiting.extendleft(reversed(batch))
                    raise
                written += len(batch)
        if written:
            self._follower.wake()
        return written
