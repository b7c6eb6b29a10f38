"""Extends the chain of the audit record, and checks that nothing in the record was changed, deleted or moved."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vultus.domain import Permission
from vultus.domain.audit_chain import LATE, AuditCheck, ChainChecker, build_links
from vultus.services.jobs import record_progress
from vultus.utils.chained_file import ChainedFile
from vultus.utils.ids import make_first_id, read_time
from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.db.database import Database
    from vultus.domain import Principal
    from vultus.settings import JobSettings

BATCH_SIZE = 1_000
NOTE_INTERVAL = timedelta(minutes=1)
"""How often the end of the chain is noted outside the database, while it grows."""


class AuditChain:
    """Links each entry of the audit record to the one before it, within seconds of its commit.

    What happens does not wait for the chain: the transactions of all collections would wait for each other. The end of
    the chain is noted in a file outside the database, so that a chain made anew is found, too.

    Args:
        database: Whose audit record it is.
        path: Of the file.
        settings: How long entries are kept.
    """

    def __init__(self, database: Database, path: Path, settings: JobSettings) -> None:
        self._database = database
        self._notes = ChainedFile(path)
        self._settings = settings
        self._noted = 0
        self._noted_at = datetime.min.replace(tzinfo=UTC)

    async def extend(self) -> int:
        """Link what is not linked yet, unless another server does; return how many entries."""
        total = 0
        while True:
            async with self._database.transaction() as work:
                if not await work.audit.try_lock_chain():
                    break
                last = await work.audit.get_last_link()
                # Of two clocks the one that is behind; a forged id or time must not hide what follows it.
                after = make_first_id(min(last.at, read_time(last.entry_id)) - LATE) if last else None
                entries = await work.audit.list_unlinked(after, BATCH_SIZE)
                if entries:
                    await work.audit.add_links(build_links(last, entries))
            total += len(entries)
            if len(entries) < BATCH_SIZE:
                break
            record_progress()
        await self._note_end()
        return total

    async def _note_end(self) -> None:
        """Note the end of the chain outside the database, if it has grown and the last note is old."""
        now = datetime.now(UTC)
        if now - self._noted_at < NOTE_INTERVAL:
            return
        async with self._database.transaction(read_only=True) as work:
            last = await work.audit.get_last_link()
        if last is None or last.number == self._noted:
            return
        note = {"number": last.number, "digest": last.digest.hex(), "noted_at": format_moment(now)}
        await asyncio.to_thread(self._notes.append, [note])
        self._noted, self._noted_at = last.number, now

    async def verify(self, principal: Principal) -> AuditCheck:
        """Check every link, its entry, and what was noted of the chain outside the database.

        Raises:
            LedgerError: The notes were changed.
        """
        principal.require(Permission.AUDIT)
        principal.require_all_collections("check the audit record")
        notes, _ = await asyncio.to_thread(self._notes.read)
        kept, now = self._settings.audit_days, datetime.now(UTC)
        oldest_kept = None if kept is None else now - timedelta(days=kept) + LATE  # a sweep may go on meanwhile
        checker = ChainChecker(oldest_kept, [(note["number"], bytes.fromhex(note["digest"])) for note in notes])
        async with self._database.transaction(read_only=True) as work:  # one state of it, however long it takes
            while found := await work.audit.list_links(checker.number, BATCH_SIZE):
                for link, entry in found:
                    checker.check_link(link, entry)
            unlinked = await work.audit.list_unlinked(None, BATCH_SIZE)
        checker.check_end(unlinked)
        return AuditCheck(checker.number, len(unlinked), tuple(checker.findings))
