"""Extends the chain of the audit record, and checks that nothing in the record was changed, deleted or moved."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vultus.domain import AuditFilter, Permission
from vultus.domain.audit_chain import LATE, AuditCheck, ChainChecker, build_links, find_oldest_kept
from vultus.domain.events import AuditTrimmed
from vultus.errors import NotFoundError
from vultus.sealing.signatures import sign_document
from vultus.services.jobs import record_progress
from vultus.utils.chained_file import ChainedFile
from vultus.utils.ids import make_first_id, read_time
from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import AuditEntry, Principal
    from vultus.sealing.key_store import InstallationKeys
    from vultus.sealing.signatures import SignedDocument

CHECKPOINT = "checkpoint of an audit record"
CHECKPOINT_FORMAT = 1

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
    """

    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self._notes = ChainedFile(path)
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

    async def sign_checkpoint(self, principal: Principal, keys: InstallationKeys) -> bytes:
        """Return the end of the chain, signed: whoever keeps it can tell a chain that was made anew.

        Raises:
            NotFoundError: Nothing was recorded yet.
        """
        principal.require(Permission.AUDIT)
        principal.require_all_collections("sign a checkpoint of the audit record")
        await self.extend()
        async with self._database.transaction(read_only=True) as work:
            last = await work.audit.get_last_link()
        if last is None:
            raise NotFoundError("The audit record is empty: there is nothing to sign.")
        content = {
            "format": CHECKPOINT_FORMAT,
            "number": last.number,
            "digest": last.digest.hex(),
            "entry_id": str(last.entry_id),
            "entry_at": format_moment(last.at),
            "signed_at": format_moment(datetime.now(UTC)),
        }
        return sign_document(CHECKPOINT, content, installation_id=keys.installation_id, signing_key=keys.signing_key)

    async def verify(self, principal: Principal, checkpoints: Sequence[SignedDocument] = ()) -> AuditCheck:
        """Check every link, its entry, and what was noted of the chain outside the database.

        Args:
            principal: The caller.
            checkpoints: Ends of the chain that were signed, and verified to be.

        Raises:
            LedgerError: The notes were changed.
        """
        principal.require(Permission.AUDIT)
        principal.require_all_collections("check the audit record")
        notes, _ = await asyncio.to_thread(self._notes.read)
        notes += [checkpoint.content for checkpoint in checkpoints]
        ends = [(note["number"], bytes.fromhex(note["digest"])) for note in notes]
        async with self._database.transaction(read_only=True) as work:  # one state of it, however long it takes
            oldest_kept = find_oldest_kept(await _list_trims(work))
            checker = ChainChecker(oldest_kept, ends)
            while found := await work.audit.list_links(checker.number, BATCH_SIZE):
                for link, entry in found:
                    checker.check_link(link, entry)
            unlinked = await work.audit.list_unlinked(None, BATCH_SIZE)
            wrong = await work.audit.list_wrong_changes()
        checker.check_end(unlinked)
        checker.findings += [f"values of entry {entry} of {format_moment(at)} were changed" for entry, at in wrong]
        return AuditCheck(checker.number, len(unlinked), tuple(checker.findings), oldest_kept)


async def _list_trims(work: UnitOfWork) -> list[AuditEntry]:
    """Return the entries that say that others were deleted for their age."""
    found: list[AuditEntry] = []
    only = AuditFilter(action=AuditTrimmed.action)
    while page := await work.audit.list_entries(found[-1].id if found else None, BATCH_SIZE, only):
        found += page
    return found
