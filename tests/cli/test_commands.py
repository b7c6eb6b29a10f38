"""The commands against a real database: tables for people, JSON for machines, exit codes for scripts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.faces import nobody, portrait
from tests.galleries import enrol, make_open, people
from tests.networks import share_networks
from typer.testing import CliRunner, Result

from vultus.cli.app import app
from vultus.db.database import Database
from vultus.db.embedded import tuning

GRANT = ["--purpose", "Tests", "--recorded-by", "tests"]


class Cli:
    """Runs commands on one database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def __call__(self, *arguments: str, code: int = 0) -> Result:
        """Run a command in a thread of its own: it starts its own event loop."""
        result = await asyncio.to_thread(
            CliRunner().invoke, app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200"}
        )
        assert result.exit_code == code, result.output
        return result

    async def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads((await self(*arguments, "--json", code=code)).stdout)

    def photo(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)


@pytest.fixture
def cli(database_url: str, owner_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("VULTUS_DATABASE__URL", database_url)
    monkeypatch.setenv("VULTUS_DATABASE__OWNER_URL", owner_url)
    monkeypatch.setenv("VULTUS_DATA_DIR", str(tmp_path / "data"))
    share_networks(monkeypatch)
    return Cli(tmp_path)


async def test_a_person_is_registered_and_recognised(cli: Cli) -> None:
    ada = cli.photo("ada.jpg", portrait())
    registered = await cli("register", ada, "--name", "Ada", *GRANT)

    drawing = cli.folder / "out.png"
    table = await cli("recognize", cli.photo("party.jpg", portrait(angle=6)), "--draw", str(drawing))

    assert "Registered Ada" in registered.stdout
    assert "match" in table.stdout
    assert "Ada" in table.stdout
    with Image.open(drawing) as drawn_on:
        assert drawn_on.size == (512, 512)


async def test_machines_get_json_even_for_errors(cli: Cli) -> None:
    refused = await cli.json("register", cli.photo("wall.jpg", nobody()), "--name", "Ada", *GRANT, code=2)
    found = await cli.json("recognize", cli.photo("ada.jpg", portrait()))

    assert refused["error"]["code"] == "no_photo_accepted"
    assert found["faces"][0]["verdict"] == "no_match"


async def test_a_command_warns_of_the_built_in_pack_in_one_sentence(cli: Cli) -> None:
    shown = await cli("recognize", cli.photo("ada.jpg", portrait()))

    (warning,) = [line for line in shown.stderr.splitlines() if "pack" in line]
    assert warning.startswith("Warning: the built-in pack serves (VULTUS_MODELS__OFFLINE is set)")
    assert warning.endswith("run: vultus models pull sface && vultus models use sface")


async def test_an_unknown_collection_has_its_own_exit_code(cli: Cli) -> None:
    result = await cli("recognize", cli.photo("ada.jpg", portrait()), "-c", "nowhere", code=3)

    assert "not_found" in result.stderr


async def test_live_keys_of_one_name_are_told_apart(cli: Cli) -> None:
    for days in ("0.001", "1", "1"):
        await cli("keys", "create", "gate", "--role", "recognize", "--expires-in-days", days)
    first, *_ = await cli.json("keys", "list")
    await cli("keys", "create", "gate", "--role", "enrol")
    await cli("keys", "revoke", first["id"])

    assert "3 live keys are called gate: only their ids" in (await cli("keys", "list")).stderr


@pytest.mark.parametrize("days", ["inf", "1e9", "nan", "0"])
async def test_a_key_ends_within_a_century(cli: Cli, days: str) -> None:
    assert (
        "--expires-in-days"
        in (await cli("keys", "create", "gate", "--role", "recognize", "--expires-in-days", days, code=2)).stderr
    )


async def test_keys_are_made_listed_and_revoked(cli: Cli) -> None:
    made = await cli.json("keys", "create", "gate", "--role", "recognize")
    await cli("keys", "revoke", made["id"])

    (listed,) = await cli.json("keys", "list")

    assert made["secret"].startswith("vultus_")
    assert (listed["id"], listed["role"]) == (made["id"], "recognize")
    assert listed["revoked_at"] is not None


async def test_the_schema_is_current(cli: Cli) -> None:
    assert (await cli.json("db", "status"))["current"] is True
    assert "current" in (await cli("db", "upgrade")).stdout


async def test_text_in_brackets_is_printed_unchanged(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "Ada [/x] [red]1[/] :smile:"
    registered = await cli("register", cli.photo("ada.jpg", portrait()), "--name", name, *GRANT)
    recognized = await cli("recognize", cli.photo("party.jpg", portrait(angle=6)))
    monkeypatch.setenv("VULTUS_INFERENCE__DEVICE", "cuda")
    refused = await cli("recognize", cli.photo("party.jpg", portrait()), code=7)
    ill = await cli("doctor", code=1)

    for said in (registered.stdout, recognized.stdout):
        assert name in said
    for said in (refused.stderr, ill.stdout):
        assert "'onnxruntime-gpu[cuda,cudnn]'" in said


async def test_an_old_schema_is_named_and_upgraded(cli: Cli, server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VULTUS_DATABASE__URL", server_url)

    refused = await cli("keys", "list", code=7)
    assert "vultus db upgrade" in refused.stderr


async def test_the_doctor_names_each_problem_and_its_remedy(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = await cli.json("doctor")
    monkeypatch.setenv("VULTUS_DATABASE__URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("VULTUS_INFERENCE__DEVICE", "cuda")
    ill = await cli.json("doctor", code=1)

    assert healthy["healthy"] is True
    assert "ONNX Runtime" in next(one["detail"] for one in healthy["checks"] if one["check"] == "runtime")
    trouble = {finding["check"]: finding["detail"] for finding in ill["checks"] if not finding["ok"]}
    assert trouble.keys() == {"runtime", "networks", "database"}
    assert "onnxruntime-gpu" in trouble["runtime"]


async def test_the_doctor_counts_the_memory_of_a_container(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    monkeypatch.setattr(tuning, "CGROUP_LIMITS", (tmp_path / "memory.max",))

    checks = (await cli.json("doctor", code=1))["checks"]

    assert "1.0 GiB" in next(one["detail"] for one in checks if one["check"] == "memory")


async def test_a_wrong_setting_is_named_in_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VULTUS_PHOTOS__MAX_PHOTOS", "none")

    assert "VULTUS_PHOTOS__MAX_PHOTOS" in (await cli("keys", "list", code=7)).stderr


async def test_a_misspelt_setting_is_not_ignored(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VULTUS_PHOTOS__MAX_PHOTO", "3")

    assert "VULTUS_PHOTOS__MAX_PHOTO" in (await cli("keys", "list", code=7)).stderr


async def test_a_collection_is_calibrated_and_configured(cli: Cli, database: Database) -> None:
    refused = await cli.json("calibrate", "default", code=2)
    await make_open(database)  # whose keys are not those of the command
    await enrol(database, people(40))

    shown = await cli("calibrate", "default", "--target-fpir", "0.1", "--group-by", "site")
    done = await cli.json("calibrate", "default", "--target-fpir", "0.1", "--apply")

    assert "0 faces of 0 persons" in refused["error"]["detail"]
    for words in ("80 of 80 faces", "proposed", "By site", "north", "Nothing was changed"):
        assert words in shown.stdout
    assert (done["applied"], done["policy"]["target_fpir"]) == (True, 0.1)
    async with database.transaction(read_only=True) as work:
        assert (await work.collections.get_collection_by_name("default")).calibrations


async def test_a_graph_is_measured_enabled_and_disabled(cli: Cli, database: Database) -> None:
    sealed = await cli.json("search-by", "default", "hnsw", code=4)
    await make_open(database)
    refused = await cli.json("search-by", "default", "hnsw", code=2)
    await enrol(database, people(120))

    shown = await cli("search-by", "default", "hnsw", "--ef-search", "200")
    off = await cli.json("search-by", "default", "auto")

    assert "is sealed" in sealed["error"]["detail"]
    assert "no two faces" in refused["error"]["detail"]
    for words in ("mates", "0.00 %", "until PostgreSQL's autovacuum", "is searched by hnsw from now on"):
        assert words in shown.stdout
    assert (off["search"], off["graph"]) == ("auto", None)
