"""The unit of work, and what callers see when PostgreSQL fails."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text

from vultus.db.database import Database, HotQueries
from vultus.db.templates.seal import TemplateSeal
from vultus.errors import (
    DatabaseUnavailableError,
    InvalidInputError,
    OverloadedError,
    UnavailableError,
)
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.domain import Collection, DecisionPolicy, FloatArray


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


def test_hot_queries_read_count_usage_take_tickets_and_nothing_else() -> None:
    """Each query is a transaction by itself: any other write would be outside of every unit of work."""
    session: Any = None
    repositories = vars(HotQueries(session, TemplateSeal()))

    assert {name: type(one).__name__ for name, one in repositories.items()} == {
        "collections": "CollectionQueries",
        "keys": "ApiKeyQueries",
        "outbox": "OutboxQueries",
        "pending_work": "PendingWorkQueries",
        "usage": "UsageQueries",
        "templates": "TemplateSearches",
        "tickets": "TicketQueries",
    }
    methods = {name for one in repositories.values() for name in dir(one) if not name.startswith("_")}
    assert methods
    reading = {"find", "get", "has", "is", "list", "rescore", "search", "settle"}
    assert {name.split("_")[0] for name in methods} <= reading | {"count", "release", "reserve", "take"}
