"""The schema: equal to the tables, up and down, and refused when it is another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine

from vultus.db import migrate, tables
from vultus.db.database import Database
from vultus.db.migrations.versions import __path__ as versions
from vultus.db.requirements import check_pgvector, check_server
from vultus.db.urls import normalise
from vultus.errors import ExtensionMissingError, SchemaNotCurrentError, SetupError
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy import Connection

    from vultus.domain import DecisionPolicy


async def test_the_migrated_schema_equals_the_tables(
    database_url: str, database: Database, policy: DecisionPolicy
) -> None:
    async with database.work() as work:
        await work.collections.add("home", "contract", policy)  # its partition is no difference

    def differences(connection: Connection) -> list[Any]:
        options = {"include_object": migrate.compared, "compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables.Base.metadata))

    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()

    assert found == []


async def test_constraints_have_the_names_the_tables_give_them(database_url: str) -> None:
    """Alembic does not compare the names of primary keys and checks; failures are told apart by them."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    rows = await connection.fetch(
        "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
        " AND contype IN ('p', 'c', 'u', 'f') AND conrelid::regclass::text <> 'alembic_version'"
    )
    await connection.close()

    expected = {constraint.name for table in tables.Base.metadata.tables.values() for constraint in table.constraints}
    assert {row["conname"] for row in rows} == expected


async def test_down_and_up_again(bare_database_url: str) -> None:
    url = bare_database_url.replace("postgresql+asyncpg://", "postgres://")
    assert await migrate.current(url) is None

    await migrate.upgrade(url)
    assert await migrate.current(url) == migrate.head()
    await migrate.downgrade(url, "base")
    assert await migrate.current(url) is None
    await migrate.upgrade(url)

    await migrate.check_current(url)


async def test_two_processes_migrate_once(bare_database_url: str) -> None:
    await asyncio.gather(*(migrate.upgrade(bare_database_url) for _ in range(3)))

    await migrate.check_current(bare_database_url)


async def test_another_schema_is_refused(bare_database_url: str) -> None:
    with pytest.raises(SchemaNotCurrentError, match="vultus db upgrade"):
        await migrate.check_current(bare_database_url)
    with pytest.raises(ExtensionMissingError, match="vultus db upgrade"):
        await Database.connect(bare_database_url, DatabaseSettings())

    await migrate.upgrade(bare_database_url)
    connection = await asyncpg.connect(bare_database_url.replace("+asyncpg", ""))
    await connection.execute("UPDATE alembic_version SET version_num = 'newer'")
    await connection.close()

    with pytest.raises(SchemaNotCurrentError, match="newer one migrated it"):
        await Database.connect(bare_database_url, DatabaseSettings())
    with pytest.raises(SchemaNotCurrentError, match="newer one migrated it"):
        await migrate.upgrade(bare_database_url)


async def test_an_older_schema_is_refused(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "head", lambda: "9999")

    with pytest.raises(SchemaNotCurrentError, match="vultus db upgrade"):
        await Database.connect(database_url, DatabaseSettings())


class Answers:
    """A connection to a server that answers what it is told to."""

    def __init__(self, version: int, pgvector: tuple[str, str | None] | None) -> None:
        self._version = version
        self._pgvector = pgvector

    async def execute(self, statement: Any, _values: Any = None) -> Answers:
        self._asks_version = "server_version_num" in str(statement)
        return self

    def scalar_one(self) -> str:
        return str(self._version)

    def one_or_none(self) -> Any:
        if self._pgvector is None:
            return None
        default, installed = self._pgvector
        return type("Row", (), {"default_version": default, "installed_version": installed})


async def test_an_old_server_is_refused() -> None:
    with pytest.raises(SetupError, match="PostgreSQL 14 is too old"):
        await check_server(Answers(140012, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pgvector", "advice"),
    [
        (None, "apt-get install postgresql-17-pgvector"),
        (("0.8.3", "0.8.3"), "apt-get install postgresql-17-pgvector"),
        (("0.8.5", "0.7.0"), "ALTER EXTENSION vector UPDATE"),
        (("0.8.5", None), "CREATE EXTENSION vector"),
    ],
)
async def test_pgvector_missing_or_too_old(pgvector: tuple[str, str | None] | None, advice: str) -> None:
    with pytest.raises(ExtensionMissingError, match=advice):
        await check_pgvector(Answers(170002, pgvector))  # type: ignore[arg-type]


async def test_pgvector_that_is_good_enough() -> None:
    await check_pgvector(Answers(170002, ("0.8.3", "0.8.4")))  # type: ignore[arg-type]
    await check_pgvector(Answers(170002, ("0.8.4", None)), installed=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_urls_as_people_write_them(scheme: str) -> None:
    url = normalise(f"{scheme}://ada:p%40ss@db.example:5433/faces?sslmode=require")

    assert url.render_as_string(hide_password=False) == (
        "postgresql+asyncpg://ada:p%40ss@db.example:5433/faces?ssl=require"
    )


@pytest.mark.parametrize(
    "url",
    ["mysql://ada:geheim@host/faces", "geheim", "postgresql://ada:geheim@host", "postgresql://u:geheim@h/d?sslmode=no"],
)
def test_other_urls_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(SetupError) as caught:
        normalise(url)

    assert "VULTUS_DATABASE__URL" in caught.value.detail
    assert "geheim" not in caught.value.detail


def test_the_statistics_and_storage_of_the_migration_are_those_of_the_tables() -> None:
    (folder,) = versions
    source = "".join(path.read_text() for path in Path(folder).glob("0*.py"))

    assert f"INLINE = {tables.INLINE}".replace("'", '"') in source
    for table, columns in tables.UNSAMPLED.items():
        assert f'"{table}": {columns}'.replace("'", '"') in source
