"""One embedded PostgreSQL for the whole run; every test that requests one gets a fresh database."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import settings

from vultus.db import migrate
from vultus.db.database import Database
from vultus.db.embedded.cluster import OWNER, SERVICE, SUPERUSER
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.sealing.custody import Custody
from vultus.sealing.key_ring import FileKeyRing
from vultus.settings import DatabaseSettings
from vultus.sources.pool import DecoderProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# No test reaches for the network: those of the recommended pack have a server of their own.
os.environ["VULTUS_MODELS__OFFLINE"] = "true"

# A property states what holds, not how fast: a busy machine must not fail it. Each run draws other examples.
settings.register_profile("unhurried", deadline=None, max_examples=50)
settings.load_profile("unhurried")

TEMPLATE = "vultus_template"
EMPTY = """
DO $$ DECLARE partition text; BEGIN
    FOR partition IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'faces'::regclass LOOP
        EXECUTE 'DROP TABLE ' || partition;
    END LOOP;
    DELETE FROM webhooks; DELETE FROM collections; DELETE FROM api_keys; DELETE FROM idempotency; DELETE FROM audit;
    DELETE FROM outbox; DELETE FROM tombstones; UPDATE outbox_floor SET number = 0;
    DELETE FROM ledgers; DELETE FROM audit_links; DELETE FROM spent_keys; DELETE FROM erasures; DELETE FROM scrubs;
    DELETE FROM decisions; DELETE FROM audit_changes;
END $$
"""
_numbers = count(1)
_empty: list[str] = []
_connected: dict[str, Database] = {}
"""By URL."""


def as_role(url: str, role: str) -> str:
    """Return the URL of an embedded database for another of its roles."""
    return url.replace(urlsplit(url).netloc, f"{role}@", 1)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def unmeasured_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts run twice as fast, for the lines they reach are not counted.

    For tests of whole programs: other tests reach the same lines.
    """
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """The lines that the test's own thread reaches are not counted, which is faster.

    For tests of many examples, whose lines other tests reach. The marker `no_cover` of pytest-cov would stop counting
    in every thread, and start it again in this one alone: the event loop's threads would count nothing from then on.
    """
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)


@pytest.fixture(autouse=True, scope="session")
def measured_decoders() -> Iterator[None]:
    """In a measured run decoders that are closed end by themselves: one that is killed counts no lines."""
    kill = DecoderProcess.kill

    def kill_unless_closed(process: DecoderProcess) -> None:
        if not process.is_closed:
            kill(process)

    with pytest.MonkeyPatch.context() as patch:
        if "COVERAGE_PROCESS_CONFIG" in os.environ:
            patch.setattr(DecoderProcess, "kill", kill_unless_closed)
        yield


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A directory that PostgreSQL's user can reach; pytest's own are closed to it when root runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="vultus-test-"))
    folder.chmod(0o755)
    path = folder / "data"
    path.mkdir(mode=0o700)
    yield path
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The URL of a server that lives as long as the test run, for its superuser: tests make databases."""
    path = Path(tempfile.mkdtemp(prefix="vultus-tests-"))
    try:
        with EmbeddedPostgres(path) as server:
            server.start()
            yield server.superuser_url
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
async def admin(server_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that creates databases, and first the migrated template they are copied from."""
    connection = await asyncpg.connect(server_url.replace("+asyncpg", ""))
    await connection.execute(f"CREATE DATABASE {TEMPLATE} OWNER {OWNER}")
    template_url = server_url.replace("/vultus?", f"/{TEMPLATE}?")
    template = await asyncpg.connect(template_url.replace("+asyncpg", ""))
    await template.execute("CREATE EXTENSION vector")
    await template.close()
    await migrate.upgrade_schema(as_role(template_url, OWNER), serves=SERVICE)
    yield connection
    for database in _connected.values():
        await database.close()
    await connection.close()


@pytest.fixture
async def database_url(server_url: str, admin: asyncpg.Connection) -> AsyncIterator[str]:
    """The URL of an empty database with the current schema, for the role that serves.

    Emptied and reused: copying one takes half a second on a slow disk, emptying it a hundredth. A test that changes
    the schema or a setting takes `bare_database_url`.
    """
    if _empty:
        name = _empty.pop()
    else:
        name = f"test_{next(_numbers)}"
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {OWNER}")
    url = server_url.replace("/vultus?", f"/{name}?")
    yield as_role(url, SERVICE)
    busy = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND state <> 'idle'"
    await admin.execute(busy, name)
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(EMPTY)
    await connection.close()
    _empty.append(name)


@pytest.fixture
def owner_url(database_url: str) -> str:
    """The URL of the test's database for the role that owns its tables: what the service itself may not do."""
    return as_role(database_url, OWNER)


@pytest.fixture
def superuser_url(database_url: str) -> str:
    """The URL of the test's database for the superuser: what nobody may do who serves or owns."""
    return as_role(database_url, SUPERUSER)


async def run_as_owner(database: Database, *statements: str) -> None:
    """Run statements, in one transaction, that the role which serves may not."""
    connection = await asyncpg.connect(database.owner_address.dsn)
    async with connection.transaction():
        for statement in statements:
            await connection.execute(statement)
    await connection.close()


@pytest.fixture
async def bare_database_url(server_url: str, admin: asyncpg.Connection) -> AsyncIterator[str]:
    """The URL of a database without a schema, for the superuser, dropped after the test."""
    name = f"bare_{next(_numbers)}"
    await admin.execute(f"CREATE DATABASE {name}")
    yield server_url.replace("/vultus?", f"/{name}?")
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def custody(tmp_path: Path) -> Custody:
    """The keys of the database, which are made when something is sealed."""
    return Custody.open(tmp_path / "custody", FileKeyRing(tmp_path / "ring.json"))


@pytest.fixture
async def database(database_url: str, owner_url: str, custody: Custody) -> AsyncIterator[Database]:
    """An empty database, connected; connections and compiled statements are those of the tests before."""
    settings = DatabaseSettings(pool_size=5)
    first = _connected.get(database_url) or await Database.connect(database_url, settings, owner_url=owner_url)
    _connected[database_url] = first
    database = Database(first._engine, first.owner_address, settings)
    database.use_keys(custody)
    yield database
    database._health.close()
    database._hot_connections.close()
    if first._engine.pool.checkedout():  # type: ignore[attr-defined]
        await _connected.pop(database_url).close()
