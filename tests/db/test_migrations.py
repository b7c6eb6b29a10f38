"""The schema: equal to the tables, upgraded and downgraded, and refused when it is another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from vultus.db import migrate, tables
from vultus.db.connections import create_engine
from vultus.db.database import Database
from vultus.db.repositories.collections import get_partition_name
from vultus.db.requirements import check_pgvector, check_server
from vultus.db.urls import parse_database_url
from vultus.errors import ExtensionMissingError, SchemaNotCurrentError, SetupError
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sqlalchemy import Connection

    from vultus.domain import DecisionPolicy


async def test_the_migrated_schema_equals_the_tables(
    database_url: str, database: Database, policy: DecisionPolicy
) -> None:
    async with database.transaction() as work:
        await work.collections.add_collection("home", "contract", policy)  # its partition is no difference

    def differences(connection: Connection) -> list[Any]:
        options = {"include_object": migrate.is_schema_object, "compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables.Base.metadata))

    engine = create_engine(parse_database_url(database_url), {}, command_timeout_s=None)
    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()

    assert found == []


async def test_constraints_have_the_names_the_tables_give_them(database_url: str) -> None:
    """Alembic does not compare the names of primary keys and checks; errors are identified by them."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    rows = await connection.fetch(
        "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
        " AND contype IN ('p', 'c', 'u', 'f') AND conrelid::regclass::text <> 'alembic_version'"
    )
    await connection.close()

    expected = {constraint.name for table in tables.Base.metadata.tables.values() for constraint in table.constraints}
    assert {row["conname"] for row in rows} == expected


async def test_downgrade_and_upgrade_again(bare_database_url: str) -> None:
    url = bare_database_url.replace("postgresql+asyncpg://", "postgres://")
    assert await migrate.fetch_current_revision(url) is None

    await migrate.upgrade_schema(url)
    assert await migrate.fetch_current_revision(url) == migrate.get_head_revision()
    await migrate.downgrade_schema(url, "base")
    assert await migrate.fetch_current_revision(url) is None
    await migrate.upgrade_schema(url)

    assert await migrate.fetch_current_revision(url) == migrate.get_head_revision()


async def test_two_processes_migrate_once(bare_database_url: str) -> None:
    await asyncio.gather(*(migrate.upgrade_schema(bare_database_url) for _ in range(3)))

    assert await migrate.fetch_current_revision(bare_database_url) == migrate.get_head_revision()


async def test_another_schema_is_refused(bare_database_url: str) -> None:
    with pytest.raises(SchemaNotCurrentError, match="vultus db upgrade"):
        migrate.check_revision(await migrate.fetch_current_revision(bare_database_url))
    with pytest.raises(ExtensionMissingError, match="vultus db upgrade"):
        await Database.connect(bare_database_url, DatabaseSettings())

    await migrate.upgrade_schema(bare_database_url)
    connection = await asyncpg.connect(bare_database_url.replace("+asyncpg", ""))
    await connection.execute("UPDATE alembic_version SET version_num = 'newer'")
    await connection.close()

    with pytest.raises(SchemaNotCurrentError, match="newer one migrated it"):
        await Database.connect(bare_database_url, DatabaseSettings())
    with pytest.raises(SchemaNotCurrentError, match="newer one migrated it"):
        await migrate.upgrade_schema(bare_database_url)


async def test_a_role_without_the_privileges_is_told_which(bare_database_url: str, admin: asyncpg.Connection) -> None:
    await admin.execute("CREATE ROLE limited")
    connection = await asyncpg.connect(bare_database_url.replace("+asyncpg", ""))
    url = f"{bare_database_url}&options=-c%20role%3Dlimited"
    try:
        with pytest.raises(SetupError, match="GRANT CREATE ON SCHEMA public"):
            await migrate.upgrade_schema(url)
        await connection.execute("GRANT CREATE ON SCHEMA public TO limited")
        with pytest.raises(ExtensionMissingError, match=r"as a superuser.*CREATE EXTENSION vector"):
            await migrate.upgrade_schema(url)
        await connection.execute("CREATE EXTENSION vector")
        await migrate.upgrade_schema(url)
    finally:
        await connection.execute("DROP OWNED BY limited; DROP ROLE limited")
        await connection.close()


async def test_an_older_schema_is_refused(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "get_head_revision", lambda: "9999")

    with pytest.raises(SchemaNotCurrentError, match="vultus db upgrade"):
        await Database.connect(database_url, DatabaseSettings())


class Answers:
    """A connection that returns a fixed server version and pgvector version."""

    def __init__(self, version: int, pgvector: tuple[str, str | None] | None) -> None:
        self._version = version
        self._pgvector = pgvector

    async def execute(self, statement: Any, _values: Any = None) -> Answers:
        self._is_version_query = "server_version_num" in str(statement)
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


PARTITION = """
    CREATE TABLE faces_{0} (LIKE faces INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE);
    ALTER TABLE faces ATTACH PARTITION faces_{0} FOR VALUES IN ('{0}')
"""


