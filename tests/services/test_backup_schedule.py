"""Backups that the server writes by itself."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vultus.cli.doctor import _check_backups
from vultus.db.database import Database
from vultus.db.dumps import hold_backup_lock
from vultus.db.urls import parse_database_url
from vultus.errors import InvalidInputError
from vultus.services.backups.archive import restore_backup
from vultus.services.backups.schedule import NAME_FORMAT, BackupSchedule, is_backup_due
from vultus.settings import BackupSettings, Settings
from vultus.utils.age_files import make_identity, read_identities

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def settings_for(folder: Path, data_dir: Path, recipient: str) -> Settings:
    return Settings(data_dir=data_dir, backups=BackupSettings(dir=folder, recipients=(recipient,), keep_days=7))


async def test_a_due_backup_is_written_once_can_be_restored_and_replaces_the_oldest(
    database: Database, bare_database_url: str, tmp_path: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is dated in the future, by a clock that was wrong, keeps none from being written."""
    secret, recipient = make_identity()
    (identity := tmp_path / "key").write_text(secret)
    folder, now = tmp_path / "backups", datetime.now(UTC)
    folder.mkdir()
    ages = {days: folder / (now - timedelta(days=days)).strftime(NAME_FORMAT) for days in (8, 6, -400)}
    for old in (*ages.values(), stranger := folder / "vultus-mine.age"):
        old.touch()
    settings = settings_for(folder, data_dir, recipient)
    schedule = BackupSchedule(database, settings)

    async with hold_backup_lock(database.owner_address) as is_alone:
        assert is_alone
        assert await schedule.write_due_backup() == 0
    assert await schedule.write_due_backup() == 1
    assert await schedule.write_due_backup() == 0

    (new,) = set(folder.iterdir()) - {ages[6], ages[-400], stranger}
    described, _ = await restore_backup(
        new, parse_database_url(bare_database_url), data_dir, read_identities(identity), lambda _done, _all: None
    )
    assert described.made_at - now < timedelta(minutes=1)
    assert f"dated in the future, counts for nothing: {ages[-400]}" in caplog.text
    assert f"{ages[-400]} is dated in the future" in _check_backups(settings)


async def test_copies_made_before_migrations_go_with_the_backups(database: Database, data_dir: Path) -> None:
    (folder := data_dir / "backups").mkdir()
    now = datetime.now(UTC).timestamp()
    for days in (8, 6):
        (copy := folder / f"schema-0001-{days}.dump").touch()
        os.utime(copy, (now, now - days * 86_400))

    await BackupSchedule(database, Settings(data_dir=data_dir, backups=BackupSettings(keep_days=7))).write_due_backup()

    assert [path.name for path in folder.iterdir()] == ["schema-0001-6.dump"]


async def test_a_folder_that_cannot_be_used_is_named(database: Database, tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "file").touch()
    schedule = BackupSchedule(database, settings_for(tmp_path / "file" / "x", data_dir, make_identity()[1]))

    with pytest.raises(InvalidInputError, match="VULTUS_BACKUPS__DIR"):
        await schedule.write_due_backup()


@pytest.mark.parametrize(
    ("age_h", "hour", "is_due"),
    [(23.9, None, False), (24, None, True), (8.9, 3, False), (9.1, 3, True), (20.9, 15, False), (21.1, 15, True)],
)
def test_a_backup_is_due_after_its_interval_or_once_its_hour_has_come(
    age_h: float, hour: int | None, is_due: bool
) -> None:
    assert is_backup_due(NOON - timedelta(hours=age_h), NOON, BackupSettings(hour=hour)) is is_due
    assert is_backup_due(None, NOON, BackupSettings(hour=hour))


def test_a_server_does_not_write_backups_that_are_not_encrypted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="backup-identity"):
        BackupSettings(dir=tmp_path)
