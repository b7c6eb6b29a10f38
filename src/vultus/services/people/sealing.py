"""Seals the templates of collections that were open before: in the background, in batches, and again after a crash."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vultus.errors import VultusError
from vultus.services.jobs import PartialFailureError, record_progress
from vultus.utils import metrics

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database

log = logging.getLogger(__name__)

BATCH_SIZE = 1_000
"""Templates sealed in a transaction, which holds the collection's lock for about a tenth of a second."""


class CollectionSealer:
    """Seals templates that were stored before their collection was sealed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> int:
        """Seal all templates that are to be sealed; return how many were.

        Raises:
            PartialFailureError: Some collections are not sealed; the others are.
        """
        async with self._database.transaction(read_only=True) as work:
            unfinished = await work.sealings.list_unfinished()
        metrics.TEMPLATES_UNSEALED.set(sum(max(0, one.total - one.sealed) for one in unfinished))
        sealed = failed = 0
        for one in unfinished:
            try:
                sealed += await self._seal_collection(one.collection_id)
            except VultusError as error:  # of this collection only; the others are sealed
                failed += 1
                log.error("a collection is not sealed: %s", error.detail, extra={"collection": str(one.collection_id)})
        if failed:
            raise PartialFailureError(f"{failed} collections are not sealed")
        return sealed

    async def _seal_collection(self, collection_id: UUID) -> int:
        sealed = 0
        while True:
            async with self._database.transaction(writes_to=str(collection_id)) as work:
                await work.lock_collection(collection_id)  # another server may be at it, too
                found = await work.sealings.find_unfinished(collection_id)
                if found is None:
                    return sealed
                count, last = await work.templates.seal_open_templates(collection_id, found.last_number, BATCH_SIZE)
                if count:
                    await work.sealings.record_progress(collection_id, count, last)
                else:
                    await work.sealings.finish(collection_id)
            sealed += count
            metrics.TEMPLATES_UNSEALED.set(max(0, found.total - found.sealed - count))
            log.info(
                "templates of a collection are sealed" if count else "all templates of a collection are sealed",
                extra={"collection": str(collection_id), "faces": found.sealed + count},
            )
            record_progress()
