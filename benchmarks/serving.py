"""How many photos a second does the API serve, and which share of what its networks alone could do is that?

The real server in a process of its own, with its database; this process is the client. Closed loop: every client sends
its next photo when the last one is answered. The client's work comes out of the same cores and is reported.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import photos
from benchmarks.load import Answer, Connection, form, loop_until
from benchmarks.record import Line, milliseconds, percentiles, table
from benchmarks.server import Server, running
from vultus.models.pipeline import FacePipeline
from vultus.models.pool import AnalysisPool
from vultus.models.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SECONDS = 15.0
"""A setting, warm-up not counted; the ceiling is measured half as long before and after."""

WARM_UP_S = 2.0
CLIENTS = (1, 4, 16)
EXPECTED = {200, 503}
CONSENT = {"consent_purpose": "Benchmark", "consent_recorded_by": "benchmark@example.org", "allow_lookalike": "true"}


def measure(seconds: float = SECONDS) -> list[Line]:
    """Return a line for every photo and number of clients, the ceiling of the photo beside it."""
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as cache, running() as server:
        pipeline = FacePipeline.load(InferenceSettings(), PhotoSettings(), WeightsStore(Path(cache)))
        return asyncio.run(_measure(server, pipeline, seconds))


async def _measure(server: Server, pipeline: FacePipeline, seconds: float) -> list[Line]:
    gallery = await _register(server)
    lines: list[Line] = []
    for sample in (photos.portrait(), photos.megapixel()):
        request = form("/v1/recognize", server.key, sample.content)
        await _must_match(server, request)
        before = await _ceiling(pipeline, sample.content, seconds / 2)
        measured = []
        for clients in CLIENTS:
            print(f"serving: {sample.name}, clients: {clients}", flush=True)
            measured.append(await _at(server, request, clients, seconds))
        after = await _ceiling(pipeline, sample.content, seconds / 2)
        about = {
            "photo": sample.name,
            "width": sample.width,
            "height": sample.height,
            "bytes": len(sample.content),
            "gallery": gallery,
            "workers": InferenceSettings().workers,
            "ceiling_per_s": round((before + after) / 2, 2),
            "ceilings_per_s": [round(before, 2), round(after, 2)],
            "seconds": seconds,
        }
        lines += [about | line for line in measured]
    return lines


async def _register(server: Server) -> int:
    """Register everybody and return how many they are."""
    connection = await Connection.open(server.port)
    portraits = photos.gallery()
    for at, portrait in enumerate(portraits):
        answer = await connection.ask(form("/v1/register", server.key, portrait, name=f"Person {at}", **CONSENT))
        if answer.status != 201:
            raise RuntimeError(f"Person {at} was not registered: {answer.body.decode()}")
    await connection.close()
    return len(portraits)


async def _must_match(server: Server, request: bytes) -> None:
    """Prove before counting that the answers are right ones."""
    connection = await Connection.open(server.port)
    answer = await connection.ask(request)
    await connection.close()
    verdicts = [face["verdict"] for face in answer.json()["faces"]] if answer.status == 200 else []
    if verdicts != ["match"]:
        raise RuntimeError(f"The photo was not recognised: {answer.body.decode()}")


async def _at(server: Server, request: bytes, clients: int, seconds: float) -> Line:
    """Return the figures of so many clients."""
    async with AsyncExitStack() as stack:
        connections = [await Connection.open(server.port) for _ in range(clients)]
        for connection in connections:
            stack.push_async_callback(connection.close)

        def caller(connection: Connection) -> Callable[[], Awaitable[Answer]]:
            return lambda: connection.ask(request)

        start = time.perf_counter() + WARM_UP_S
        usage = asyncio.create_task(_usage(server, WARM_UP_S, seconds))
        looped = await asyncio.gather(*(loop_until(caller(one), start + seconds) for one in connections))
        client_cores, server_cores = await usage
    seen = [answer for answers in looped for answer in answers if answer.at >= start]
    statuses = Counter(answer.status for answer in seen)
    if statuses.keys() - EXPECTED:
        raise RuntimeError(f"Unexpected answers: {dict(statuses)}")
    served = [answer.ms for answer in seen if answer.status == 200]
    return {
        "clients": clients,
        "per_s": round(len(served) / seconds, 2),
        "refused": statuses[503],
        **percentiles(served),
        "client_cores": round(client_cores, 3),
        "server_cores": round(server_cores, 3),
    }


async def _usage(server: Server, wait_s: float, seconds: float) -> tuple[float, float]:
    """Return how many cores this process and the server keep busy, after a wait."""
    await asyncio.sleep(wait_s)
    wall, own, served = time.perf_counter(), time.process_time(), server.cpu_s()
    await asyncio.sleep(seconds)
    passed = time.perf_counter() - wall
    return (time.process_time() - own) / passed, (server.cpu_s() - served) / passed


async def _ceiling(pipeline: FacePipeline, photo: bytes, seconds: float) -> float:
    """Return photos a second of the pool in this process, always full, without HTTP, database and client."""
    settings = InferenceSettings()
    async with AnalysisPool(settings) as pool:

        async def analyze() -> Answer:
            began = time.perf_counter()
            await pool.analyze(photo, pipeline)
            now = time.perf_counter()
            return Answer(now, (now - began) * 1e3, 200, b"")

        start = time.perf_counter() + min(WARM_UP_S, seconds)
        looped = await asyncio.gather(*(loop_until(analyze, start + seconds) for _ in range(2 * settings.workers)))
    return sum(answer.at >= start for answers in looped for answer in answers) / seconds


def render(lines: list[Line]) -> str:
    """Return the table."""
    rows = [
        [
            f"{line['photo']}, {line['width']}×{line['height']}, {line['bytes'] / 1e3:,.0f} kB",
            line["clients"],
            f"{line['per_s']:.1f}",
            f"{line['ceiling_per_s']:.1f}",
            f"{line['per_s'] / line['ceiling_per_s']:.0%}",
            *(milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
            line["refused"],
            f"{line['client_cores']:.2f}",
            f"{line['server_cores']:.2f}",
        ]
        for line in lines
    ]
    columns = (
        "photo",
        "clients",
        "photos/s",
        "ceiling",
        "share",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "503",
        "client's cores",
        "server's cores",
    )
    first = lines[0]
    return (
        f"**`POST /v1/recognize`**, {first['gallery']} persons enrolled, {first['workers']} analysis threads, "
        f"{first['seconds']:g} s a line.\n\n{table(columns, rows)}"
    )