async def test_templates_stay_in_one_place_and_out_of_the_statistics(
    bare_database_url: str, policy: DecisionPolicy
) -> None:
    """In a partition as old as the first schema too: nothing is moved to a TOAST table, nothing sampled."""
    old = uuid4().hex
    await migrate.upgrade_schema(bare_database_url, "0001")
    connection = await asyncpg.connect(bare_database_url.replace("+asyncpg", ""))
    await connection.execute(PARTITION.format(old))
    for column in ("embedding", "source_sha256"):
        await connection.execute(f"ALTER TABLE faces_{old} ALTER {column} SET STATISTICS 0")
    await migrate.upgrade_schema(bare_database_url)
    database = await Database.connect(bare_database_url, DatabaseSettings().model_copy(update={"pool_size": 1}))
    async with database.transaction() as work:
        collection = await work.collections.add_collection("home", "contract", policy)
    await database.close()

    partitions = {f"faces_{old}", get_partition_name(collection.id)}
    toasted = await connection.fetch("SELECT relname FROM pg_class WHERE relname ^@ 'faces' AND reltoastrelid <> 0")
    columns = await connection.fetch(
        "SELECT attrelid::regclass::text, attname, attstorage = 'p', coalesce(attstattarget, -1) = 0 FROM pg_attribute"
        " JOIN pg_class ON pg_class.oid = attrelid AND relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    )
    await connection.close()
    plain = {(table, column) for table, column, stored, _ in columns if stored}
    unsampled = {(table, column) for table, column, _, hidden in columns if hidden}

    assert toasted == []
    assert {
        (table, column) for table, names in everywhere(tables.INLINE_COLUMNS, partitions) for column in names
    } <= plain
    assert {
        (table, column) for table, names in everywhere(tables.UNSAMPLED_COLUMNS, partitions) for column in names
    } == (unsampled)


def everywhere(columns: dict[str, tuple[str, ...]], partitions: set[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield tables and columns, those of `faces` for its partitions too."""
    yield from columns.items()
    for partition in partitions:
        yield partition, columns["faces"]


async def _with_three_faces(url: str, revision: str) -> asyncpg.Connection:
    """Return a connection to a database of a revision with three faces in a collection."""
    await migrate.upgrade_schema(url, revision)
    collection_id = uuid4().hex
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(PARTITION.format(collection_id))
    await connection.execute("ALTER TABLE faces DISABLE TRIGGER ALL")
    await connection.execute(
        f"INSERT INTO faces_{collection_id} (collection_id, id, person_id, consent_id, consent_expires_at, contract_id,"
        " embedding, size_px, sharpness, brightness, yaw_deg, pitch_deg, roll_deg, score, source_sha256)"
        " SELECT $1, gen_random_uuid(), $1, $1, 'infinity', 'contract', '[1,0]', 0, 0, 0, 0, 0, 0, 0, at::text::bytea"
        " FROM generate_series(1, 3) AS at",
        collection_id,
    )
    return connection


async def test_faces_are_numbered_when_the_schema_grows_and_stay_when_it_shrinks(bare_database_url: str) -> None:
    connection = await _with_three_faces(bare_database_url, "0003")

    await migrate.upgrade_schema(bare_database_url, "0004")
    assert [row["number"] for row in await connection.fetch("SELECT number FROM faces ORDER BY number")] == [1, 2, 3]
    assert await connection.fetchval("SELECT count(code) FROM faces") == 0
    await migrate.downgrade_schema(bare_database_url, "0003")

    assert await connection.fetchval("SELECT count(*) FROM faces") == 3
    await connection.close()


async def test_codes_of_another_quantizer_are_deleted_and_nothing_else(bare_database_url: str) -> None:
    """In both directions: a server must not use codes of other hyperplanes."""
    connection = await _with_three_faces(bare_database_url, "0005")
    await connection.execute("ALTER TABLE codings DISABLE TRIGGER ALL")
    for step, revision in ((migrate.upgrade_schema, "0006"), (migrate.downgrade_schema, "0005")):
        await connection.execute("UPDATE faces SET code = 'x'")
        await connection.execute(
            "INSERT INTO codings (collection_id, contract_id, centre, bits)"
            " SELECT collection_id, 'contract', '[0,0]', 1024 FROM faces LIMIT 1"
        )

        await step(bare_database_url, revision)

        assert await connection.fetchval("SELECT count(code) FROM faces") == 0
        assert await connection.fetchval("SELECT count(*) FROM codings") == 0
        assert [row["number"] for row in await connection.fetch("SELECT number FROM faces ORDER BY 1")] == [1, 2, 3]
    await connection.close()


async def test_templates_enrolled_before_leave_tombstones_when_the_schema_grows(bare_database_url: str) -> None:
    """In a partition that exists already, whichever table a statement names; and going back keeps the others."""
    connection = await _with_three_faces(bare_database_url, "0006")
    (partition,) = await connection.fetchrow("SELECT tableoid::regclass::text FROM faces LIMIT 1")

    await migrate.upgrade_schema(bare_database_url, "0007")
    await connection.execute("DELETE FROM faces WHERE number = 2")
    await connection.execute(f"DELETE FROM {partition} WHERE number = 3")
    rows = await connection.fetch("SELECT number, numbers FROM tombstones ORDER BY number")
    await migrate.downgrade_schema(bare_database_url, "0006")
    await connection.execute("DELETE FROM faces WHERE number = 9")

    assert [tuple(row) for row in rows] == [(1, [2]), (2, [3])]
    assert await connection.fetchval("SELECT array_agg(number) FROM faces") == [1]
    await connection.close()
