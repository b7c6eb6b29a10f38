"""Brings a database's schema up to date, and says whether it is."""

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
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from vultus.db.failures import translated, watch
from vultus.db.requirements import check_pgvector, check_server
from vultus.db.urls import normalise
from vultus.errors import SchemaNotCurrentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

MIGRATION_LOCK = 0x76756C74_6D696772  # "vultmigr": one migration at a time, whichever process
SCRIPTS = Path(__file__).parent / "migrations"


def head() -> str:
    """Return the revision this program was written for."""
    (revision,) = ScriptDirectory.from_config(_config()).get_heads()
    return revision


async def current(url: str) -> str | None:
    """Return the database's revision; None for an empty database."""
    async with _connected(url) as connection:
        return await revision_of(connection)


async def revision_of(connection: AsyncConnection) -> str | None:
    """Return the revision of the database behind a connection."""
    return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


async def upgrade(url: str, revision: str = "head") -> None:
    """Run the missing revisions, all or none of them.

    Raises:
        SetupError: The server is too old or not durable.
        ExtensionMissingError: pgvector cannot be created.
        SchemaNotCurrentError: The database was migrated by a newer Vultus.
    """
    async with _connected(url) as connection:
        await _alone(connection)
        await check_server(connection)
        await check_pgvector(connection, installed=False)
        _known(await revision_of(connection))
        await connection.run_sync(partial(_run, command.upgrade, revision))
        await check_pgvector(connection)


async def downgrade(url: str, revision: str) -> None:
    """Undo revisions down to the given one; `base` removes everything that is stored."""
    async with _connected(url) as connection:
        await _alone(connection)
        await connection.run_sync(partial(_run, command.downgrade, revision))


async def check_current(url: str) -> None:
    """Refuse a schema this program was not written for.

    Raises:
        SchemaNotCurrentError: It is older or newer.
    """
    async with _connected(url) as connection:
        check_revision(await revision_of(connection))


def check_revision(revision: str | None) -> None:
    """Refuse a revision this program was not written for.

    Raises:
        SchemaNotCurrentError: It is older or newer.
    """
    _known(revision)
    if revision != head():
        state = "is empty" if revision is None else f"has schema {revision}"
        raise SchemaNotCurrentError(
            f"The database {state}, this version of Vultus needs {head()}. Back it up, then run 'vultus db upgrade'.",
            current=revision,
            needed=head(),
        )


def compared(item: Any, name: str | None, kind: str, reflected: bool, against: Any) -> bool:
    """Say whether a thing of the database belongs to the schema: the collections' partitions do not."""
    del item, against
    return not (kind == "table" and reflected and name is not None and name.startswith("faces_"))


def _known(revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaNotCurrentError(
            f"The database has schema {revision}, which this version of Vultus does not know: a newer one migrated it. "
            "Install that version, or restore the backup made before 'vultus db upgrade'.",
            current=revision,
            needed=head(),
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config


def _run(act: Any, revision: str, connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    act(config, revision)


async def _alone(connection: AsyncConnection) -> None:
    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[AsyncConnection]:
    # hide_parameters for the same reason as in `database.py`: values must not reach a traceback.
    engine = create_async_engine(normalise(url), poolclass=NullPool, hide_parameters=True)
    watch(engine)
    try:
        with translated():
            async with engine.begin() as connection:
                yield connection
    finally:
        await engine.dispose()
