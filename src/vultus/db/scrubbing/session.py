"""Rewrites tables, so that no file of theirs holds what was deleted, and turns the write-ahead log over."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from vultus.db.connections import open_connection
from vultus.db.failures import translate_errors
from vultus.db.locks import compute_lock_number
from vultus.db.record_tables import ScrubRow
from vultus.db.repositories.collections import get_partition_name
from vultus.db.scrubbing.fingerprints import Fingerprints, plant_fingerprints
from vultus.errors import ConflictError, ScrubError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence
    from uuid import UUID

    from vultus.db.urls import DatabaseAddress

SCRUB_LOCK = compute_lock_number("scrub")

LOCK_TIMEOUT_MS = 1_200
"""Longer than PostgreSQL's deadlock_timeout, after which a vacuum that is in the way gives up; others wait as long."""

LOCK_TRIES = 40
LOCK_PAUSE_S = 1.5
OLD_TRANSACTIONS_WAIT_S = 60.0
POLL_S = 0.25

APPENDED_TABLES = ("audit", "audit_links", "erasures", "scrubs")
"""Tables of ids and counts that only grow, or are changed in fields that say nothing of anybody."""

# Of a collection that is not named, no face was erased: its partition, the largest table by far, is left alone. Other
# programs may have tables in the same schema.
_LIST_TABLES = """
    SELECT quote_ident(relname), pg_has_role(relowner, 'USAGE')
    FROM pg_class LEFT JOIN pg_inherits ON inhrelid = pg_class.oid AND inhparent = 'faces'::regclass
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_total_relation_size(pg_class.oid) > 0
        AND (inhparent IS NOT NULL OR relname = ANY($4::text[]))
        AND ($1 OR relname <> ALL($2::text[])) AND ($1 OR inhparent IS NULL OR relname = ANY($3::text[]))
    ORDER BY pg_total_relation_size(pg_class.oid), relname
"""
_FIND_FILE = "SELECT pg_relation_filenode(to_regclass($1))"
_FIND_OLD_TRANSACTIONS = """
    SELECT 'process ' || pid || ' (' || application_name || ')' FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND (datname = current_database() OR datname IS NULL)
        AND greatest(age(backend_xmin), age(backend_xid)) > age($1::text::xid)
    UNION ALL SELECT 'replication slot ' || slot_name FROM pg_replication_slots
    WHERE greatest(age(xmin), age(catalog_xmin)) > age($1::text::xid)
    UNION ALL SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts
    WHERE database = current_database() AND age(transaction) > age($1::text::xid)
"""
_COUNT_SEGMENTS = "SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'"


@dataclass(frozen=True, slots=True)
class WalTurnover:
    """What became of the write-ahead log.

    Attributes:
        segments: Files that were written over.
        kept: Files of before that the server keeps, for a replica or an archive.
    """

    segments: int
    kept: int


