"""A scrub frees the files of what was erased, proves that it looked, and claims nothing otherwise."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from pydantic import SecretStr
from tests.callers import CALLER
from tests.conftest import EMPTY

from vultus.db.database import Database
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.repositories.collections import get_partition_name
from vultus.db.scrubbing import session
from vultus.db.scrubbing.fingerprints import ScanResult
from vultus.db.scrubbing.session import ScrubSession
from vultus.db.upgrades import create_embedded_schema
from vultus.db.urls import DatabaseUrls, parse_database_url
from vultus.domain.erasures import ErasureState
from vultus.errors import ConflictError, ScrubError
from vultus.sealing.custody import Custody
from vultus.services.people import scrub
from vultus.services.people.erasure import Eraser
from vultus.services.people.erasures import ErasureService
from vultus.services.people.scrub import Scrubber
from vultus.settings import BackupSettings, DatabaseSettings, JobSettings, Settings

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.domain import Collection, FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
NAME = b"Kunigunde"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[tuple[Path, DatabaseUrls]]:
    """A server of its own, whose files are searched: its data directory, and the URLs of its database."""
    folder = Path(tempfile.mkdtemp(prefix="vultus-scrub-"))
    with EmbeddedPostgres(folder) as server:
        urls = server.start()
        await create_embedded_schema(urls)
        yield folder, urls
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def settings(server: tuple[Path, DatabaseUrls]) -> Settings:
    return Settings(data_dir=server[0], backups=BackupSettings(keep_days=30))


@pytest.fixture
async def admin(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the superuser."""
    with EmbeddedPostgres(settings.data_dir) as server:
        connection = await asyncpg.connect(server.superuser_url.replace("+asyncpg", ""))
        yield connection
        await connection.close()


@pytest.fixture
async def database(
    server: tuple[Path, DatabaseUrls], admin: asyncpg.Connection, custody: Custody
) -> AsyncIterator[Database]:
    await admin.execute(EMPTY)
    database = await Database.connect(server[1].serving, DatabaseSettings(pool_size=5), owner_url=server[1].owner)
    database.use_keys(custody)
    yield database
    await database.close()


@pytest.fixture
async def erased(database: Database, collection: Collection, enrol: Enrol, towards: Towards) -> UUID:
    """The erasure of somebody with a name that is nowhere else."""
    async with database.transaction() as work:
        gone = await enrol(work, collection, NAME.decode(), towards(0))
        await enrol(work, collection, "stays", towards(1))
    return (await Eraser(database, JobSettings()).erase(CALLER, "home", gone.person.id)).erasure_id


def find_files(settings: Settings) -> list[str]:
    folder = settings.data_dir / "postgres"
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and NAME in path.read_bytes()
    )


async def get_state(database: Database, erasure_id: UUID) -> ErasureState:
    return (await ErasureService(database).get_erasure(CALLER, erasure_id)).state


async def test_a_scrub_leaves_nothing_of_what_was_erased_and_says_what_it_did(
    database: Database, settings: Settings, admin: asyncpg.Connection, erased: UUID
) -> None:
    await admin.execute("CHECKPOINT")  # into the files, as time does
    before = find_files(settings)
    scrubber = Scrubber(database, settings)

    report = await scrubber.scrub(CALLER)
    found = await ErasureService(database).get_erasure(CALLER, erased)

    assert any(name.startswith("base/") for name in before)
    assert any(name.startswith("pg_wal/") for name in before)
    assert find_files(settings) == []
    assert report is not None
    assert (report.erasures, report.found_after) == (1, 0)
    assert report.planted == report.seen_before >= 15
    assert report.unproven == []
    assert found.state is ErasureState.SCRUBBED
    assert found.scrubbed_at
    assert found.unreadable_at == found.scrubbed_at
    assert found.backups_expire_at
    assert (found.backups_expire_at - found.scrubbed_at).days in {29, 30}
    assert found.report
    assert found.report["remaining"] == ["backups from before"]
    assert await scrubber.scrub(CALLER) is None, "nothing was erased since"


