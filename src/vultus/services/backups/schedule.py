"""Backups that the server writes by itself: when one is due, where they lie, and how long they stay."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vultus.db.dumps import hold_backup_lock
from vultus.db.upgrades import delete_old_copies
from vultus.errors import InvalidInputError
from vultus.models.weights.files import compute_file_sha256
from vultus.services.backups.archive import write_backup
from vultus.services.jobs import record_progress
from vultus.utils import metrics

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.db.database import Database
    from vultus.settings import Settings
    from vultus.settings.backup_section import BackupSettings

log = logging.getLogger(__name__)

NAME_FORMAT = "vultus-%Y%m%dT%H%M%SZ.age"
CLOCK_TOLERANCE = timedelta(hours=1)
"""A backup that is dated further in the future was written while a clock was wrong, and says nothing of the newest."""

MAX_DRAFT_AGE = timedelta(days=1)
"""Longer no backup takes: what a crash left of one is deleted then."""


class BackupSchedule:
    """Writes a backup when one is due, and deletes those that are too old, also copies made before migrations.

    Servers that share a folder share its backups. No two servers of a database write at a time.

    Args:
        database: To be backed up.
        settings: Without a folder none is written.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def write_due_backup(self) -> int:
        """Write a backup if one is due, and delete what is too old; return how many were written.

        Raises:
            VultusError: It cannot be written, or old ones cannot be deleted.
        """
        await asyncio.to_thread(_delete_copies, self._settings)
        if (folder := self._settings.backups.dir) is None:
            return 0
        await asyncio.to_thread(_tidy_folder, folder, self._settings.backups)
        if not await self._is_due(folder):
            return 0
        async with hold_backup_lock(self._database.owner_address) as is_alone:
            if not is_alone or not await self._is_due(folder):  # another server has just written it
                return 0
            file = folder / datetime.now(UTC).strftime(NAME_FORMAT)
            recipients = self._settings.backups.recipients
            await write_backup(
                file, self._database.owner_address, self._settings, recipients, lambda _done, _all: record_progress()
            )
        log.info("backup written: %s, SHA-256 %s", file, await asyncio.to_thread(compute_file_sha256, file))
        await self._is_due(folder)
        return 1

    async def _is_due(self, folder: Path) -> bool:
        newest = await asyncio.to_thread(find_newest_backup, folder)
        if newest is not None:
            metrics.LAST_BACKUP.set(newest.timestamp())
        return is_backup_due(newest, datetime.now(UTC), self._settings.backups)


def is_backup_due(newest: datetime | None, now: datetime, settings: BackupSettings) -> bool:
    """Return whether a backup is to be written now, given the time of the newest."""
    if newest is None:
        return True
    if settings.hour is None:
        return now - newest >= timedelta(hours=settings.interval_hours)
    latest = now.replace(hour=settings.hour, minute=0, second=0, microsecond=0)
    return newest < (latest if latest <= now else latest - timedelta(days=1))


def find_newest_backup(folder: Path) -> datetime | None:
    """Return when the newest backup in a folder was begun, of those not dated in the future; None if there is none."""
    latest = datetime.now(UTC) + CLOCK_TOLERANCE
    return max((begun_at for begun_at in _list_backups(folder).values() if begun_at <= latest), default=None)


def list_future_backups(folder: Path) -> list[Path]:
    """Return the backups in a folder that are dated in the future."""
    latest = datetime.now(UTC) + CLOCK_TOLERANCE
    return sorted(path for path, begun_at in _list_backups(folder).items() if begun_at > latest)


def _list_backups(folder: Path) -> dict[Path, datetime]:
    """Return the backups that a server wrote, by the time in their names."""
    found: dict[Path, datetime] = {}
    for path in folder.glob("vultus-*.age"):
        try:
            found[path] = datetime.strptime(path.name, NAME_FORMAT).replace(tzinfo=UTC)
        except ValueError:  # somebody else's
            continue
    return found


def _delete_copies(settings: Settings) -> None:
    try:
        if count := delete_old_copies(settings.data_dir, timedelta(days=settings.backups.keep_days)):
            log.info("copies made before migrations deleted for their age", extra={"count": count})
    except OSError as error:
        raise InvalidInputError(
            f"A copy made before a migration cannot be deleted in {settings.data_dir / 'backups'}: {error.strerror}."
        ) from error


def _tidy_folder(folder: Path, settings: BackupSettings) -> None:
    """Make the folder, and delete what is too old in it."""
    now = datetime.now(UTC)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, begun_at in _list_backups(folder).items():
            if now - begun_at > timedelta(days=settings.keep_days):
                path.unlink(missing_ok=True)
                log.info("backup deleted for its age: %s", path)
        for path in list_future_backups(folder):
            log.warning("backup dated in the future, counts for nothing: %s", path)
        for draft in folder.glob(".vultus-*.unfinished"):
            if now.timestamp() - draft.stat().st_mtime > MAX_DRAFT_AGE.total_seconds():
                draft.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInputError(
            f"The folder of backups, {folder} (VULTUS_BACKUPS__DIR), cannot be used: {error.strerror}. Give it to the "
            "user that runs Vultus."
        ) from error
