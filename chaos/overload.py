"""F8: twice the photos a server can analyse arrive for two minutes; how are those served that it takes?

An open loop: callers send whatever the answers are. The capacity is what sixteen callers in a closed loop were served
just before, and unloaded is one caller alone. The callers share the cores with the server.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.load import Connection, Response, build_photo_request, call_until, run_open_loop
from benchmarks.photos import build_portrait_sample
from benchmarks.record import compute_percentiles

from chaos.outcome import Bar, Outcome, Plan
from chaos.service import Service, run_service

if TYPE_CHECKING:
    from collections.abc import Sequence

BAR = "accepted p99 ≤ 3 × unloaded, all excess 429 or 503 with Retry-After, goodput ≥ 90 %, normal again ≤ 5 s"
FACTOR = 2.0
CLIENTS = 16
LATENCY_BAR, GOODPUT_BAR, RECOVERY_BAR_S = 3.0, 0.9, 5.0
NORMAL_FACTOR = 2.0
"""Times the unloaded median within which a photo counts as served normally."""

NO_LIMITS = {"LIMITS__SEARCHES_PER_HOUR": "100000000"}
REFUSALS = {429, 503}


async def measure(plan: Plan) -> Outcome:
    """Measure alone, at capacity, and at twice the capacity."""
    outcome = Outcome()
    seconds = plan.choose(120, 2)
    async with run_service(NO_LIMITS) as service:
        request = build_photo_request("/v1/recognize", service.key, build_portrait_sample().content)
        await _run_closed_loop(service, request, 1, 1.0)  # warm
        alone = compute_percentiles([one.ms for one in await _run_closed_loop(service, request, 1, plan.choose(20, 1))])
        busy_s = plan.choose(15, 1)
        capacity = len(await _run_closed_loop(service, request, CLIENTS, busy_s)) / busy_s
        started = time.perf_counter()
        answers = await run_open_loop(service.port, request, FACTOR * capacity, started + seconds)
        took = max(one.completed_at for one in answers) - started
        recovered_s = await _wait_until_normal(service, request, NORMAL_FACTOR * alone["p50_ms"])
    _judge(answers, took, capacity, alone, outcome)
    outcome.bars.append(Bar("normal again after s", recovered_s, RECOVERY_BAR_S, timed=True))
    return outcome


def _judge(
    answers: Sequence[Response], took: float, capacity: float, alone: dict[str, float], outcome: Outcome
) -> None:
    served = [one.ms for one in answers if one.status == 200]
    for one in answers:
        refused = one.status in REFUSALS and one.retry_after_s is not None
        outcome.check(one.status == 200 or refused, f"status {one.status}, Retry-After {one.retry_after_s}")
    statuses = dict(Counter(one.status for one in answers))
    outcome.check(served, f"nobody was served: {statuses}")
    loaded = compute_percentiles(served or [float("inf")])
    goodput = len(served) / took / capacity
    ratio = loaded["p99_ms"] / alone["p99_ms"]
    outcome.bars.append(Bar("accepted p99, times the unloaded one", ratio, LATENCY_BAR, timed=True))
    outcome.bars.append(Bar("served, share of the capacity", goodput, GOODPUT_BAR, at_least=True, timed=True))
    outcome.notes.append(
        f"capacity {capacity:.1f} photos/s; statuses {statuses}; p99 {alone['p99_ms']:.0f} ms alone, "
        f"{loaded['p99_ms']:.0f} ms accepted"
    )


async def _run_closed_loop(service: Service, request: bytes, clients: int, seconds: float) -> list[Response]:
    """Return the photos served to callers of whom each waits for its answer."""
    until = time.perf_counter() + seconds

    async def call() -> list[Response]:
        connection = await Connection.open(service.port)
        try:
            return await call_until(lambda: connection.send_request(request), until)
        finally:
            await connection.close()

    looped = await asyncio.gather(*(call() for _ in range(clients)))
    return [answer for answers in looped for answer in answers if answer.status == 200]


async def _wait_until_normal(service: Service, request: bytes, normal_ms: float) -> float:
    """Return how long it takes until a photo is served in normal time, seconds."""
    started = time.perf_counter()
    connection = await Connection.open(service.port)
    try:
        while time.perf_counter() - started < 60:
            answer = await connection.send_request(request)
            if answer.status == 200 and answer.ms <= normal_ms:
                break
            await asyncio.sleep(0.05)
        return time.perf_counter() - started
    finally:
        await connection.close()
