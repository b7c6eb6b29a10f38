"""Frees the database's files of what was erased, and proves it by fingerprints that were planted before."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.scrubbing.fingerprints import ScanResult, scan_files
from vultus.db.scrubbing.session import open_scrub_session
from vultus.db.urls import parse_database_url
from vultus.domain import Permission
from vultus.errors import ConflictError, ScrubError
from vultus.services.jobs import record_progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.db.scrubbing.fingerprints import Fingerprints
    from vultus.db.scrubbing.session import ScrubSession
    from vultus.domain import Principal
    from vultus.settings import Settings

    Progress = Callable[[str, int, int | None], None]
    """Called with what is done, how much of it is done, and how much there is."""

OVERDUE = timedelta(hours=48)
"""After so long something erased is scrubbed at any hour: a machine may be off every night."""

NO_FILES = "the files were not searched: they lie with a PostgreSQL of yours"
NO_SEARCH = "tables rewritten by an earlier run, which ended before its search, were not searched"
NO_WAL = "the write-ahead log was not turned over, for the role may not: docs/operations.md has the grants"
NO_TRANSACTIONS = "open transactions of other roles were not waited for, for the role cannot see them: GRANT pg_monitor"
NO_STATISTICS = (
    "the planner's statistics were not rewritten, for the role may not; columns with personal data are in none"
)


@dataclass(slots=True)
class ScrubReport:
    """What a scrub did and found.

    Attributes:
        erasures: How many are scrubbed by it.
        rewritten: Tables with the seconds for which each was locked, in earlier runs of it too.
        planted: Fingerprints that were planted.
        seen_before: Of them, how many the search found before anything was rewritten.
        found_after: Of them, how many it found afterwards.
        files: How many were searched afterwards.
        bytes: How much that was.
        wal_segments: Files of the write-ahead log that were written over.
        unproven: What was not done or cannot be seen, in words.
        remaining: Where bytes may be that no scrub reaches, in words.
    """

    erasures: int = 0
    rewritten: dict[str, float] = field(default_factory=dict)
    planted: int = 0
    seen_before: int = 0
    found_after: int = 0
    files: int = 0
    bytes: int = 0
    wal_segments: int = 0
    unproven: list[str] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)


class Scrubber:
    """Rewrites what holds the bytes of what was erased.

    Args:
        database: Whose erasures.
        settings: Where its files are, and when the job runs.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def scrub_when_due(self) -> int:
        """Scrub at the hour that is set, if anything was erased; return how many erasures are scrubbed."""
        hour, now = self._settings.jobs.scrub_hour, datetime.now(UTC)
        async with self._database.transaction(read_only=True) as work:
            oldest = await work.erasures.find_oldest_unscrubbed()
        if hour < 0 or oldest is None or (now.hour != hour and now - oldest < OVERDUE):
            return 0
        try:
            report = await self._scrub(everything=False, progress=lambda *_: record_progress())
        except ConflictError:  # another server does
            return 0
        return report.erasures

    async def scrub(
        self,
        principal: Principal,
        *,
        everything: bool = False,
        progress: Progress = lambda *_: None,
    ) -> ScrubReport | None:
        """Rewrite what holds bytes of what was erased; return None if nothing was, and so nothing was done.

        Args:
            principal: The caller.
            everything: Rewrite all tables, whether or not anything was erased, also those that an interrupted run has
                rewritten.
            progress: Called with what is done, how much of it is done, and how much there is.

        Raises:
            ConflictError: Another scrub is running.
            ScrubError: Something erased would still be in the files; no state was changed.
        """
        principal.require(Permission.ERASE)
        async with self._database.transaction(read_only=True) as work:
            oldest = await work.erasures.find_oldest_unscrubbed()
        if oldest is None and not everything:
            return None
        return await self._scrub(everything=everything, progress=progress)

    async def _scrub(self, *, everything: bool, progress: Progress) -> ScrubReport:
        async with self._open_session() as session:
            async with self._database.transaction() as work:
                scrub_id, rewritten = await work.scrubs.begin_scrub()
                if everything:
                    await work.scrubs.forget_rewritten(scrub_id)
                    rewritten = {}
                collections = await work.scrubs.list_scrubbed_collections(scrub_id)
                tables = await session.list_tables(collections, everything=everything)
            report = ScrubReport(rewritten=rewritten)
            if not await session.wait_for_older_transactions():
                report.unproven.append(NO_TRANSACTIONS)
            waiting = [table for table in tables if table not in rewritten]
            fingerprints = await self._plant(session, waiting, report, progress)
            if fingerprints is not None and rewritten:
                report.unproven.append(f"{NO_SEARCH}: {', '.join(sorted(rewritten))}")
            for done, table in enumerate(waiting):
                progress(f"rewrites {table}", done, len(waiting))
                report.rewritten[table] = round(await session.rewrite_table(table), 3)
                async with self._database.transaction() as work:
                    await work.scrubs.add_rewritten(scrub_id, table, report.rewritten[table])
            await self._finish_files(session, report, progress)
            if fingerprints is not None:
                await self._search_again(scrub_id, fingerprints, report, progress)
            async with self._database.transaction() as work:
                kept_days = self._settings.backups.stated_keep_days
                report.erasures = await work.scrubs.finish_scrub(scrub_id, asdict(report), kept_days)
        return report

    @asynccontextmanager
    async def _open_session(self) -> AsyncIterator[ScrubSession]:
        """Yield a session of the embedded server's superuser, or of the owner of an external one."""
        if self._settings.database.url is not None:
            async with open_scrub_session(self._database.owner_address) as session:
                yield session
            return
        server = EmbeddedPostgres(self._settings.data_dir)
        await asyncio.to_thread(server.start)
        try:
            async with open_scrub_session(parse_database_url(server.superuser_url)) as session:
                yield session
        finally:
            await asyncio.to_thread(server.stop)

    @property
    def _folder(self) -> Path | None:
        """Folder of the database's files, if they are this machine's to read."""
        return None if self._settings.database.url is not None else self._settings.data_dir / "postgres"

    async def _plant(
        self, session: ScrubSession, tables: Sequence[str], report: ScrubReport, progress: Progress
    ) -> Fingerprints | None:
        """Plant fingerprints and see them, where the files can be searched.

        Raises:
            ScrubError: One is not seen: what the search finds afterwards would mean nothing.
        """
        if self._folder is None:
            report.unproven.append(NO_FILES)
            return None
        fingerprints, refused = await session.plant_fingerprints(tables)
        report.unproven += [f"no fingerprint could be planted in {column}" for column in refused]
        found = (await self._search(fingerprints, "searches for what was planted", progress)).found
        report.planted = len(fingerprints.places)
        report.seen_before = sum(place in found for place in fingerprints.places)
        if unseen := [place for place in fingerprints.places if place not in found]:
            raise ScrubError(
                f"The search does not see what was planted in {', '.join(unseen[:5])}, so that it would prove nothing. "
                "Nothing was rewritten."
            )
        return fingerprints

    async def _finish_files(self, session: ScrubSession, report: ScrubReport, progress: Progress) -> None:
        """Rewrite the planner's statistics, turn over the write-ahead log, and note what no scrub reaches."""
        progress("turns over the write-ahead log", 0, None)
        if not await session.rewrite_statistics():
            report.unproven.append(NO_STATISTICS)
        turned = await session.turn_over_wal()
        if turned is None:
            report.unproven.append(NO_WAL)
        elif turned.kept:
            raise ScrubError(
                f"PostgreSQL keeps {turned.kept} older files of its write-ahead log for a replica or an archive that"
                " has not taken them. Let it catch up, or drop its replication slot, and scrub again: no table is"
                " rewritten twice."
            )
        else:
            report.wal_segments = turned.segments
        report.remaining += ["backups from before", *await session.list_copies()]
        copies = self._settings.data_dir / "backups"
        if copies.is_dir() and (count := sum(1 for _ in copies.glob("*.dump"))):
            report.remaining.append(f"{count} copies from before upgrades in {copies}")

    async def _search_again(
        self, scrub_id: UUID, fingerprints: Fingerprints, report: ScrubReport, progress: Progress
    ) -> None:
        """Search for what was planted once more.

        Raises:
            ScrubError: Something is there, or a file could not be read; the next run begins anew with every table.
        """
        found = await self._search(fingerprints, "searches again", progress)
        report.files, report.bytes = found.files, found.bytes
        report.found_after = len(found.found)
        if found.found or found.unreadable:
            async with self._database.transaction() as work:
                await work.scrubs.forget_rewritten(scrub_id)
        if found.found:
            files = sorted(set().union(*found.found.values()))
            raise ScrubError(
                f"{len(found.found)} of {report.planted} fingerprints are still in {', '.join(files[:5])}. Scrub again;"
                " if they stay, see what keeps these files. No erasure counts as scrubbed."
            )
        if found.unreadable:
            raise ScrubError(
                f"{len(found.unreadable)} files could not be read, {found.unreadable[0]} for one: scrub as the user"
                " that runs PostgreSQL, or as root."
            )

    async def _search(self, fingerprints: Fingerprints, what: str, progress: Progress) -> ScanResult:
        folder = self._folder
        if folder is None:
            return ScanResult()
        return await asyncio.to_thread(scan_files, folder, fingerprints, lambda count: progress(what, count, None))
