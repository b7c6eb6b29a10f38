"""F4: 64 photos that unpack to tens of megapixels arrive at once; how much memory do they take, and who has to wait?

Small files all of them, of every format, sent with a key that may only recognise. Memory is that of the server's
processes and PostgreSQL together, pages that processes share counted once. Every kind is sent twice: memory is
measured the first time, and how others are served the second.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.load import Connection, build_photo_request
from tests.faces import portrait

from chaos.client import Client
from chaos.images import build_bombs
from chaos.outcome import Bar, Outcome, Plan
from chaos.probe import run_probe
from chaos.service import Service, run_service

if TYPE_CHECKING:
    from collections.abc import Sequence

BAR = "peak memory ≤ idle + 1 GB, others' p99 ≤ 2 ×, excess 503 with Retry-After"
MEMORY_BAR_MIB = 1024.0
LATENCY_BAR, RECOVERY_BAR_S = 2.0, 5.0
ALLOWED = {200, 413, 415, 422, 429, 503}
LIMIT_S = 180.0


async def measure(plan: Plan) -> Outcome:
    """Send every kind of bomb, many at once."""
    outcome, count = Outcome(), plan.choose(64, 6)
    bombs = build_bombs()
    kinds = list(bombs)[:1] if plan.short else list(bombs)
    async with run_service() as service, service.open_client() as admin:
        _, key = await admin.create_key(role="recognize")
        async with Client(service.port, key) as client:
            (await client.recognize_photo(portrait())).raise_for_status()
            idle = service.measure_memory_mib()
            quiet = await run_probe(service.port, key, plan.choose(15, 1))
            peaks, slowest = dict[str, float](), dict[str, float]()
            for kind in kinds:
                burst = [build_photo_request("/v1/recognize", key, bombs[kind])] * count
                peaks[kind] = await _measure_memory(service, burst, kind, outcome)
                slowest[kind] = await _measure_others(service, key, burst, kind, plan, outcome)
                outcome.check(
                    (await client.recognize_photo(portrait())).status_code == 200, f"after {kind}: no service"
                )
    outcome.bars.append(Bar("peak memory beyond idle, MiB", max(peaks.values()) - idle, MEMORY_BAR_MIB))
    ratio = max(slowest.values()) / quiet.p99_ms
    outcome.bars.append(Bar("p99 of others, times the quiet one", ratio, LATENCY_BAR, timed=True))
    outcome.notes.append(f"{count} at once of {len(kinds)} kinds; idle {idle:.0f} MiB; quiet p99 {quiet.p99_ms:.0f} ms")
    outcome.notes.append(
        ", ".join(f"{kind}: +{peaks[kind] - idle:.0f} MiB, others' p99 {slowest[kind]:.0f} ms" for kind in kinds)
    )
    return outcome


async def _measure_memory(service: Service, burst: Sequence[bytes], kind: str, outcome: Outcome) -> float:
    """Send requests at once; return the peak memory in MiB.

    Not while others are timed: a process waits while the kernel counts its pages, up to 0.2 s where cores are few.
    """
    done = asyncio.Event()
    peak = asyncio.create_task(service.watch_memory(done))
    await _send_burst(service, burst, kind, outcome)
    done.set()
    return await peak


async def _measure_others(
    service: Service, key: str, burst: Sequence[bytes], kind: str, plan: Plan, outcome: Outcome
) -> float:
    """Send requests at once; return the p99 of others in milliseconds."""
    probe = asyncio.create_task(run_probe(service.port, key, plan.choose(8, 1)))
    await asyncio.sleep(1.0)  # until the other caller has started
    await _send_burst(service, burst, kind, outcome)
    served = await probe
    outcome.check(set(served.statuses) == {"200"}, f"{kind}: others were answered with {served.statuses}")
    return served.p99_ms


async def _send_burst(service: Service, burst: Sequence[bytes], kind: str, outcome: Outcome) -> None:
    answers = await asyncio.gather(*(_send(service, request) for request in burst))
    for status, has_retry_after in answers:
        allowed = status in ALLOWED and (has_retry_after or status not in {429, 503})
        outcome.check(allowed, f"{kind}: status {status}, Retry-After {has_retry_after}")
    outcome.notes.append(f"{kind}: {dict(Counter(status for status, _ in answers))}")


async def _send(service: Service, request: bytes) -> tuple[int, bool]:
    """Return the status and whether there was a Retry-After; over a connection of its own."""
    async with asyncio.timeout(LIMIT_S):
        connection = await Connection.open(service.port)
        answer = await connection.send_request(request)
        await connection.close()
    return answer.status, answer.retry_after_s is not None
