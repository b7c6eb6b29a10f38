"""Notes that persons were seen, so that those end who are not, in collections that have such a rule."""

from __future__ import annotations

import logging
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vultus.domain import SEEN_INTERVAL
from vultus.errors import VultusError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import Collection


log = logging.getLogger(__name__)


class LastSeenLog:
    """Collects whom recognitions named, and moves their ends in the background: no recognition waits for it.

    What was noted since the last write is lost with the process: such a person may end as if they had not been seen
    then, but for the day that everybody has more.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: defaultdict[UUID, set[UUID]] = defaultdict(set)

    def note(self, collection: Collection, persons: Iterable[UUID]) -> None:
        """Note that persons were seen, if the collection has a rule for those who are not."""
        if collection.unseen_days is not None and (seen := set(persons)):
            self._waiting[collection.id] |= seen

    async def close(self) -> None:
        """Write what waits, if the database is there."""
        try:
            await self.write_waiting()
        except VultusError as error:
            log.warning("who was seen last could not be written: %s", error.detail)

    async def write_waiting(self) -> int:
        """Move the ends of who was seen for the first time in a day; return of how many consents.

        Raises:
            VultusError: The database is away; nothing is lost.
        """
        moved = 0
        for collection_id in list(self._waiting):
            persons = set(self._waiting[collection_id])  # more are noted while these are written
            now = datetime.now(UTC)
            async with self._database.transaction(read_only=True) as work:
                unmarked = await work.consents.find_unmarked(persons, now - SEEN_INTERVAL)
            if unmarked:
                async with self._database.transaction(writes_to=str(collection_id)) as work:
                    await work.lock_collection(collection_id)
                    moved += await work.consents.mark_seen(unmarked, now)
            self._waiting[collection_id] -= persons
            if not self._waiting[collection_id]:
                del self._waiting[collection_id]
        return moved
