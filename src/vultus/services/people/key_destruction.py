"""Destroys the keys of persons who were erased: what they sealed is unreadable in every backup and log from then on."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from vultus.errors import VultusError
from vultus.services.jobs import record_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.db.database import Database
    from vultus.domain.ledger import LedgerEntry
    from vultus.sealing.person_keys import PersonKeyFile

log = logging.getLogger(__name__)

BATCH_SIZE = 1_000


class KeyDestroyer:
    """Overwrites spent keys: after the commit that spent them, before its caller answers.

    Args:
        database: Which keys are spent.
        keys: The file they lie in.
    """

    def __init__(self, database: Database, keys: PersonKeyFile) -> None:
        self._database = database
        self._keys = keys

    @classmethod
    def attach(cls, database: Database, keys: PersonKeyFile) -> KeyDestroyer:
        """Return a destroyer that runs after every commit of a database that ends something."""
        destroyer = cls(database, keys)
        database.watch_endings("keys", destroyer.destroy_after)
        return destroyer

    async def destroy_after(self, entries: Sequence[LedgerEntry]) -> None:
        """Destroy what a commit has spent. What cannot be destroyed now, the job destroys later."""
        del entries
        try:
            await self.destroy_spent_keys()
        except VultusError as error:
            log.error("a key of an erased person is not destroyed yet: %s", error.detail)

    async def destroy_spent_keys(self) -> int:
        """Destroy every spent key; return how many there were.

        Raises:
            KeyRingError: The file of keys cannot be written, or is away; what is left stays spent.
        """
        done = 0
        while True:
            async with self._database.transaction() as work:
                if spent := await work.person_keys.claim_spent_keys(BATCH_SIZE):
                    await asyncio.to_thread(self._keys.destroy_keys, spent)
                    await work.person_keys.delete_spent_keys(spent)
                    await work.erasures.mark_unreadable([person_id for _, person_id in spent])
            done += len(spent)
            if len(spent) < BATCH_SIZE:
                return done
            record_progress()
