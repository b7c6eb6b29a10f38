"""Backups of an embedded database: one ZIP file with a dump, the key of retained crops and what they are."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from vultus import __version__
from vultus.errors import AlreadyExistsError, ConflictError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vultus.db.embedded.server import EmbeddedPostgres

FORMAT = 1
DESCRIPTION, DUMP, CROP_KEY = "backup.json", "database.dump", "crops.key"


def write_backup(file: Path, server: EmbeddedPostgres, *, revision: str | None, key_file: Path | None) -> None:
    """Write a backup to a new file of mode 0600.

    Args:
        file: Must not exist.
        server: Started.
        revision: Of the database's schema.
        key_file: Key of retained crops, which may be missing; None leaves it out.

    Raises:
        AlreadyExistsError: The file exists.
        InvalidInputError: It cannot be written.
        EmbeddedDatabaseError: The database cannot be dumped.
    """
    try:
        target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise AlreadyExistsError(f"{file} exists; a backup overwrites nothing.") from None
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be written: {error.strerror}.") from None
    try:
        with os.fdopen(target, "wb") as stream, ZipFile(stream, "w", ZIP_STORED) as archive:
            description = {
                "format": FORMAT,
                "version": __version__,
                "schema": revision,
                "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            archive.writestr(DESCRIPTION, json.dumps(description))
            if key_file is not None and key_file.exists():
                archive.writestr(CROP_KEY, key_file.read_bytes())
            with archive.open(DUMP, "w", force_zip64=True) as dump:
                server.dump(dump)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def read_backup(
    file: Path, server: EmbeddedPostgres, *, key_file: Path, check_revision: Callable[[str | None], None]
) -> dict[str, Any]:
    """Restore a backup into an empty database and return its description.

    Args:
        file: Of `write_backup`.
        server: Started, its database without tables.
        key_file: Where the key of retained crops is written, if the backup has one.
        check_revision: Raises if this version does not know the schema.

    Raises:
        InvalidInputError: The file is no backup, or damaged.
        ConflictError: There is another key of retained crops.
        EmbeddedDatabaseError: It cannot be restored; the database is as it was.
    """
    try:
        with ZipFile(file) as archive:
            description: dict[str, Any] = json.loads(archive.read(DESCRIPTION))
            if description["format"] != FORMAT:
                raise InvalidInputError(f"{file} was written by another version of Vultus ({description['version']}).")
            check_revision(description["schema"])
            key = archive.read(CROP_KEY) if CROP_KEY in archive.namelist() else None
            _check_key(key, key_file)
            with archive.open(DUMP) as dump:
                server.load(dump)
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror or error}.") from None
    except (BadZipFile, KeyError, TypeError, ValueError):
        raise InvalidInputError(f"{file} is no backup of Vultus, or damaged.") from None
    if key is not None and not key_file.exists():
        with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(key)
    return description


def _check_key(key: bytes | None, key_file: Path) -> None:
    with suppress(FileNotFoundError):
        if key is not None and key_file.read_bytes() != key:
            raise ConflictError(
                f"{key_file} holds another key of retained crops than the backup. Move it away if no crop needs it."
            )
