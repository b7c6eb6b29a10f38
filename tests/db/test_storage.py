"""A disk that is really full: a small one of its own, which only root can mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from vultus.db import migrate
from vultus.db.database import Database
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.errors import StorageFullError
from vultus.settings import DatabaseSettings


@pytest.fixture
def small_disk(data_dir: Path) -> Iterator[Path]:
    """A file system of 256 MB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=256m,mode=0711", "tmpfs", str(data_dir)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield data_dir
    subprocess.run(["umount", str(data_dir)], check=True)


def fill_disk(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 20)) == 1 << 20:
                pass
        except OSError:
            pass
    return filler


async def store(database: Database) -> None:
    async with database.transaction() as work:
        await work._session.execute(
            text("CREATE TABLE full_disk AS SELECT md5(g::text) FROM generate_series(1, 50000) g")
        )


async def test_a_full_disk_is_told_and_heals_by_itself(small_disk: Path) -> None:
    with EmbeddedPostgres(small_disk / "data") as server:
        url = server.start().owner
        await migrate.upgrade_schema(url)
        database = await Database.connect(url, DatabaseSettings())
        filler = fill_disk(small_disk)

        with pytest.raises(StorageFullError):
            await store(database)
        with pytest.raises(StorageFullError):
            await database.ping()
        async with database.transaction(read_only=True) as work:
            assert await work.keys.list_keys(after=None, limit=1) == ()
        filler.unlink()
        await database.ping()
        await store(database)
        await database.close()
