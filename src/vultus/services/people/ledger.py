"""Keeps the ledger of erasures, and applies it to a database that was restored from a backup of an earlier time."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from vultus.db.repositories.ledgers import LedgerPosition
from vultus.domain import Permission, Principal
from vultus.domain.events import (
    CollectionDeleted,
    ConsentExpired,
    ConsentWithdrawn,
    FaceDeleted,
    KeyRevoked,
    PersonErased,
)
from vultus.domain.ledger import LedgerEntry
from vultus.errors import KeyRingError, LedgerError, NotFoundError, VultusError
from vultus.services.collections import delete_collection
from vultus.services.jobs import record_progress
from vultus.services.people.erasure import delete_face, erase_person, withdraw_consent
from vultus.utils.chained_file import ChainedFile, ChainPosition
from vultus.utils.ids import make_first_id, new_id
from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vultus.db.database import Database, UnitOfWork

log = logging.getLogger(__name__)

LEDGER = Principal.from_process("ledger")
"""Who ends again what a backup brought back."""

BATCH_SIZE = 1_000
OVERLAP = timedelta(hours=1)
"""The audit record is compared with the ledger from an hour before the last comparison on: no transaction is longer."""

REFRESH = timedelta(minutes=10)
"""How old the time of a comparison becomes while nothing ends."""

REMEMBERED_BYTES = 4 * 2**20
"""Of the ledger's end, whose entries are known without a position; entered twice, an entry does no harm."""

CLOSING = (
    "Restore it from your copy. Or move it away, so that a new one begins with what the audit record holds: whoever was"
    " erased after your backup was made comes back with it."
)


