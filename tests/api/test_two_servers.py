"""Two servers, each a process of its own, with one database and one custody folder; a third process rotates keys."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
from tests.faces import STRANGER, drawn, encoded, portrait
from tests.serving import serving

from vultus.sealing.custody import open_custody

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from tests.api.conftest import Api


async def test_what_one_enrols_rotates_or_erases_holds_at_the_other(
    api: Api, database_url: str, owner_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = api.services.settings
    environment = {"DATABASE__URL": database_url, "DATABASE__OWNER_URL": owner_url, "INFERENCE__WORKERS": "1"}
    for name, value in {**environment, "CUSTODY_DIR": str(settings.custody)}.items():
        monkeypatch.setenv(f"VULTUS_{name}", value)
    policy: Any = {"name": "staff", "policy": {"storage": "sealed"}}
    assert (await api.client.post("/v1/collections", json=policy)).status_code == 201
    ada = (await api.register(portrait(), collection="staff", name="Ada"))["person"]["id"]
    keys = open_custody(settings).person_keys

    before = keys.list_keys()

    with serving(tmp_path / "other") as (address, *_):
        async with httpx.AsyncClient(base_url=address, headers=api.client.headers, timeout=60) as client:
            other = replace(api, client=client)

            async def recognize(photo: bytes) -> list[str | None]:
                """Return whom this server and the other one recognise."""
                faces = [(await one.recognize(photo, collection="staff"))["faces"][0] for one in (api, other)]
                return [face["person"] and face["person"]["id"] for face in faces]

            assert await recognize(portrait(angle=5)) == [ada, ada]
            await _rotate_keys()
            assert keys.find_keys(before) == [None]  # as every process sees it
            assert await recognize(portrait(angle=5)) == [ada, ada]
            bob = (await other.register(encoded(drawn(STRANGER)), collection="staff", name="Bob"))["person"]["id"]
            assert await recognize(encoded(drawn(STRANGER))) == [bob, bob]

            present = {str(person): (slot, person) for slot, person in keys.list_keys()}
            path = f"/v1/collections/staff/persons/{ada}"
            assert (await api.client.delete(path)).is_success
            assert await recognize(portrait(angle=5)) == [None, None]
            assert (await client.get(path)).status_code == 404
            assert keys.find_keys([present[ada]]) == [None]
            assert await recognize(encoded(drawn(STRANGER))) == [bob, bob]


async def _rotate_keys() -> None:
    words = (sys.executable, "-m", "vultus", "key-ring", "rotate", "--persons")
    process = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=PIPE)
    said = await process.communicate()
    assert process.returncode == 0, said