@pytest.mark.parametrize("everything", [False, True])
async def test_a_scrub_that_was_interrupted_goes_on_where_it_was_or_begins_anew(
    database: Database, settings: Settings, erased: UUID, monkeypatch: pytest.MonkeyPatch, *, everything: bool
) -> None:
    rewritten: list[str] = []
    rewrite = ScrubSession.rewrite_table

    async def rewrite_until_persons(self: ScrubSession, table: str) -> float:
        if table == "persons":
            raise KeyboardInterrupt
        rewritten.append(table)
        return await rewrite(self, table)

    with monkeypatch.context() as patch:
        patch.setattr(ScrubSession, "rewrite_table", rewrite_until_persons)
        with pytest.raises(KeyboardInterrupt):
            await Scrubber(database, settings).scrub(CALLER)
    between = await get_state(database, erased)
    done, rewritten = set(rewritten), []

    async def note_rewriting(self: ScrubSession, table: str) -> float:
        rewritten.append(table)
        return await rewrite(self, table)

    monkeypatch.setattr(ScrubSession, "rewrite_table", note_rewriting)
    report = await Scrubber(database, settings).scrub(CALLER, everything=everything)

    assert between is ErasureState.UNFINDABLE
    assert done
    assert done & set(rewritten) == (done if everything else set())
    assert {"persons", "pg_catalog.pg_statistic"} <= set(rewritten)
    assert report
    assert report.erasures == 1
    assert report.unproven == ([] if everything else [f"{scrub.NO_SEARCH}: {', '.join(sorted(done))}"])
    assert find_files(settings) == []


async def test_what_a_transaction_may_still_see_is_not_scrubbed(
    database: Database, settings: Settings, erased: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "OLD_TRANSACTIONS_WAIT_S", 0.1)
    async with database.transaction(read_only=True) as work:
        await work.keys.list_keys(after=None, limit=1)
        with pytest.raises(ScrubError, match=r"process \d+ \(vultus\)"):
            await Scrubber(database, settings).scrub(CALLER)

    assert await get_state(database, erased) is ErasureState.UNFINDABLE