class ErasureLedger:
    """Writes what has ended for good into a file outside the database, and ends it again where it came back.

    Every server has a file of its own, with what the others ended too. Commands and server of one machine share it.

    Args:
        database: Whose endings are kept.
        path: Of the file.
    """

    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self._file = ChainedFile(path)
        self._turn = asyncio.Lock()
        self._known: set[UUID] = set()
        self._own: str | None = None

    @classmethod
    def attach(cls, database: Database, path: Path) -> ErasureLedger:
        """Return a ledger that is written with every commit of a database that ends something."""
        ledger = cls(database, path)
        database.watch_endings("ledger", ledger.append)
        return ledger

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Write what has just ended. What cannot be written now, `synchronize` writes later, from the audit record."""
        fresh = [entry for entry in entries if entry.actor != LEDGER.id]
        try:
            await self._append(fresh)
        except VultusError as error:
            log.error("an ending is not in the ledger yet: %s", error.detail)

    async def synchronize(self) -> int:
        """End again what came back since the last time, and enter what is missing; return how much came back.

        Raises:
            LedgerError: The file cannot be read or written, or was changed.
            KeyRingError: Something that came back needs keys that cannot be used; all else has ended again.
        """
        async with self._turn:
            now = datetime.now(UTC)
            ledger_id = await asyncio.to_thread(self._identify)
            async with self._database.transaction(read_only=True) as work:
                own = self._own = await work.ledgers.identify_database()
                stored = await work.ledgers.get_position(ledger_id)
            position, compared_at = (stored.end, stored.compared_at) if stored else (ChainPosition(), None)
            records, end, is_whole = await asyncio.to_thread(self._read, position)
            entries = [LedgerEntry.from_record(record) for record in records if "action" in record]
            self._known.update(entry.id for entry in entries)
            if stored and stored.database == own:  # no restored one: what a copy of it ended is not ended here
                entries = [entry for entry in entries if entry.database in {own, None}]
            ended = await self._end_revived(entries)
            await self._enter_missing(None if is_whole else compared_at)
            if stored is None or stored.database != own or end != position or now - stored.compared_at > REFRESH:
                async with self._database.transaction() as work:
                    await work.ledgers.set_position(ledger_id, LedgerPosition(end, now, own))
        return ended

    async def _append(self, entries: Sequence[LedgerEntry]) -> None:
        if not entries:
            return
        if self._own is None:
            async with self._database.transaction(read_only=True) as work:
                self._own = await work.ledgers.identify_database()
        records = [{**entry.build_record(), "database": self._own} for entry in entries]
        await asyncio.to_thread(self._file.append, records)
        self._known.update(entry.id for entry in entries)

    def _identify(self) -> UUID:
        """Return the id of the ledger, which its first line holds, and of this copy; begin a ledger if there is none.

        Servers whose files were copied from one go on with different lines.
        """
        if not self._file.path.exists():
            self._file.append([{"ledger": str(new_id()), "begun_at": format_moment(datetime.now(UTC))}])
        try:
            return uuid5(UUID(self._file.read_first()["ledger"]), str(self._file.path.stat().st_ino))
        except (KeyError, TypeError, ValueError):
            raise LedgerError(f"{self._file.path} does not begin as a ledger does. {CLOSING}") from None

    def _read(self, position: ChainPosition) -> tuple[list[dict[str, str]], ChainPosition, bool]:
        """Read what follows a position; all of it, and say so, if the file has lost what the database knows of."""
        try:
            if not self._known:
                last = self._file.read_last(REMEMBERED_BYTES)
                self._known.update(UUID(record["id"]) for record in last if "action" in record)
            return *self._file.read(position), False
        except LedgerError as error:
            if not position.offset:
                raise LedgerError(f"{error.detail} {CLOSING}") from error
            log.error("the ledger is older than the database, and is completed from the audit record: %s", error.detail)
            try:
                return *self._file.read(), True
            except LedgerError as broken:
                raise LedgerError(f"{broken.detail} {CLOSING}") from error

    async def _end_revived(self, entries: Sequence[LedgerEntry]) -> int:
        done: Counter[str] = Counter()
        failed: KeyRingError | None = None
        for first in range(0, len(entries), BATCH_SIZE):
            async with self._database.transaction(read_only=True) as work:
                revived = await work.ledgers.find_revived(entries[first : first + BATCH_SIZE])
            for entry in revived:
                try:
                    done[entry.action] += await self._end_again(entry)
                except KeyRingError as error:  # of this one only; the others end
                    failed = error
            record_progress()
        if total := done.total():
            log.warning(
                "the database is a restored one: %s had ended since its backup and ended again",
                ", ".join(f"{count} {action}" for action, count in done.items() if count),
            )
        if failed is not None:
            raise failed
        return total

    async def _end_again(self, entry: LedgerEntry) -> bool:
        """End what an entry names; return whether it was still there, as another server may end it too."""
        collection = None if entry.collection_id is None else str(entry.collection_id)
        try:
            async with self._database.transaction(writes_to=collection) as work:
                if collection is not None:
                    permission = Permission.CONFIGURE if entry.person_id is None else Permission.ERASE
                    await work.open(collection, LEDGER, permission)
                await _end_subject(work, entry)
        except NotFoundError:
            return False
        return True

    async def _enter_missing(self, since: datetime | None) -> None:
        """Enter what others ended, and what this process ended before it could write that down."""
        after = None if since is None else make_first_id(since - OVERLAP)
        while True:
            async with self._database.transaction(read_only=True) as work:
                found = await work.audit.list_endings(after, BATCH_SIZE, LEDGER.id)
            await self._append([LedgerEntry.from_audit(one) for one in found if one.id not in self._known])
            if len(found) < BATCH_SIZE:
                return
            after = found[-1].id
            record_progress()


async def _end_subject(work: UnitOfWork, entry: LedgerEntry) -> None:
    """End what an entry of the ledger names, as whoever ended it first did.

    Raises:
        NotFoundError: It is not there.
    """
    space, person, subject = entry.collection_id, entry.person_id, entry.object_id
    if space is None:
        if subject is None:
            return
        await work.keys.lock_key(subject)
        await work.keys.revoke_key(subject)
        await work.record(LEDGER, KeyRevoked(object_id=subject))
    elif entry.action == CollectionDeleted.action:
        await delete_collection(work, space, principal=LEDGER, erasure_id=entry.id)
    elif person is not None and entry.action == PersonErased.action:
        await erase_person(work, space, person, principal=LEDGER, erasure_id=entry.id)
    elif person is not None and subject is not None and entry.action == FaceDeleted.action:
        await delete_face(work, space, person, subject, principal=LEDGER, erasure_id=entry.id)
    elif person is not None and subject is not None:
        consent = await work.consents.get_consent(space, person, subject)
        kind = ConsentExpired if entry.action == ConsentExpired.action else ConsentWithdrawn
        await withdraw_consent(work, consent, kind, principal=LEDGER, erasure_id=entry.id)
