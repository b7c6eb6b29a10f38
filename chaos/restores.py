"""F14: a backup is restored after people were erased; is any of them there before the service is ready?

The control is the same backup where the ledger of erasures was lost: there everybody must be back.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

from chaos.client import Client, draw_vectors, list_candidates
from chaos.outcome import Outcome, Plan
from chaos.service import make_data_directory, run_command, run_service

if TYPE_CHECKING:
    from vultus.domain import FloatArray

BAR = "0 of 100 erased persons and 0 of 20 revoked keys come back with a restored backup; without the ledger all do"
SETTINGS = {"INFERENCE__WORKERS": "1"}
STAYING = 50


async def measure(plan: Plan) -> Outcome:
    """Back up, erase, kill the server, restore beside it with and without the ledger, and look for everybody."""
    outcome = Outcome()
    erased, keys = plan.choose(100, 12), plan.choose(20, 3)
    with make_data_directory() as data:
        async with run_service(SETTINGS, data) as service, service.open_client() as client:
            key = service.key
            _, dimension = await client.fetch_space()
            vectors = draw_vectors(erased + STAYING, dimension, plan.seed)
            persons = {f"person-{at}": vector for at, vector in enumerate(vectors)}
            (await client.enrol_vectors(persons)).raise_for_status()
            ids = {one["external_id"]: one["id"] for one in await client.list_persons()}
            made = [await client.create_key(role="recognize") for _ in range(keys)]
            await asyncio.to_thread(run_command, data, "backup", "--plain", str(data.parent / "backup.tar"))
            gone = plan.make_random().sample(sorted(persons), erased)
            for at, name in enumerate(gone):
                await _end_person(client, ids[name], by_consent=at % 3 == 0)
            for key_id, _ in made:
                (await client.http.delete(f"/v1/keys/{key_id}")).raise_for_status()
            service.kill()
        for has_ledger in (False, True):
            restored = data.parent / ("with" if has_ledger else "without")
            custody = data.parent / f"{restored.name}-custody"
            if has_ledger:
                shutil.copytree(data.parent / "data-custody", custody)
            said = await asyncio.to_thread(run_command, restored, "restore", str(data.parent / "backup.tar"))
            async with run_service(SETTINGS, restored) as service, service.open_client(key) as client:
                back = await _list_returned(client, {name: persons[name] for name in gone}, made)
                staying = len(await client.list_persons()) - sum(name in back for name in gone)
            if has_ledger:
                outcome.tries = erased + keys
                outcome.failures += [f"{one} is back" for one in back]
                outcome.notes.append(f"restored: {' '.join(said.split())}")
            else:
                outcome.require_control(len(back) == erased + keys, f"{len(back)} back without the ledger")
            outcome.require_control(staying == STAYING, f"{staying} of {STAYING} others kept")
    return outcome


async def _end_person(client: Client, person_id: str, *, by_consent: bool) -> None:
    path = f"/v1/collections/default/persons/{person_id}"
    if by_consent:
        (consent,) = await client.list_items(f"{path}/consents")
        path = f"{path}/consents/{consent['id']}"
    (await client.http.delete(path)).raise_for_status()


async def _list_returned(client: Client, gone: dict[str, FloatArray], keys: list[tuple[str, str]]) -> list[str]:
    """Return who is listed or found of those who were erased, and which revoked keys are accepted."""
    listed = {one["external_id"] for one in await client.list_persons()}
    found = [
        name
        for name, vector in gone.items()
        if name in listed or name in list_candidates(await client.search_vector(vector))
    ]
    for key_id, secret in keys:
        answer = await client.http.get("/v1/key", headers={"Authorization": f"Bearer {secret}"})
        if answer.status_code != 401:
            found.append(f"key {key_id}")
    return found
