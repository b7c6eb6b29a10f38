"""`vultus import-vectors`: persons from a file, in batches that can be resumed."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest
from tests.cli.test_commands import GRANT, Cli, cli

from vultus.db.database import Database
from vultus.settings import DatabaseSettings

__all__ = ["cli"]


def save(cli: Cli, count: int = 5, **changes: Any) -> str:
    held = {
        "vectors": np.random.default_rng(0).normal(size=(count, 128)).astype(np.float16),
        "external_ids": np.array([f"E-{at}" for at in range(count)]),
        "names": np.array(["", *["Ada"] * (count - 1)]),
        **changes,
    }
    path = cli.folder / "people.npz"
    np.savez(path, **{name: value for name, value in held.items() if value is not None})
    return str(path)


async def fetch_space_id(cli: Cli) -> str:
    refused = await cli.json("import-vectors", save(cli, contract=np.array("another")), *GRANT, code=2)
    return str(refused["error"]["expected"])


async def persons(database_url: str) -> dict[str | None, str | None]:
    database = await Database.connect(database_url, DatabaseSettings())
    async with database.transaction(read_only=True) as work:
        collection = await work.collections.get_collection_by_name("default")
        found = await work.persons.list_persons(collection.id, after=None, limit=99)
        assert await work.templates.count_templates(collection.id, collection.space_id) == len(found)
    await database.close()
    return {person.external_id: person.name for person in found}


async def test_a_file_is_imported_and_resumed(cli: Cli, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vultus.cli.vectors.MAX_ROWS", 2)
    network = np.array(await fetch_space_id(cli))

    first = await cli.json("import-vectors", save(cli, 3, contract=network), *GRANT)
    refused = await cli.json("import-vectors", save(cli, 7, contract=network), *GRANT, code=4)
    resumed = await cli("import-vectors", save(cli, 8, contract=network), *GRANT, "--resume")
    nameless = await cli.json("import-vectors", save(cli, 9, contract=network, names=None), *GRANT, "--resume")

    assert first == {"registered": 3, "known": 0}
    assert (refused["error"]["code"], refused["error"]["rows"]) == ("already_exists", [0, 1])
    assert "persons were registered" in resumed.stdout
    assert nameless == {"registered": 1, "known": 8}
    expected = {f"E-{at}": "Ada" for at in range(1, 8)}
    assert await persons(database_url) == {"E-0": None, **expected, "E-8": None}


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"contract": None}, "is not an .npz file with the arrays"),
        ({"contract": np.array(["one", "other"])}, "is not an .npz file with the arrays"),
        ({"vectors": np.zeros((0, 128)), "external_ids": np.array([]), "names": None}, "holds no vectors"),
        ({"vectors": np.ones((5, 128), int)}, "(5, 128) int64"),
        ({"external_ids": np.array(["A"])}, "1 and 5"),
        ({"external_ids": np.array(["A", "B", "A ", "C", "D"])}, "row 2, counted from 0, has the external id"),
        ({"external_ids": np.array(["A", "B", "", "C", "D"])}, "external_ids, row 2, counted from 0"),
        ({"names": np.array(["x" * 201] + [""] * 4)}, "names, row 0, counted from 0"),
        ({"external_ids": np.array([{}] * 5)}, "is not an .npz file"),
    ],
)
async def test_a_file_that_cannot_be_used_is_refused_with_the_row(
    cli: Cli, changes: dict[str, Any], detail: str
) -> None:
    refused = await cli("import-vectors", save(cli, **{"contract": np.array("any"), **changes}), *GRANT, code=2)

    assert detail in " ".join(refused.stderr.split())


def zip_texts() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("vectors", "external_ids", "contract"):
            archive.writestr(f"{name}.npy", "no array")
    return stream.getvalue()


@pytest.mark.parametrize("content", [b"no archive", b"", zip_texts()], ids=["text", "empty", "other members"])
async def test_another_file_is_refused(cli: Cli, content: bytes) -> None:
    refused = await cli("import-vectors", cli.photo("people.npz", content), *GRANT, code=2)

    assert "is not an .npz file" in refused.stderr
