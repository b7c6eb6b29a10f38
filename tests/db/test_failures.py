"""What goes wrong in the database, as callers see it: named, and without a value."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import pytest
from sqlalchemy import text
from tests.conftest import run_as_owner
from tests.db.test_database import run

from vultus.db.database import Database
from vultus.errors import (
    AlreadyExistsError,
    DatabaseUnavailableError,
    InvalidInputError,
    OverloadedError,
    SchemaNotCurrentError,
    SetupError,
    VultusError,
)
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vultus.domain import Collection, FloatArray


CANARY = "".join(["Pseudo", "nymous"])  # not as one word: a traceback shows the lines of this file too


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


async def test_a_database_that_lost_its_tables_is_no_defect_and_not_ready(database_url: str, owner_url: str) -> None:
    """It was replaced or restored while the server ran: that is not answered with 500, and readiness says so."""
    database = await Database.connect(database_url, DatabaseSettings(), owner_url=owner_url)
    await database.ping()
    await run_as_owner(database, "ALTER TABLE alembic_version RENAME TO elsewhere")
    await run_as_owner(database, "ALTER TABLE api_keys RENAME TO other_keys")
    try:
        with pytest.raises(SchemaNotCurrentError, match="replaced or restored"):
            await database.ping()
        with pytest.raises(SchemaNotCurrentError, match="replaced or restored"):
            async with database.hot_queries() as queries:
                await queries.keys.find_live_key(bytes(32))
    finally:
        await run_as_owner(database, "ALTER TABLE elsewhere RENAME TO alembic_version")
        await run_as_owner(database, "ALTER TABLE other_keys RENAME TO api_keys")
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
