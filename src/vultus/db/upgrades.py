"""Brings a schema up to date; the embedded database is copied beside itself first."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vultus.db.dumps import ClientPrograms
from vultus.db.embedded.programs import SERVER_MAJOR_VERSION
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.migrate import check_revision_known, fetch_current_revision, get_head_revision, upgrade_schema
from vultus.db.urls import parse_database_url
from vultus.errors import EmbeddedDatabaseError

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_COPIES = 3
"""Copies kept of the databases before migrations; the oldest is deleted."""


async def create_embedded_schema(url: str) -> None:
    """Create the schema of an embedded database that is empty; leave any other as it is."""
    if await fetch_current_revision(url) is None:
        await upgrade_schema(url)


async def upgrade_embedded(url: str, data_dir: Path) -> Path | None:
    """Migrate an embedded database that has an older schema, and copy it before; return the copy's file, if any.

    Raises:
        EmbeddedDatabaseError: The copy cannot be written; nothing was migrated.
        SchemaNotCurrentError: A newer version of this program migrated it.
    """
    revision = await fetch_current_revision(url)
    if revision == get_head_revision():
        return None
    check_revision_known(revision)
    file = None if revision is None else await asyncio.to_thread(copy_embedded, data_dir, revision)
    await upgrade_schema(url)
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
            address = parse_database_url(server.start())
            ClientPrograms(address, SERVER_MAJOR_VERSION, data_dir).dump(None, target.write)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    for old in sorted(folder.glob("schema-*.dump"), key=lambda one: one.stat().st_mtime)[:-MAX_COPIES]:
        old.unlink()
    return file
