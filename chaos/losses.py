"""F22: a camera, the process that decodes it and the server are killed by turns; is each loss and return told once?

Each round one of them goes and comes back: the camera breaks off and answers again, the decoding process or the whole
server is killed, or the server while the camera is away, or the key that the source is watched for is revoked meanwhile
and another sets it up. Afterwards the events of the source are read from the first.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import httpx
from tests.faces import nobody
from tests.sources.cameras import Camera

from chaos.outcome import Bar, Outcome, Plan
from chaos.service import run_service

if TYPE_CHECKING:
    import psutil

    from chaos.client import Client
    from chaos.service import Service

BAR = "50 losses and returns: each told once, in order; no process, descriptor or memory left behind"
STATE_TIMEOUT_S = 120.0
DECODER_NAME = "vultus-decoder"
MAX_GROWTH_MIB = 40.0


async def measure(plan: Plan) -> Outcome:
    """Run the rounds and compare the events with what happened."""
    outcome, camera = Outcome(), Camera([nobody()], fps=10)
    # The server dies first, so that one and the same lives through the other rounds and its memory can be compared.
    victims = ["server without camera", "server"] * plan.choose(5, 0) or ["server without camera"]
    steady = (["camera"] * 7 + ["key", "decoder"]) * plan.choose(5, 0) or ["camera", "key", "decoder"]
    camera.start()
    settings = {"SOURCES__ALLOWED": "127.0.0.1", "SOURCES__READ_TIMEOUT_S": "3", "INFERENCE__WORKERS": "1"}
    try:
        async with run_service(settings) as service, service.open_client() as client:
            body = {"name": "door", "address": camera.url("/mjpeg")}
            source = (await client.http.post("/v1/sources", json=body)).raise_for_status().json()["id"]
            await _wait_for_state(client, source, "running")
            expected = sum([await _break_and_restore(one, service, client, camera, source) for one in victims])
            expected += await _break_and_restore(steady[0], service, client, camera, source)
            begun = _measure_decoders(service)
            expected += sum([await _break_and_restore(one, service, client, camera, source) for one in steady[1:]])
            left = _measure_decoders(service)
            events = await _list_events(client, source)
    finally:
        camera.stop()
    for at in range(max(len(events), 2 * expected)):
        wanted = ("source_lost", "source_back")[at % 2] if at < 2 * expected else None
        found = events[at]["type"] if at < len(events) else None
        outcome.check(found == wanted, f"event {at} is {found}, not {wanted}")
    outcome.check(len({one["id"] for one in events}) == len(events), "an event has the id of another")
    outcome.check(left[0] == 1, f"{left[0]} processes decode one source")
    outcome.bars.append(Bar("descriptors more than before the last rounds", left[1] - begun[1], 3))
    outcome.bars.append(Bar("MiB more than before the last rounds", left[2] - begun[2], MAX_GROWTH_MIB, timed=True))
    rounds = len(victims) + len(steady)
    outcome.notes.append(f"{rounds} rounds, {expected} losses and returns, {len(steady)} rounds with one server")
    return outcome


async def _break_and_restore(victim: str, service: Service, client: Client, camera: Camera, source: str) -> int:
    """Break something, restore it, and return how many losses that was for who watches the source."""
    match victim:
        case "camera":
            camera.stop()
            await _wait_for_state(client, source, "lost")
            camera.start()
        case "decoder":
            before = await _fetch_since(client, source)
            for process in _find_decoders(service):
                os.kill(process.pid, signal.SIGKILL)
            async with asyncio.timeout(STATE_TIMEOUT_S):
                while await _fetch_since(client, source) == before:  # noqa: ASYNC110  of another process
                    await asyncio.sleep(0.1)
        case "key":
            await _lose_with_key(client, camera, source)
        case "server":
            await _restart(service)
        case _:
            camera.stop()
            await _wait_for_state(client, source, "lost")
            await _restart(service)
            camera.start()
    await _wait_for_state(client, source, "running")
    return victim != "server"


async def _lose_with_key(client: Client, camera: Camera, source: str) -> None:
    """Lose a source, revoke the key that it is watched for, and set it up for another one."""
    body = {"name": "camera", "role": "admin"}
    key = (await client.http.post("/v1/keys", json=body)).raise_for_status().json()
    headers = {"Authorization": f"Bearer {key['secret']}"}
    path = f"/v1/sources/{source}"
    (await client.http.patch(path, json={"name": "gate"}, headers=headers)).raise_for_status()
    await _wait_for_state(client, source, "running")
    camera.stop()
    await _wait_for_state(client, source, "lost")
    (await client.http.delete(f"/v1/keys/{key['id']}")).raise_for_status()
    await _wait_for_state(client, source, "stopped")
    (await client.http.patch(path, json={"name": "door"})).raise_for_status()
    camera.start()


async def _restart(service: Service) -> None:
    service.kill()
    await service.start()
    await service.wait_until_ready()


async def _wait_for_state(client: Client, source: str, state: str) -> None:
    """Wait until a source is in a state."""
    async with asyncio.timeout(STATE_TIMEOUT_S):
        while (await _fetch_status(client, source)).get("state") != state:  # noqa: ASYNC110  of another process
            await asyncio.sleep(0.1)


async def _fetch_status(client: Client, source: str) -> dict[str, Any]:
    try:
        status: dict[str, Any] = (await client.http.get(f"/v1/sources/{source}")).json().get("status", {})
    except httpx.HTTPError:
        return {}
    return status


async def _fetch_since(client: Client, source: str) -> object:
    return (await _fetch_status(client, source)).get("since")


async def _list_events(client: Client, source: str) -> list[dict[str, Any]]:
    answer = await client.http.get("/v1/events", params={"origin_id": source, "limit": 500})
    return [one for one in answer.raise_for_status().json()["items"] if one["type"].startswith("source_")]


def _find_decoders(service: Service) -> list[psutil.Process]:
    return [one for one in service.list_processes() if one.name() == DECODER_NAME]


def _measure_decoders(service: Service) -> tuple[int, int, float]:
    """Return the number of decoding processes, and of all the server's processes descriptors and memory in MiB."""
    processes = service.list_processes()
    return len(_find_decoders(service)), sum(one.num_fds() for one in processes), service.measure_memory_mib()