class ScrubSession:
    """A connection of who may rewrite tables, outside any transaction.

    Args:
        connection: Of the owner, or of a superuser.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def list_tables(self, collections: Collection[UUID], *, everything: bool) -> list[str]:
        """Return the tables to rewrite, the smallest first.

        Args:
            collections: In which something was erased.
            everything: Whether all tables are rewritten, whatever was erased.

        Raises:
            ScrubError: The role owns one of them not, and so may not rewrite it.
        """
        partitions = [get_partition_name(one) for one in collections]
        rows = await self._connection.fetch(
            _LIST_TABLES, everything, list(APPENDED_TABLES), partitions, list(ScrubRow.metadata.tables)
        )
        if foreign := [table for table, is_owned in rows if not is_owned]:
            raise ScrubError(
                f"The role that scrubs does not own the table {foreign[0]}, and only the owner may rewrite it: set"
                " VULTUS_DATABASE__OWNER_URL. Nothing was rewritten."
            )
        return [table for table, _ in rows]

    async def wait_for_older_transactions(self) -> bool:
        """Wait until no transaction is open that began before now: a table is rewritten with what those may see.

        Returns:
            Whether the role sees the transactions of all others.

        Raises:
            ScrubError: One stays open.
        """
        horizon = await self._connection.fetchval("SELECT pg_current_xact_id()::xid::text")
        deadline = time.monotonic() + OLD_TRANSACTIONS_WAIT_S
        while open_ones := [row[0] for row in await self._connection.fetch(_FIND_OLD_TRANSACTIONS, horizon)]:
            if time.monotonic() > deadline:
                raise ScrubError(
                    f"What was erased may still be seen by {', '.join(open_ones[:5])}, whose transaction has been open"
                    f" for more than {OLD_TRANSACTIONS_WAIT_S:.0f} s. End it and scrub again; nothing was rewritten."
                )
            await asyncio.sleep(POLL_S)
        return bool(await self._connection.fetchval("SELECT pg_has_role('pg_read_all_stats', 'USAGE')"))

    async def plant_fingerprints(self, tables: Sequence[str]) -> tuple[Fingerprints, list[str]]:
        """Plant fingerprints in the files of tables; see `plant_fingerprints`. Return those it could not plant, too."""
        fingerprints = Fingerprints()
        return fingerprints, await plant_fingerprints(self._connection, tables, fingerprints)

    async def rewrite_table(self, table: str) -> float:
        """Write a table and its indexes anew without dead rows, and its statistics; return for how long it was locked.

        A table that is gone, as its collection was deleted, has no files.

        Raises:
            ScrubError: Others use it all the time, so that it cannot be locked, or PostgreSQL left it as it was.
        """
        await self._connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
        before = await self._connection.fetchval(_FIND_FILE, table)
        try:
            seconds = await self._run_locking(f"VACUUM (FULL) {table}", table)
            if await self._connection.fetchval(_FIND_FILE, table) == before is not None:  # it only warns
                raise ScrubError(
                    f"PostgreSQL did not rewrite the table {table}: see its log for why. No erasure counts as scrubbed."
                )
            await self._run_locking(f"ANALYZE {table}", table)
        except asyncpg.UndefinedTableError:
            return 0.0
        return seconds

    async def _run_locking(self, statement: str, table: str) -> float:
        """Run a statement that locks a table, as often as others are in its way; return how long the last run took."""
        for _ in range(LOCK_TRIES):
            started = time.monotonic()
            try:
                await self._connection.execute(statement)
            except asyncpg.LockNotAvailableError:
                await asyncio.sleep(LOCK_PAUSE_S)
            else:
                return time.monotonic() - started
        raise ScrubError(
            f"The table {table} is in use without a pause, perhaps by a long export or a dump. Scrub again when that"
            " has ended: what was rewritten by now is not rewritten again."
        )

    async def rewrite_statistics(self) -> bool:
        """Rewrite the planner's statistics, which hold samples of columns; return False if the role may not."""
        if not await self._connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            return False
        await self.rewrite_table("pg_catalog.pg_statistic")
        return True

    async def turn_over_wal(self) -> WalTurnover | None:
        """Write over, or remove, every file of the write-ahead log that holds what was written until now.

        A checkpoint lets the server remove old files or take them for later; those are then filled one by one, each of
        them written to its end.

        Returns:
            None if the role may not.
        """
        try:
            await self._switch_segment()  # so that the checkpoint begins in a file of its own
            await self._connection.execute("CHECKPOINT")
            first = await self._connection.fetchval("SELECT redo_wal_file FROM pg_control_checkpoint()")
            waiting: int = await self._connection.fetchval(
                f"{_COUNT_SEGMENTS} AND name > pg_walfile_name(pg_current_wal_insert_lsn())"
            )
            for _ in range(waiting + 1):
                await self._switch_segment()
            await self._connection.execute("CHECKPOINT")
            kept: int = await self._connection.fetchval(f"{_COUNT_SEGMENTS} AND name < $1", first)
        except asyncpg.InsufficientPrivilegeError:
            return None
        return WalTurnover(waiting + 1, kept)

    async def list_copies(self) -> list[str]:
        """Return, in words, where PostgreSQL itself keeps copies that no scrub reaches."""
        copies = []
        if await self._connection.fetchval("SELECT count(*) FROM pg_stat_replication"):
            copies.append("the write-ahead log of replicas, until they have written it over")
        if await self._connection.fetchval("SELECT current_setting('archive_mode') <> 'off'"):
            copies.append("the archive of the write-ahead log")
        return copies

    async def _switch_segment(self) -> None:
        await self._connection.execute("SELECT pg_logical_emit_message(false, 'vultus', '')")  # an empty one stays
        await self._connection.execute("SELECT pg_switch_wal()")


@asynccontextmanager
async def open_scrub_session(address: DatabaseAddress) -> AsyncIterator[ScrubSession]:
    """Open a session of the only scrub that runs.

    Raises:
        ConflictError: Another one runs.
    """
    with translate_errors():
        connection = await open_connection(address, {"statement_timeout": "0", "idle_session_timeout": "0"})
        try:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", SCRUB_LOCK):
                raise ConflictError("Another scrub is running; wait until it has ended.")
            yield ScrubSession(connection)
        finally:
            await connection.close()
