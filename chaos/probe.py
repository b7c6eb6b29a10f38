"""A caller like any other, in a process of its own: `python -m chaos.probe PORT KEY SECONDS` prints how it was served.

It sends small requests at an even pace, whatever the answers, and asks for readiness now and then. Latencies are
measured from when a request was due.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.load import Connection
from benchmarks.record import ROOT

PER_S = 25.0
HEALTH_EVERY = 10
"""Every so many requests one for readiness is sent."""


@dataclass(frozen=True, slots=True)
class Served:
    """How a caller was served.

    Attributes:
        p50_ms: Median latency.
        p99_ms: 99th percentile.
        statuses: Answers by status, of requests and of readiness; 0 for a connection that broke.
        health: Those of readiness alone.
    """

    p50_ms: float
    p99_ms: float
    statuses: dict[str, int]
    health: dict[str, int]


async def run_probe(port: int, key: str, seconds: float) -> Served:
    """Probe a server from a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chaos.probe", str(port), key, str(seconds), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return Served(**json.loads(printed))


async def _probe(port: int, key: str, seconds: float) -> dict[str, Any]:
    head = f"HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n"
    request, health = f"GET /v1/version {head}".encode(), f"GET /v1/health/ready {head}".encode()
    free: list[Connection] = []
    taken: list[float] = []
    statuses, ready = Counter[int](), Counter[int]()

    async def send(due: float, content: bytes) -> None:
        try:
            connection = free.pop() if free else await Connection.open(port)
            answer = await connection.send_request(content)
            free.append(connection)
            status = answer.status
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        taken.append((time.perf_counter() - due) * 1e3)
        (ready if content is health else statuses)[status] += 1

    started = due = time.perf_counter()
    sent: list[asyncio.Task[None]] = []
    while due < started + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        sent.append(asyncio.create_task(send(due, health if len(sent) % HEALTH_EVERY == 0 else request)))
        due += 1 / PER_S
    await asyncio.gather(*sent)
    p50, p99 = np.percentile(taken, [50, 99])
    return {"p50_ms": p50, "p99_ms": p99, "statuses": statuses + ready, "health": ready}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_probe(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))))