async def test_a_table_that_is_always_in_use_is_named(
    database: Database, settings: Settings, erased: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(session, "LOCK_TRIES", 2)
    monkeypatch.setattr(session, "LOCK_PAUSE_S", 0.01)
    wait = ScrubSession.wait_for_older_transactions

    async with database.transaction() as work:

        async def wait_then_lock(self: ScrubSession) -> bool:
            seen = await wait(self)
            await work.keys.list_keys(after=None, limit=1)
            return seen

        monkeypatch.setattr(ScrubSession, "wait_for_older_transactions", wait_then_lock)
        with pytest.raises(ScrubError, match="The table api_keys is in use"):
            await Scrubber(database, settings).scrub(CALLER)

    assert await get_state(database, erased) is ErasureState.UNFINDABLE


async def test_the_statistics_wait_for_their_lock_as_the_table_does(
    database: Database, server: tuple[Path, DatabaseUrls], admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    del database
    monkeypatch.setattr(session, "LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(session, "LOCK_PAUSE_S", 0.05)
    execute, statements = asyncpg.Connection.execute, list[str]()

    async def execute_under_lock(self: asyncpg.Connection, statement: str) -> None:
        if statement.endswith(" persons"):
            statements.append(statement)
        if statement != "ANALYZE persons" or statements.count(statement) > 1:
            await execute(self, statement)
            return
        async with admin.transaction():
            await execute(admin, "LOCK TABLE persons IN SHARE MODE")
            await execute(self, statement)

    async with session.open_scrub_session(parse_database_url(server[1].owner)) as scrubbing:
        monkeypatch.setattr(asyncpg.Connection, "execute", execute_under_lock)
        await scrubbing.rewrite_table("persons")

    assert statements == ["VACUUM (FULL) persons", "ANALYZE persons", "ANALYZE persons"]


@pytest.mark.parametrize("blind", ["before", "after"])
async def test_a_search_that_sees_too_little_or_too_much_proves_nothing(
    database: Database, settings: Settings, erased: UUID, monkeypatch: pytest.MonkeyPatch, blind: str
) -> None:
    """It does not see what was planted, or sees what was to be gone, as a table was not rewritten.

    The next run begins anew, and proves all.
    """
    with monkeypatch.context() as patch:
        if blind == "before":
            patch.setattr(scrub, "scan_files", lambda *_: ScanResult())
        else:

            async def skip(_self: ScrubSession, _table: str) -> float:
                return 0.0

            patch.setattr(ScrubSession, "rewrite_table", skip)
        with pytest.raises(ScrubError, match="prove nothing" if blind == "before" else "are still in base/"):
            await Scrubber(database, settings).scrub(CALLER)
    between = await get_state(database, erased)
    report = await Scrubber(database, settings).scrub(CALLER)

    assert between is ErasureState.UNFINDABLE
    assert report
    assert report.planted == report.seen_before >= 15
    assert report.unproven == []
    assert find_files(settings) == []


async def test_who_owns_no_table_scrubs_nothing(
    database: Database, settings: Settings, server: tuple[Path, DatabaseUrls], admin: asyncpg.Connection, erased: UUID
) -> None:
    """The role that serves without the owner's URL; a VACUUM of a table of somebody else is but a warning."""
    external = settings.model_copy(update={"database": DatabaseSettings(url=SecretStr(server[1].serving))})
    serving = await Database.connect(server[1].serving, external.database)

    with pytest.raises(ScrubError, match="VULTUS_DATABASE__OWNER_URL"):
        await Scrubber(serving, external).scrub(CALLER)
    async with session.open_scrub_session(serving.owner_address) as unprivileged:
        with pytest.raises(ScrubError, match="did not rewrite the table persons"):
            await unprivileged.rewrite_table("persons")
    await serving.close()

    assert await admin.fetchval("SELECT count(*) FROM scrubs") == 0
    assert await get_state(database, erased) is ErasureState.UNFINDABLE


async def test_tables_of_other_programs_are_left_alone(
    database: Database, settings: Settings, admin: asyncpg.Connection, erased: UUID
) -> None:
    del erased
    await admin.execute('CREATE TABLE public."Theirs" AS SELECT 1 AS one')
    try:
        report = await Scrubber(database, settings).scrub(CALLER, everything=True)
    finally:
        await admin.execute('DROP TABLE public."Theirs"')

    assert report
    assert {"persons", "audit", "erasures"} <= report.rewritten.keys()
    assert not any("heirs" in table for table in report.rewritten)


async def test_what_the_owner_of_an_external_database_may_not_is_said(
    database: Database, settings: Settings, server: tuple[Path, DatabaseUrls], erased: UUID
) -> None:
    """The role that owns the tables is no superuser; its address is that of another machine for all it knows."""
    external = settings.model_copy(update={"database": DatabaseSettings(url=SecretStr(server[1].owner))})

    report = await Scrubber(database, external).scrub(CALLER)

    assert report
    assert (report.erasures, report.planted, report.wal_segments) == (1, 0, 0)
    assert set(report.unproven) == {scrub.NO_FILES, scrub.NO_WAL, scrub.NO_STATISTICS, scrub.NO_TRANSACTIONS}
    assert report.rewritten.keys() >= {"persons", "consents", "crops"}
    assert not any(name.startswith("base/") for name in find_files(settings)), "the tables are clean all the same"
    assert await get_state(database, erased) is ErasureState.SCRUBBED


async def test_what_lay_open_before_a_collection_was_sealed_goes_too(
    database: Database, settings: Settings, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0))
        await work.sealings.add_sealing(collection.id)
        await work.sealings.finish(collection.id)

    report = await Scrubber(database, settings).scrub(CALLER)

    assert report
    assert get_partition_name(collection.id) in report.rewritten
    async with database.transaction(read_only=True) as work:
        assert await work.erasures.find_oldest_unscrubbed() is None
    assert await Scrubber(database, settings).scrub(CALLER) is None


async def test_only_one_scrub_runs_and_the_job_leaves_it_alone(
    database: Database, settings: Settings, erased: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    scrubber, running = Scrubber(database, settings), asyncio.Event()
    goes_on = asyncio.Event()

    async def wait_for_test(_self: ScrubSession) -> bool:
        running.set()
        return await goes_on.wait()

    monkeypatch.setattr(ScrubSession, "wait_for_older_transactions", wait_for_test)
    monkeypatch.setattr(scrub, "OVERDUE", -scrub.OVERDUE)  # due at any hour
    first = asyncio.create_task(scrubber.scrub_when_due())
    await running.wait()

    with pytest.raises(ConflictError, match="Another scrub"):
        await scrubber.scrub(CALLER)
    assert await scrubber.scrub_when_due() == 0
    goes_on.set()

    assert await first == 1
    assert await get_state(database, erased) is ErasureState.SCRUBBED
