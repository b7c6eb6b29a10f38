"""Upgrades and backups of an embedded database, as an operator runs them."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZipFile

import asyncpg
import pytest
from tests.networks import share_networks
from typer.testing import CliRunner

from vultus.cli.app import app
from vultus.db import migrate, upgrades
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.errors import EmbeddedDatabaseError

PREVIOUS = f"{int(migrate.get_head_revision()) - 1:04}"


@pytest.fixture(autouse=True)
def _common_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    share_networks(monkeypatch)


def run(data_dir: Path, *arguments: str | Path, code: int = 0) -> str:
    """Run a command in a thread of its own, for it starts its own event loop, and return what it said."""
    environment = {"VULTUS_DATA_DIR": str(data_dir), "COLUMNS": "1000"}
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(CliRunner().invoke, app, [*map(str, arguments)], env=environment).result()
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.stderr
    return done.output


async def test_only_an_upgrade_migrates_and_it_copies_before(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        url = server.start()
        await migrate.upgrade_schema(url, PREVIOUS)

    assert "vultus db upgrade" in run(data_dir, "keys", "list", code=7)
    assert "vultus db upgrade" in run(data_dir, "db", "status", code=1)
    assert not (data_dir / "backups").exists()

    assert f"Upgraded from {PREVIOUS}" in run(data_dir, "db", "upgrade")

    (copy,) = (data_dir / "backups").iterdir()
    assert copy.name.startswith(f"schema-{PREVIOUS}-")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    run(data_dir, "keys", "list")
    (data_dir / "postgres").rename(data_dir / "migrated")
    with EmbeddedPostgres(data_dir) as server, copy.open("rb") as source:
        url = server.start()
        server.load(source)
        assert await migrate.fetch_current_revision(url) == PREVIOUS


async def test_a_newer_schema_is_neither_copied_nor_advised_to_be_upgraded(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        url = server.start()
        await migrate.upgrade_schema(url)
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        await connection.execute("UPDATE alembic_version SET version_num = 'newer'")
        await connection.close()

    for arguments in (("db", "status"), ("db", "upgrade"), ("doctor",)):
        said = run(data_dir, *arguments, code=7 if "upgrade" in arguments else 1)
        assert "Install that version" in said
        assert "then run 'vultus db upgrade'" not in said
    assert not (data_dir / "backups").exists()


def test_nothing_is_migrated_where_no_copy_can_be_written(data_dir: Path) -> None:
    (data_dir / "backups").touch()
    with EmbeddedPostgres(data_dir), pytest.raises(EmbeddedDatabaseError, match=r"not migrated.*backups: "):
        upgrades.copy_embedded(data_dir, PREVIOUS)


def test_few_copies_are_kept(data_dir: Path) -> None:
    folder = data_dir / "backups"
    folder.mkdir()
    for number in range(upgrades.MAX_COPIES):
        old = folder / f"schema-000{number}-20260101T000000Z.dump"
        old.touch()
        os.utime(old, (number, number))
    with EmbeddedPostgres(data_dir):
        new = upgrades.copy_embedded(data_dir, PREVIOUS)

    assert new in set(folder.iterdir())
    assert len(list(folder.iterdir())) == upgrades.MAX_COPIES
    assert not (folder / "schema-0000-20260101T000000Z.dump").exists()


def test_a_backup_is_restored_with_the_key_of_the_crops(data_dir: Path, tmp_path: Path) -> None:
    source, other, file = data_dir / "source", data_dir / "other", tmp_path / "today.zip"
    data_dir.chmod(0o755)
    run(source, "keys", "create", "gate", "--role", "recognize")
    (source / "crops.key").write_bytes(bytes(32))

    run(source, "backup", file)
    assert "exists" in run(source, "backup", file, code=4)
    assert "not empty" in run(source, "restore", file, code=4)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "erase and revoke again" in run(other, "restore", file)

    assert "gate" in run(other, "keys", "list")
    assert (other / "crops.key").read_bytes() == bytes(32)


def test_a_key_that_was_revoked_after_the_backup_is_revoked_again(data_dir: Path, tmp_path: Path) -> None:
    source, other, file = data_dir / "source", data_dir / "other", tmp_path / "today.zip"
    data_dir.chmod(0o755)
    created = json.loads(run(source, "keys", "create", "gate", "--role", "recognize", "--json"))
    run(source, "backup", file)
    run(source, "keys", "revoke", created["id"])
    (data_dir / "source-custody").rename(data_dir / "other-custody")

    assert "1 came back and was ended again" in run(other, "restore", file)
    assert json.loads(run(other, "keys", "list", "--json"))[0]["revoked_at"]


async def test_a_restored_database_holds_no_byte_of_whom_was_erased(data_dir: Path, tmp_path: Path) -> None:
    """What privacy.md advises where bytes must go; the old files show that the search finds them."""
    old, new, file, name = data_dir / "old", data_dir / "new", tmp_path / "backup.zip", b"Canary Quillfeather"
    data_dir.chmod(0o755)
    run(old, "keys", "list")
    with EmbeddedPostgres(old) as server:
        connection = await asyncpg.connect(server.start().replace("+asyncpg", ""))
        await connection.execute("CREATE TABLE people (name text)")
        await connection.execute("INSERT INTO people VALUES ($1), ($2)", name.decode(), "Somebody Else")
        await connection.execute("DELETE FROM people WHERE name = $1", name.decode())
        await connection.close()
    run(old, "backup", file)
    run(new, "restore", file)

    assert find_bytes(old / "postgres", name)
    assert find_bytes(new / "postgres", b"Somebody Else")
    assert find_bytes(new / "postgres", name) == []


def find_bytes(folder: Path, wanted: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and wanted in path.read_bytes()]


@pytest.mark.parametrize("content", ["no archive", "another archive", "a damaged dump"])
def test_what_is_no_backup_is_refused_and_leaves_the_database_empty(
    data_dir: Path, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "backup.zip"
    file.write_bytes(b"no archive")
    if content != "no archive":
        with ZipFile(file, "w") as archive:
            archive.writestr("backup.json" if "dump" in content else "x", f'{{"format": 1, "schema": "{PREVIOUS}"}}')
            archive.writestr("database.dump", b"PGDMP, damaged")

    said = run(data_dir, "restore", file, code=7 if "dump" in content else 2)

    assert ("cannot be restored" if "dump" in content else "no backup") in said
    assert "is empty" in run(data_dir, "db", "status", code=1)
