"""The unit of work, and what callers see when PostgreSQL fails."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import numpy as np
import pytest
from sqlalchemy import text

from vultus.db.database import Database, HotQueries
from vultus.errors import (
    AlreadyExistsError,
    DatabaseUnavailableError,
    InvalidInputError,
    OverloadedError,
    SchemaNotCurrentError,
    SetupError,
    UnavailableError,
    VultusError,
)
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vultus.domain import Collection, DecisionPolicy, FloatArray


CANARY = "".join(["Pseudo", "nymous"])  # not as one word: a traceback shows the lines of this file too


async def run(database: Database, statement: str) -> None:
    async with database.transaction() as work:
        await work._session.execute(text(statement))


async def test_an_exception_rolls_the_whole_unit_of_work_back(database: Database, policy: DecisionPolicy) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as work:
            await work.collections.add_collection("home", "contract", policy)
            raise ZeroDivisionError

    async with database.transaction(read_only=True) as work:
        assert await work.collections.list_collections(after=None, limit=9) == ()


async def test_a_cancelled_unit_of_work_is_rolled_back(database: Database, policy: DecisionPolicy) -> None:
    started = asyncio.Event()

    async def slow() -> None:
        async with database.transaction() as work:
            await work.collections.add_collection("home", "contract", policy)
            started.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(slow())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with database.transaction(read_only=True) as work:
        assert await work.collections.list_collections(after=None, limit=9) == ()


async def test_read_only_work_cannot_write(database: Database, policy: DecisionPolicy) -> None:
    with pytest.raises(UnavailableError, match="read-only"):
        async with database.transaction(read_only=True) as work:
            await work.collections.add_collection("home", "contract", policy)

    async with database.transaction() as work:  # the connection went back as it was
        await work.collections.add_collection("home", "contract", policy)


async def test_a_full_pool_refuses(database_url: str) -> None:
    database = await Database.connect(database_url, DatabaseSettings(pool_size=2, pool_wait_s=0.05))
    async with database.transaction(read_only=True), database.transaction(read_only=True):
        with pytest.raises(OverloadedError, match="in use"):
            async with database.transaction():
                pass
    await database.ping()
    await database.close()


async def test_reads_are_answered_while_writers_wait_for_a_collection(
    database_url: str, collection: Collection, towards: Callable[..., FloatArray]
) -> None:
    database = await Database.connect(database_url, DatabaseSettings(pool_size=4, pool_wait_s=5))
    probe = towards(0)[None]

    async def write() -> None:
        async with database.transaction() as work:
            await work.lock_collection(collection.id)

    async with asyncio.timeout(3), database.transaction() as holder:
        await holder.lock_collection(collection.id)
        writers = [asyncio.create_task(write()) for _ in range(12)]
        await asyncio.sleep(0.1)
        async with database.hot_queries() as first, database.hot_queries() as second:
            for queries in (first, second):
                await queries.templates.search_exact(collection.id, collection.space_id, probe, 1)
        async with database.transaction(read_only=True) as work:
            await work.collections.get_collection(collection.id)
        await database.ping()
        assert not any(writer.done() for writer in writers)
    await asyncio.gather(*writers)
    await database.close()


async def test_writers_of_one_collection_leave_connections_to_those_of_others(
    database_url: str, collection: Collection, policy: DecisionPolicy
) -> None:
    database = await Database.connect(database_url, DatabaseSettings(pool_size=8, pool_wait_s=5))
    async with database.transaction() as work:
        other = await work.collections.add_collection("other", "contract", policy)
    pool: Any = database._engine.pool

    async def write(to: Collection) -> None:
        async with database.transaction(writes_to=to.name) as work:
            await work.lock_collection(to.id)

    async with asyncio.timeout(4), database.transaction(writes_to=collection.name) as holder:
        await holder.lock_collection(collection.id)
        writers = [asyncio.create_task(write(collection)) for _ in range(12)]
        await asyncio.sleep(0.1)
        assert pool.checkedout() == 2
        await write(other)
        assert not any(writer.done() for writer in writers)
    await asyncio.gather(*writers)
    assert not database._collection_writers, "nothing is kept of collections nobody writes to"
    await database.close()


async def test_who_waited_for_a_collection_in_vain_frees_no_place(database_url: str, collection: Collection) -> None:
    database = await Database.connect(database_url, DatabaseSettings(pool_size=2, pool_wait_s=0.05))
    async with database.transaction(writes_to=collection.name):
        for _ in range(3):
            with pytest.raises(OverloadedError, match="in use"):
                async with database.transaction(writes_to=collection.name):
                    pass
    async with database.transaction(writes_to=collection.name) as work:
        await work.lock_collection(collection.id)
    await database.close()


async def test_writers_beyond_their_share_of_the_pool_are_refused(database_url: str) -> None:
    database = await Database.connect(database_url, DatabaseSettings(pool_size=3, pool_wait_s=0.05))
    async with database.transaction() as work:
        with pytest.raises(OverloadedError, match="in use"):
            async with database.transaction():
                pass
        await work.keys.list_keys(after=None, limit=1)
    async with database.transaction() as work:  # the place is free again, after the refusal too
        await work.keys.list_keys(after=None, limit=1)
    await database.close()


async def test_a_long_statement_is_cancelled(database_url: str) -> None:
    database = await Database.connect(database_url, DatabaseSettings(statement_timeout_ms=500))

    with pytest.raises(UnavailableError, match="took longer"):
        await run(database, "SELECT pg_sleep(5)")

    await database.close()


async def test_a_broken_connection_is_unavailable_and_heals(database: Database, admin: asyncpg.Connection) -> None:
    async with database.transaction() as work:
        pid = (await work._session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    await admin.execute("SELECT pg_terminate_backend($1, 1000)", pid)  # waits until it has ended
    await asyncio.sleep(0.01)  # the event loop notices that the connection was closed
    await run(database, "SELECT 1")

    with pytest.raises(DatabaseUnavailableError):
        await run(database, "SELECT pg_terminate_backend(pg_backend_pid())")

    await database.ping()


async def test_hot_queries_return_their_connection_to_the_pool(database_url: str) -> None:
    settings = DatabaseSettings(pool_wait_s=0.1).model_copy(update={"pool_size": 1})
    database = await Database.connect(database_url, settings)

    async def fetch_backend_pid(statement: str = "SELECT pg_backend_pid() AS pid") -> int:
        async with database.hot_queries() as queries:
            (row,) = await queries.keys._session.execute(text(statement), {})
            return int(row.pid)

    first = await fetch_backend_pid()
    async with database.hot_queries():
        with pytest.raises(OverloadedError, match="Every database connection"):
            await fetch_backend_pid()
    with pytest.raises(InvalidInputError):
        await fetch_backend_pid("SELECT 1 / 0 AS pid")
    kept = await fetch_backend_pid()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await fetch_backend_pid("SELECT pg_sleep(5)")
    # Else the server, told to cancel on another connection, could cancel what follows, and leave a transaction open.
    replaced = await fetch_backend_pid()
    with pytest.raises(DatabaseUnavailableError):
        await fetch_backend_pid("SELECT pg_terminate_backend(pg_backend_pid())")
    healed = await fetch_backend_pid()
    async with database.transaction() as work:
        await work.keys.list_keys(after=None, limit=1)
    await database.close()

    assert kept == first
    assert len({first, replaced, healed}) == 3


async def test_connections_kept_for_hot_queries_wait_for_nobody(database_url: str) -> None:
    """They are used again, leave the pool to transactions that need it, and are replaced when PostgreSQL ends them."""
    settings = DatabaseSettings(pool_wait_s=0.1).model_copy(update={"pool_size": 3})
    database = await Database.connect(database_url, settings)

    async def fetch_backend_pids(count: int) -> set[int]:
        pids = set()
        async with AsyncExitStack() as stack:
            for _ in range(count):
                queries = await stack.enter_async_context(database.hot_queries())
                (row,) = await queries.keys._session.execute(text("SELECT pg_backend_pid() AS pid"), {})
                pids.add(int(row.pid))
        return pids

    first = await fetch_backend_pids(3)
    reused = await fetch_backend_pids(3)
    async with AsyncExitStack() as stack:
        works = [await stack.enter_async_context(database.transaction(read_only=True)) for _ in range(3)]
        in_transactions = [
            (await work._session.execute(text("SELECT pg_backend_pid()"))).scalar_one() for work in works
        ]
    async with database.transaction() as work:
        own = (await work._session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        end_others = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY(:pids)")
        await work._session.execute(end_others, {"pids": [pid for pid in first if pid != own]})
    await asyncio.sleep(0.1)
    healed = await fetch_backend_pids(3)
    await database.close()

    assert reused == first == set(in_transactions)
    assert healed & first == {own}


@pytest.mark.parametrize(
    ("refusal", "meant"),
    [
        (asyncpg.TooManyConnectionsError("sorry, too many clients already"), OverloadedError),
        (asyncpg.CannotConnectNowError("the database system is starting up"), DatabaseUnavailableError),
        (asyncpg.InvalidPasswordError("no"), DatabaseUnavailableError),
        (asyncpg.InterfaceError("no"), DatabaseUnavailableError),
        (ConnectionRefusedError("no"), DatabaseUnavailableError),
    ],
)
async def test_a_connection_that_cannot_be_opened_raises_unavailable(
    database_url: str, monkeypatch: pytest.MonkeyPatch, refusal: Exception, meant: type[Exception]
) -> None:
    database = await Database.connect(database_url, DatabaseSettings(pool_size=2))

    async def refuse(*_: Any, **__: Any) -> None:
        raise refusal

    async with database.transaction(read_only=True):  # has the one that is open
        monkeypatch.setattr(asyncpg, "connect", refuse)
        for opened in (database.hot_queries, database.transaction):
            with pytest.raises(meant):
                await opened().__aenter__()
    await database.close()


async def test_a_database_that_lost_its_tables_is_no_defect_and_not_ready(database_url: str) -> None:
    """It was replaced or restored while the server ran: that is not answered with 500, and readiness says so."""
    database = await Database.connect(database_url, DatabaseSettings())
    await database.ping()
    await run(database, "ALTER TABLE alembic_version RENAME TO elsewhere")
    await run(database, "ALTER TABLE api_keys RENAME TO other_keys")
    try:
        with pytest.raises(SchemaNotCurrentError, match="replaced or restored"):
            await database.ping()
        with pytest.raises(SchemaNotCurrentError, match="replaced or restored"):
            async with database.hot_queries() as queries:
                await queries.keys.find_live_key(bytes(32))
    finally:
        await run(database, "ALTER TABLE elsewhere RENAME TO alembic_version")
        await run(database, "ALTER TABLE other_keys RENAME TO api_keys")
    await database.ping()
    await database.close()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
async def test_a_careless_server_is_refused(database_url: str, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    # fsync cannot be turned off for one database, so the server's response is replaced.
    renamed = "SELECT name, CASE name WHEN '{}' THEN 'off' ELSE setting END AS setting FROM pg_settings"
    original = text

    def changed(statement: str) -> Any:
        return original(statement.replace("FROM pg_settings", f"FROM ({renamed.format(setting)}) AS s"))

    monkeypatch.setattr("vultus.db.requirements.text", changed)

    with pytest.raises(SetupError, match=f"runs with {setting} off"):
        await Database.connect(database_url, DatabaseSettings())


async def test_what_postgres_cannot_store_is_invalid_input(database: Database, collection: Collection) -> None:
    hostile: list[tuple[str, dict[str, Any]]] = [
        ("nul \0", {}),
        ("surrogate \ud800", {}),
        ("nul inside", {"a": "\0"}),
        ("surrogate inside", {"a": "\ud800"}),
        ("not a number", {"a": float("nan")}),
    ]
    for name, metadata in hostile:
        with pytest.raises(InvalidInputError):
            async with database.transaction() as work:
                await work.persons.add_person(collection.id, None, name, metadata)
    with pytest.raises(InvalidInputError):
        async with database.transaction() as work:
            await work.persons.list_persons(collection.id, after=None, limit=2**70)


@pytest.mark.parametrize("value", ["nul \0", "surrogate \ud800"])
async def test_values_that_cannot_be_encoded_are_invalid_input_and_not_quoted(database: Database, value: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        async with database.hot_queries() as queries:
            await queries.collections.get_collection_by_name(CANARY + value)

    assert CANARY not in "".join(traceback.format_exception(caught.value, chain=True))


async def test_failures_never_quote_a_value(
    database: Database, collection: Collection, enrol: Callable[..., Awaitable[Any]], towards: Callable[..., FloatArray]
) -> None:
    async def twice() -> None:
        async with database.transaction() as work:
            await work.persons.add_person(collection.id, CANARY, None, {})
            await work.persons.add_person(collection.id, CANARY, None, {})

    async def unencodable() -> None:
        async with database.transaction() as work:
            await work.persons.add_person(collection.id, None, f"{CANARY}\ud800", {})

    async def refused() -> None:
        async with database.transaction() as work:
            await work.persons.add_person(collection.id, None, f"{CANARY}\0", {})

    async def withdrawn() -> None:  # PostgreSQL's message contains the whole row including the vector
        async with database.transaction() as work:
            ada = await enrol(work, collection, CANARY, towards(0) * np.float32(0.123))
            await work._session.execute(text(f"UPDATE faces SET consent_live = false WHERE id = '{ada.faces[0].id}'"))

    for act, kind in ((twice, AlreadyExistsError), (unencodable, InvalidInputError), (refused, InvalidInputError)):
        with pytest.raises(kind) as caught:
            await act()
        assert CANARY not in "".join(traceback.format_exception(caught.value, chain=True))
    with pytest.raises(VultusError) as caught_row:
        await withdrawn()
    shown = "".join(traceback.format_exception(caught_row.value, chain=True))
    assert "0.1229" not in shown  # as float16
    assert "Failing row" not in shown


async def test_a_bug_in_a_statement_stays_visible(database: Database) -> None:
    with pytest.raises(Exception, match="no_such_table") as caught:
        await run(database, "SELECT * FROM no_such_table")

    assert not isinstance(caught.value, VultusError)


@pytest.mark.parametrize(
    "broken",
    [asyncpg.InternalClientError("another operation is in progress"), ConnectionResetError(), TimeoutError()],
)
@pytest.mark.parametrize("method", ["transaction", "hot_queries"])
async def test_a_broken_connection_state_is_unavailable_and_not_reused(
    database_url: str, monkeypatch: pytest.MonkeyPatch, broken: Exception, method: str
) -> None:
    database = await Database.connect(database_url, DatabaseSettings().model_copy(update={"pool_size": 1}))

    async def fetch(*_: object, **__: object) -> None:
        raise broken

    async with database.transaction() as work:
        before = (await work._session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    with monkeypatch.context() as patch, pytest.raises(DatabaseUnavailableError):
        patch.setattr("asyncpg.prepared_stmt.PreparedStatement.fetch", fetch)
        patch.setattr("asyncpg.Connection.fetch", fetch)
        async with getattr(database, method)() as work:
            await work.collections.get_collection_by_name("home")

    async with database.transaction() as work:
        assert (await work._session.execute(text("SELECT pg_backend_pid()"))).scalar_one() != before
    await database.close()


async def test_work_on_one_collection_is_serialized(database: Database) -> None:
    key, order = uuid4(), list[str]()

    async def second() -> None:
        async with database.transaction() as work:
            await work.lock_collection(key)
            order.append("second")

    async with database.transaction() as work:
        await work.lock_collection(key)
        task = asyncio.create_task(second())
        await asyncio.sleep(0.1)
        order.append("first")
    await task

    assert order == ["first", "second"]


def test_hot_queries_read_and_count_usage_and_nothing_else() -> None:
    """Each query is a transaction by itself: any other write would be outside of every unit of work."""
    session: Any = None
    repositories = vars(HotQueries(session))

    assert {name: type(one).__name__ for name, one in repositories.items()} == {
        "collections": "CollectionQueries",
        "keys": "ApiKeyQueries",
        "usage": "UsageQueries",
        "templates": "TemplateSearches",
    }
    methods = {name for one in repositories.values() for name in dir(one) if not name.startswith("_")}
    assert methods
    assert {name.split("_")[0] for name in methods} <= {"find", "get", "list", "rescore", "search"} | {
        "count",
        "release",
        "reserve",
    }
