"""What the role that serves may not do, whatever SQL it is made to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest
from tests.conftest import run_as_owner

from vultus.db import migrate
from vultus.db.database import Database
from vultus.db.embedded.cluster import OWNER, SERVICE
from vultus.db.repositories.collections import get_partition_name
from vultus.db.urls import DatabaseUrls
from vultus.errors import SetupError
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vultus.domain import Collection


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "UPDATE audit_links SET number = 1",
        "DELETE FROM audit_links",
        "UPDATE alembic_version SET version_num = '0001'",
        "DELETE FROM ledgers",
        "TRUNCATE faces",
        "ALTER TABLE faces DISABLE TRIGGER ALL",
        "ALTER TABLE faces DROP CONSTRAINT ck_faces_consent_live",
        "DROP TABLE persons",
        "CREATE TABLE mine (a int)",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION vultus_drop_partition(collection uuid) RETURNS void LANGUAGE sql AS 'SELECT'",
        "ALTER FUNCTION vultus_create_partition(uuid) SECURITY INVOKER",
        "SET session_replication_role = replica",
        f"SET ROLE {OWNER}",
        f"GRANT {OWNER} TO {SERVICE}",
        "CREATE ROLE another",
        "CREATE DATABASE another",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "COPY audit TO '/tmp/audit'",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT lo_export(0, '/tmp/nothing')",
        "ALTER SYSTEM SET fsync = off",
    ],
)
async def test_what_the_serving_role_may_not_do(service: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute(statement)


async def test_a_partition_is_served_and_not_owned(service: asyncpg.Connection, collection: Collection) -> None:
    partition = get_partition_name(collection.id)

    assert await service.fetchval(f"SELECT count(*) FROM {partition}") == 0
    for statement in (f"ALTER TABLE {partition} DISABLE TRIGGER ALL", f"DROP TABLE {partition}"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.execute(statement)
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="there is no collection"):
        await service.execute("SELECT vultus_create_partition(gen_random_uuid())")


async def test_audit_entries_go_for_their_age_alone(database: Database, service: asyncpg.Connection) -> None:
    for days in (10, 40):
        await service.execute(
            "INSERT INTO audit (id, at, actor, action)"
            f" VALUES (gen_random_uuid(), now() - interval '{days} days', '{days}', 'tried')"
        )
    with pytest.raises(asyncpg.CheckViolationError, match="kept for 30 days"):
        await service.execute("SELECT vultus_delete_old_audit(now() - interval '29 days')")
    await service.execute("SELECT vultus_delete_old_audit(now() - interval '31 days')")

    assert await service.fetchval("SELECT array_agg(actor) FROM audit") == ["10"]


async def test_a_function_of_the_owner_is_not_led_astray(service: asyncpg.Connection, collection: Collection) -> None:
    """Its search path is its own: a temporary table does not stand in for one of Vultus'."""
    await service.execute("CREATE TEMPORARY TABLE audit (at timestamptz); INSERT INTO audit VALUES ('2020-01-01')")
    await service.execute("SELECT vultus_delete_old_audit(now() - interval '31 days')")

    assert await service.fetchval("SELECT count(*) FROM pg_temp.audit") == 1
    for function in await service.fetch("SELECT proname, proconfig, proacl::text FROM pg_proc WHERE prosecdef"):
        assert function["proconfig"] == ["search_path=public, pg_temp"]
        assert "{=" not in function["proacl"]
        assert ",=" not in function["proacl"]


async def test_a_restored_database_is_served_once_its_privileges_are_granted(
    database_url: str, owner_url: str, database: Database
) -> None:
    await run_as_owner(database, f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {SERVICE}")

    with pytest.raises(SetupError, match="'vultus db upgrade' grants"):
        await Database.connect(database_url, DatabaseSettings())
    await migrate.ensure_privileges(DatabaseUrls(database_url, owner_url))
    connected = await Database.connect(database_url, DatabaseSettings())
    await connected.close()
