"""F12: a person is erased at one of several servers on one database; does any of them find the person afterwards?

The servers search by candidate index and never look for what others erased (their interval is an hour), and nothing
notifies them: afterwards every index still holds everybody, which is looked at too. So only what a search itself does
can hide the person.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import httpx

from chaos.client import Client, draw_vectors, list_candidates
from chaos.outcome import Outcome, Plan
from chaos.service import make_data_directory, run_service

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.domain import FloatArray

BAR = "0 found, with two servers and with four, while nothing tells them"
GALLERY = 1_500
SETTINGS = {"INFERENCE__WORKERS": "1", "INDEX__EXACT_LIMIT": "1000", "INDEX__INTERVAL_S": "3600"}
"""A gallery of 1,500 is searched by index, which is loaded at the start and not brought up to date for an hour."""

SEARCHES_AT_ONCE = 3
INDEX_LIMIT_S = 60.0


async def measure(plan: Plan) -> Outcome:
    """Erase at one of two servers, then of four, and search at all of them at once."""
    outcome = Outcome()
    for servers in (2,) if plan.short else (2, 4):
        with make_data_directory() as data:
            await _measure_servers(data, servers, plan, outcome)
    return outcome


async def _measure_servers(data: Path, servers: int, plan: Plan, outcome: Outcome) -> None:
    async with run_service(SETTINGS, data) as first, first.open_client() as client:
        key = first.key
        _, dimension = await client.fetch_space()
        vectors = draw_vectors(GALLERY, dimension, plan.seed + servers)
        persons = {f"person-{at}": vector for at, vector in enumerate(vectors)}
        (await client.enrol_vectors(persons)).raise_for_status()
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(servers):
            service = await stack.enter_async_context(run_service(SETTINGS, data))
            clients.append(await stack.enter_async_context(service.open_client(key)))
        await asyncio.gather(*map(_wait_for_index, clients))
        ids = {person["external_id"]: person["id"] for person in await clients[0].list_persons()}
        chosen = plan.make_random().sample(sorted(persons), plan.choose(100, 10))
        seen = [name for name in chosen if await _find_servers(clients, persons[name], name) == set(range(servers))]
        outcome.require_control(len(seen) == len(chosen), f"{len(seen)} persons found at all {servers} servers before")
        for at, name in enumerate(chosen):
            await _erase(clients[at % servers], ids[name], withdraw=at % 3 == 0)
            found = await _find_servers(clients, persons[name], name)
            outcome.check(not found, f"{name} erased at server {at % servers} of {servers}, found at {sorted(found)}")
        held = [await _count_indexed(client) for client in clients]
        outcome.require_control(
            held == [GALLERY] * servers,
            f"{GALLERY:,} faces in the index of each of {servers} servers afterwards",
        )
        await _check_other_ends(clients, outcome)
        outcome.notes.append(
            f"{servers} servers: {len(chosen)} erased, {SEARCHES_AT_ONCE * servers} searches after each"
        )


async def _wait_for_index(client: Client) -> None:
    async with asyncio.timeout(INDEX_LIMIT_S):
        while True:
            if await _count_indexed(client) >= GALLERY:
                return
            await asyncio.sleep(0.1)


async def _count_indexed(client: Client) -> float:
    """Return how many faces a server's candidate index holds, erased ones too."""
    text = (await client.http.get("/metrics")).text
    held = [line for line in text.splitlines() if line.startswith("vultus_index_faces ")]
    return float(held[0].split()[1]) if held else 0.0


async def _find_servers(clients: list[Client], vector: FloatArray, name: str) -> set[int]:
    """Return which servers find a person by their own vector, all of them asked at once."""
    order = [at for at in range(len(clients)) for _ in range(SEARCHES_AT_ONCE)]
    answers = await asyncio.gather(*(clients[at].search_vector(vector) for at in order))
    return {at for at, answer in zip(order, answers, strict=True) if name in list_candidates(answer)}


async def _erase(client: Client, person_id: str, *, withdraw: bool) -> None:
    """Erase a person, or withdraw their only consent, which erases them too."""
    path = f"/v1/collections/default/persons/{person_id}"
    if withdraw:
        (consent,) = (await client.http.get(f"{path}/consents")).raise_for_status().json()["items"]
        path += f"/consents/{consent['id']}"
    (await client.http.delete(path)).raise_for_status()


async def _check_other_ends(clients: list[Client], outcome: Outcome) -> None:
    """Revoke a key and drop a collection at one server, and ask the others at once."""
    first, *others = clients
    key_id, secret = await first.create_key(role="recognize")
    (await first.http.post("/v1/collections", json={"name": "dropped"})).raise_for_status()
    for client in others:  # they know both
        async with Client(client.http.base_url.port or 0, secret) as caller:
            (await caller.http.get("/v1/collections/dropped")).raise_for_status()
    (await first.http.delete("/v1/collections/dropped")).raise_for_status()
    statuses = [(await client.http.get("/v1/collections/dropped")).status_code for client in others]
    outcome.check(set(statuses) == {404}, f"a dropped collection is answered with {statuses}")
    (await first.http.delete(f"/v1/keys/{key_id}")).raise_for_status()
    for client in others:
        async with Client(client.http.base_url.port or 0, secret) as caller:
            status = (await caller.http.get("/v1/version")).status_code
        outcome.check(status == httpx.codes.UNAUTHORIZED, f"a revoked key is answered with {status}")
