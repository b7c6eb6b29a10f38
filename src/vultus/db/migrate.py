"""Upgrades, downgrades and checks a database's schema."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.pool import NullPool

from vultus.db.connections import check_connection, create_engine
from vultus.db.failures import translate_errors
from vultus.db.privileges import fetch_role, grant_privileges, is_granted
from vultus.db.requirements import check_pgvector, check_server
from vultus.db.urls import parse_database_url
from vultus.errors import SchemaNotCurrentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vultus.db.urls import DatabaseUrls

MIGRATION_LOCK = 0x76756C74_6D696772  # "vultmigr": one migration at a time, whichever process
SCRIPTS_DIRECTORY = Path(__file__).parent / "migrations"


def get_head_revision() -> str:
    """Return the revision that this version requires."""
    (revision,) = ScriptDirectory.from_config(_build_alembic_config()).get_heads()
    return revision


async def fetch_current_revision(url: str) -> str | None:
    """Return the database's revision; None for an empty database."""
    async with _open_connection(url) as connection:
        return await read_revision(connection)


async def read_revision(connection: AsyncConnection) -> str | None:
    """Return the revision of a connection's database; None for an empty database."""
    return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


async def upgrade_schema(url: str, revision: str = "head", *, serves: str | None = None) -> None:
    """Run the missing revisions, all or none of them, and grant the role that serves what it may do.

    Args:
        url: For the role that owns the tables from now on.
        revision: The last to run.
        serves: Another role, which serves.

    Raises:
        SetupError: The server is too old or not durable.
        ExtensionMissingError: pgvector cannot be created.
        SchemaNotCurrentError: The database was migrated by a newer Vultus.
    """
    async with _open_connection(url) as connection:
        await _lock_schema(connection)
        await check_server(connection)
        await check_pgvector(connection, installed=False)
        check_revision_known(await read_revision(connection))
        await connection.run_sync(partial(_run_alembic_command, command.upgrade, revision))
        await check_pgvector(connection)
        if serves is not None:
            await grant_privileges(connection, serves)


async def ensure_privileges(urls: DatabaseUrls) -> None:
    """Grant the role that serves what it may do unless it was: a restored dump holds no privileges."""
    if urls.owner == urls.serving:
        return
    role = await fetch_role_name(urls.serving)
    async with _open_connection(urls.owner) as connection:
        if not await is_granted(connection, role):
            await grant_privileges(connection, role)


async def fetch_role_name(url: str) -> str:
    """Return the role that a URL connects as."""
    async with _open_connection(url) as connection:
        return await fetch_role(connection)


async def downgrade_schema(url: str, revision: str) -> None:
    """Undo revisions down to the given one; `base` deletes all stored data."""
    async with _open_connection(url) as connection:
        await _lock_schema(connection)
        await connection.run_sync(partial(_run_alembic_command, command.downgrade, revision))


def check_revision(revision: str | None) -> None:
    """Raise if a revision is not the one this version requires.

    Raises:
        SchemaNotCurrentError: It is older or newer.
    """
    check_revision_known(revision)
    needed = get_head_revision()
    if revision != needed:
        state, advice = f"has schema {revision}", "Back it up, then run"
        if revision is None:
            state, advice = "is empty", "Run"
        raise SchemaNotCurrentError(
            f"The database {state}, this version of Vultus needs {needed}. {advice} 'vultus db upgrade'.",
            current=revision,
            needed=needed,
        )


def check_revision_known(revision: str | None) -> None:
    """Raise if this version does not know a revision: a newer one made it.

    Raises:
        SchemaNotCurrentError: It is newer.
    """
    known = {script.revision for script in ScriptDirectory.from_config(_build_alembic_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaNotCurrentError(
            f"The database has schema {revision}, which this version of Vultus does not know: a newer one migrated it. "
            "Install that version, or restore the backup made before 'vultus db upgrade'.",
            current=revision,
            needed=get_head_revision(),
        )


def is_schema_object(item: Any, name: str | None, kind: str, reflected: bool, against: Any) -> bool:
    """Return whether a database object belongs to the schema; the collections' partitions do not."""
    del item, against
    return not (kind == "table" and reflected and name is not None and name.startswith("faces_"))


def _build_alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS_DIRECTORY).replace("%", "%%"))
    return config


def _run_alembic_command(alembic_command: Any, revision: str, connection: Connection) -> None:
    config = _build_alembic_config()
    config.attributes["connection"] = connection
    alembic_command(config, revision)


async def _lock_schema(connection: AsyncConnection) -> None:
    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})


@asynccontextmanager
async def _open_connection(url: str) -> AsyncIterator[AsyncConnection]:
    address = parse_database_url(url)
    await check_connection(address)
    engine = create_engine(address, {}, command_timeout_s=None, poolclass=NullPool)
    try:
        with translate_errors():
            async with engine.begin() as connection:
                yield connection
    finally:
        await engine.dispose()
