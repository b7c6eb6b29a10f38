"""Brings a schema up to date; the embedded database is copied beside itself first."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vultus.db.dumps import ClientPrograms
from vultus.db.embedded.cluster import SERVICE
from vultus.db.embedded.programs import SERVER_MAJOR_VERSION
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.migrate import (
    check_revision,
    check_revision_known,
    ensure_privileges,
    fetch_current_revision,
    fetch_role_name,
    get_head_revision,
    upgrade_schema,
)
from vultus.db.urls import parse_database_url
from vultus.errors import EmbeddedDatabaseError

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.db.urls import DatabaseUrls

log = logging.getLogger(__name__)

MAX_COPIES = 3
"""Copies kept of the databases before migrations; the oldest is deleted."""


async def upgrade_external(urls: DatabaseUrls) -> None:
    """Migrate a PostgreSQL of the operator's, as its owner."""
    role = await fetch_role_name(urls.serving)
    with urls.name_owner():
        await upgrade_schema(urls.owner, serves=role)


async def create_embedded_schema(urls: DatabaseUrls) -> None:
    """Create the schema of an embedded database that is empty; migrate no other.

    Raises:
        SchemaNotCurrentError: It has another schema.
    """
    if (revision := await fetch_current_revision(urls.owner)) is None:
        await upgrade_schema(urls.owner, serves=SERVICE)
        return
    check_revision(revision)
    await ensure_privileges(urls)


async def upgrade_embedded(urls: DatabaseUrls, data_dir: Path) -> Path | None:
    """Migrate an embedded database that has an older schema, and copy it before; return the copy's file, if any.

    Raises:
        EmbeddedDatabaseError: The copy cannot be written; nothing was migrated.
        SchemaNotCurrentError: A newer version of this program migrated it.
    """
    revision = await fetch_current_revision(urls.owner)
    if revision == get_head_revision():
        await ensure_privileges(urls)
        return None
    check_revision_known(revision)
    file = None if revision is None else await asyncio.to_thread(copy_embedded, data_dir, revision)
    await upgrade_schema(urls.owner, serves=SERVICE)
    if file is not None:
        log.warning(
            "the database was migrated from schema %s to %s; a copy is in %s", revision, get_head_revision(), file
        )
    return file


def copy_embedded(data_dir: Path, revision: str) -> Path:
    """Copy the embedded database into the data directory and return the file, which `pg_restore` reads.

    Args:
        data_dir: Of the database, whose server runs.
        revision: Of its schema.

    Raises:
        EmbeddedDatabaseError: The copy cannot be written.
    """
    folder = data_dir / "backups"
    try:
        return _write_copy(folder, data_dir, revision)
    except OSError as error:
        raise EmbeddedDatabaseError(
            f"The database was not migrated, for the copy before could not be written to {folder}: {error.strerror}. "
            "Free disk space, or give the folder to the user that runs Vultus."
        ) from error


def _write_copy(folder: Path, data_dir: Path, revision: str) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / f"schema-{revision}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.dump"
    unfinished = file.with_suffix(".unfinished")
    try:
        with EmbeddedPostgres(data_dir) as server, unfinished.open("wb") as target:
            unfinished.chmod(0o600)
            address = parse_database_url(server.start().owner)
            ClientPrograms(address, SERVER_MAJOR_VERSION, data_dir).dump(None, target.write)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    for old in sorted(folder.glob("schema-*.dump"), key=lambda one: one.stat().st_mtime)[:-MAX_COPIES]:
        old.unlink()
    return file


def delete_old_copies(data_dir: Path, max_age: timedelta) -> int:
    """Delete copies made before migrations that are too old, for they hold who was erased since; return how many.

    Raises:
        OSError: One cannot be deleted.
    """
    latest = (datetime.now(UTC) - max_age).timestamp()
    old = [path for path in (data_dir / "backups").glob("schema-*.dump") if path.stat().st_mtime < latest]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
