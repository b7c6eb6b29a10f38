"""The keys by command: status, rotation, check, prune, and what the doctor says of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.test_commands import GRANT, Cli, cli
from tests.faces import portrait

from vultus.domain.policies import Storage
from vultus.sealing.custody import open_custody
from vultus.services import key_rotation
from vultus.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.db.database import Database
    from vultus.sealing.custody import Custody

__all__ = ["cli"]


@pytest.fixture
async def custody(cli: Cli, database: Database) -> Custody:
    """The keys of an installation with Ada in a sealed collection."""
    await cli("collections", "create", "staff")
    async with database.transaction() as work:
        staff = await work.collections.get_collection_by_name("staff")
        await work.collections.update_collection(staff.id, policy=replace(staff.policy, storage=Storage.SEALED))
    await cli("register", cli.photo("ada.jpg", portrait()), "-c", "staff", "--name", "Ada", *GRANT)
    return open_custody(Settings())


async def ask_doctor(cli: Cli, *, code: int = 0) -> dict[str, str]:
    checks: list[dict[str, Any]] = (await cli.json("doctor", code=code))["checks"]
    return {one["check"]: one["detail"] for one in checks}


async def test_keys_are_rotated_checked_and_pruned(cli: Cli, custody: Custody, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await cli.json("key-ring", "status")
    said = (await cli("key-ring", "rotate", "--persons", "-c", "staff")).stdout
    after = await cli.json("key-ring", "status")
    shown = (await cli("key-ring", "status")).stdout
    found = await cli.json("recognize", cli.photo("again.jpg", portrait(angle=4)), "-c", "staff")

    assert (before["versions"], after["versions"], after["persons"]["by_version"]) == ([1], [2], {"2": 1})
    assert "1 keys of persons are wrapped anew. 1 persons have new keys" in " ".join(said.split())
    assert str(custody.keys.path.parent) in "".join(shown.split())
    assert found["faces"][0]["verdict"] == "match"
    assert await cli.json("key-ring", "check") == {"persons": 1, "lost": [], "secrets": 0, "unreadable": []}

    assert "Every key belongs" in (await cli("key-ring", "prune")).stdout
    monkeypatch.setattr(key_rotation, "UNUSED_AFTER", timedelta(seconds=-1))
    custody.person_keys.create_keys([custody.keys.load().installation_id])
    assert "--yes" in (await cli("key-ring", "prune", code=2)).stderr
    assert "Destroyed 1 keys" in (await cli("key-ring", "prune", "--yes")).stdout

    custody.person_keys.destroy_keys(custody.person_keys.list_keys())
    assert len((await cli.json("key-ring", "check", code=1))["lost"]) == 1


async def test_the_doctor_says_where_a_stolen_disk_has_both_and_what_is_missing(
    cli: Cli, custody: Custody, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "on the file system of the keys that it wraps" in (await ask_doctor(cli))["keys"]
    ring = custody.keys.path.with_name("key-ring.json")
    ring.rename(inside := tmp_path / "data" / "ring.json")
    monkeypatch.setenv("VULTUS_KEY_RING__FILE", str(inside))
    assert "lies in the data directory, so whoever has a copy" in (await ask_doctor(cli))["keys"]
    inside.chmod(0o644)
    assert (await ask_doctor(cli, code=1))["keys"].endswith(f"can be read by others: chmod 600 '{inside}'")
    inside.unlink()
    assert f"{inside}, is missing" in (await ask_doctor(cli, code=1))["keys"]
    custody.keys.path.unlink()
    ill = await ask_doctor(cli, code=1)
    assert f"{custody.keys.path} is missing, and persons' keys are there" in ill["keys"]
    assert f"is sealed, and {custody.keys.path} cannot be found" in ill["database"]
