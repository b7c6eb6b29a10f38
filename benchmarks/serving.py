"""How many photos per second does the API serve, and which share is that of what its networks alone could process?

The real server in a process of its own, with its database; this process is the client. Closed loop: every client sends
its next photo when the last one is answered. The client uses the same cores; its processor time is reported. Then an
open loop at three times the server's capacity, and 20,000 requests that check for memory growth.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import photos
from benchmarks.load import Connection, Response, build_photo_request, call_until, run_open_loop
from benchmarks.record import Measurement, compute_percentiles, format_milliseconds, render_table
from benchmarks.server import Server, run_server
from vultus.models.pipeline import AnalysisRequest
from vultus.models.pipelines import PipelineRegistry
from vultus.models.runtime.choice import is_fork_safe
from vultus.models.weights.store import WeightsStore
from vultus.models.workers.fork_server import ProcessWorkerGroup
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from benchmarks.photos import Sample

SECONDS, ROUNDS = 18.0, 3
"""Per setting, without warm-up, in rounds; the ceiling is measured for half a round before and after each."""

WARM_UP_S = 2.0
CLIENTS = (1, 4, 16, 64)
BUSY_CLIENTS = 16
OVERLOAD_FACTOR = 3.0
SOAK_REQUESTS = 20_000
SETTLING_REQUESTS = 1_000
"""Requests of a soak before memory is first measured."""

SHARE_BAR, SPREAD_BAR, GROWTH_BAR_MIB = 0.85, 2.5, 16.0
EXPECTED_STATUSES = {200, 503}
CPU_CONSUMERS = {"workers": "workers", "api": "API", "postgresql": "PostgreSQL", "client": "client"}
"""Consumers of processor time: the last columns, milliseconds per photo."""

CONSENT = {"consent_purpose": "Benchmark", "consent_recorded_by": "benchmark@example.org", "allow_lookalike": "true"}


class _Round(NamedTuple):
    """Responses to some clients in one round, and the processor time by consumer, seconds."""

    served_ms: list[float]
    per_s: float
    refused: int
    cpu_s: dict[str, float]


def measure(seconds: float = SECONDS) -> list[Measurement]:
    """Return one line per photo and number of clients with its ceiling, then overload and soak."""
    settings, limits = InferenceSettings(), PhotoSettings()
    load = partial(PipelineRegistry.load, settings, limits, WeightsStore())
    # Forks, therefore before anything else.
    networks = ProcessWorkerGroup(
        load,
        memory_budget=limits.memory_budget,
        timeout_s=settings.photo_timeout_s,
        shared=is_fork_safe(settings),
    )
    with run_server() as server:
        return asyncio.run(_measure(server, networks, seconds))


async def _measure(server: Server, networks: ProcessWorkerGroup, seconds: float) -> list[Measurement]:
    async with _start_workers(networks) as space_id:
        about = {"seconds": seconds, "gallery": await _register_persons(server), "workers": InferenceSettings().workers}
        lines: list[Measurement] = []
        for sample in (photos.build_portrait_sample(), photos.build_megapixel_sample()):
            lines += await _measure_served(server, networks, space_id, sample, seconds)
        many = next(line for line in lines if line["clients"] == BUSY_CLIENTS)
        lines.append(await _measure_overload(server, photos.build_portrait_sample(), many["per_s"], seconds))
        lines.append(
            await _measure_soak(
                server, photos.build_lfw_like_sample(), round(SOAK_REQUESTS * min(1.0, seconds / SECONDS))
            )
        )
        return [about | line for line in lines]


@asynccontextmanager
async def _start_workers(networks: ProcessWorkerGroup) -> AsyncIterator[str]:
    spaces = await networks.wait_until_loaded()
    await networks.start_workers(InferenceSettings().workers)
    yield spaces.default.id
    for worker in networks.workers:
        await worker.close()
    await networks.close()


async def _measure_served(
    server: Server, networks: ProcessWorkerGroup, space_id: str, sample: Sample, seconds: float
) -> list[Measurement]:
    request = build_photo_request("/v1/recognize", server.key, sample.content)
    await _ensure_match(server, request)
    about = {"part": "served", "photo": sample.name, "width": sample.width, "height": sample.height}
    about["bytes"] = len(sample.content)
    lines = []
    for clients in CLIENTS:
        print(f"serving: {sample.name}, clients: {clients}", flush=True)
        workers = 1 if clients == 1 else len(networks.workers)
        rounds, ceilings = (
            [],
            [await _measure_ceiling(networks, space_id, sample.content, workers, seconds / ROUNDS / 2)],
        )
        for _ in range(ROUNDS):
            rounds.append(await _measure_clients(server, request, clients, seconds / ROUNDS))
            ceilings.append(await _measure_ceiling(networks, space_id, sample.content, workers, seconds / ROUNDS / 2))
        lines.append(about | {"clients": clients} | _merge_rounds(rounds, ceilings))
    return lines


def _merge_rounds(rounds: list[_Round], ceilings: list[float]) -> Measurement:
    """Return a line; a round's ceiling is the mean of those before and after, because the machine's speed drifts."""
    round_ceilings = [(before + after) / 2 for before, after in pairwise(ceilings)]
    return {
        "per_s": round(_compute_mean([one.per_s for one in rounds]), 2),
        "refused": sum(one.refused for one in rounds),
        **compute_percentiles([ms for one in rounds for ms in one.served_ms]),
        "cpu_ms": {
            who: round(1e3 * sum(one.cpu_s[who] for one in rounds) / sum(len(one.served_ms) for one in rounds), 2)
            for who in rounds[0].cpu_s
        },
        "ceiling_per_s": round(_compute_mean(round_ceilings), 2),
        "shares": [round(one.per_s / ceiling, 3) for one, ceiling in zip(rounds, round_ceilings, strict=True)],
    }


def _compute_mean(values: list[float]) -> float:
    return sum(values) / len(values)


async def _register_persons(server: Server) -> int:
    """Register all persons and return their number."""
    connection = await Connection.open(server.port)
    portraits = photos.list_portraits()
    for at, portrait in enumerate(portraits):
        answer = await connection.send_request(
            build_photo_request("/v1/register", server.key, portrait, name=f"Person {at}", **CONSENT)
        )
        if answer.status != 201:
            raise RuntimeError(f"Person {at} was not registered: {answer.body.decode()}")
    await connection.close()
    return len(portraits)


async def _ensure_match(server: Server, request: bytes) -> None:
    """Raise unless the server recognises the photo, so that only correct responses are counted."""
    connection = await Connection.open(server.port)
    answer = await connection.send_request(request)
    await connection.close()
    verdicts = [face["verdict"] for face in answer.json()["faces"]] if answer.status == 200 else []
    if verdicts != ["match"]:
        raise RuntimeError(f"The photo was not recognised: {answer.body.decode()}")


async def _measure_clients(server: Server, request: bytes, clients: int, seconds: float) -> _Round:
    """Return one round of so many clients."""
    start = time.perf_counter() + WARM_UP_S
    usage = asyncio.create_task(_measure_cpu_usage(server, WARM_UP_S, seconds))
    seen = [
        answer
        for answer in await _run_closed_loop(server, request, clients, start + seconds)
        if answer.completed_at >= start
    ]
    served = [answer.ms for answer in seen if answer.status == 200]
    return _Round(served, len(served) / seconds, len(seen) - len(served), await usage)


async def _run_closed_loop(
    server: Server, request: bytes, clients: int, until: float, max_answers: int | None = None
) -> list[Response]:
    """Return the responses to so many clients until a time, or until there are `max_answers` in total."""
    remaining = iter(range(max_answers)) if max_answers is not None else None
    async with AsyncExitStack() as stack:
        connections = [await Connection.open(server.port) for _ in range(clients)]
        for connection in connections:
            stack.push_async_callback(connection.close)

        def make_caller(connection: Connection) -> Callable[[], Awaitable[Response]]:
            return lambda: connection.send_request(request)

        if remaining is None:
            looped = await asyncio.gather(*(call_until(make_caller(one), until) for one in connections))
        else:
            looped = await asyncio.gather(*(_call_remaining(make_caller(one), remaining) for one in connections))
    answers = [answer for answers in looped for answer in answers]
    if unexpected := {answer.status for answer in answers} - EXPECTED_STATUSES:
        raise RuntimeError(f"Unexpected answers: {unexpected}")
    return answers


async def _call_remaining(call: Callable[[], Awaitable[Response]], remaining: Iterator[int]) -> list[Response]:
    return [await call() for _ in remaining]


async def _measure_cpu_usage(server: Server, wait_s: float, seconds: float) -> dict[str, float]:
    """Return the processor time of this process and the server's in an interval after a wait, seconds."""
    await asyncio.sleep(wait_s)
    before = {"client": time.process_time(), **server.measure_cpu_s()}
    await asyncio.sleep(seconds)
    after = {"client": time.process_time(), **server.measure_cpu_s()}
    return {who: after[who] - spent for who, spent in before.items()}


async def _measure_ceiling(
    networks: ProcessWorkerGroup, space_id: str, photo: bytes, workers: int, seconds: float
) -> float:
    """Return photos per second of the networks alone: one at a time on all cores, or with so many busy processes.

    The processes are those of the server, photo by photo, without HTTP, database and batches.
    """
    networks.in_flight[0] = workers
    start = time.perf_counter() + min(WARM_UP_S, seconds)

    def make_caller(at: int) -> Callable[[], Awaitable[Response]]:
        async def analyze() -> Response:
            await networks.workers[at].analyze_batch(space_id, [AnalysisRequest(photo)])
            return Response(time.perf_counter(), 0, 200, b"")

        return analyze

    looped = await asyncio.gather(*(call_until(make_caller(at), start + seconds) for at in range(workers)))
    return sum(answer.completed_at >= start for answers in looped for answer in answers) / seconds


async def _measure_overload(server: Server, sample: Sample, capacity_per_s: float, seconds: float) -> Measurement:
    """Return the outcome of requests at `OVERLOAD_FACTOR` times the capacity, after a warm-up."""
    print("serving: overload", flush=True)
    start = time.perf_counter() + WARM_UP_S
    request = build_photo_request("/v1/recognize", server.key, sample.content)
    answers = await run_open_loop(server.port, request, OVERLOAD_FACTOR * capacity_per_s, start + seconds)
    seen = [answer for answer in answers if answer.completed_at >= start]
    served = [answer.ms for answer in seen if answer.status == 200]
    refused = [answer for answer in seen if answer.status == 503]
    if len(served) + len(refused) != len(seen):
        raise RuntimeError(f"Unexpected answers: {Counter(answer.status for answer in seen)}")
    return {
        "part": "overload",
        "photo": sample.name,
        "clients": None,
        "offered_per_s": round(OVERLOAD_FACTOR * capacity_per_s, 2),
        "per_s": round(len(served) / (max(answer.completed_at for answer in seen) - start), 2),
        "refused": len(refused),
        "without_retry_after": sum(answer.retry_after_s is None for answer in refused),
        **compute_percentiles(served),
        "refusal": compute_percentiles([answer.ms for answer in refused]),
    }


async def _measure_soak(server: Server, sample: Sample, requests: int) -> Measurement:
    """Return the server's memory before and after many requests."""
    print(f"serving: soak, {requests} requests", flush=True)
    request = build_photo_request("/v1/recognize", server.key, sample.content)
    first = min(SETTLING_REQUESTS, requests // 2)
    await _run_closed_loop(server, request, BUSY_CLIENTS, 0, first)
    before, started = server.measure_memory_mib(), time.perf_counter()
    answers = await _run_closed_loop(server, request, BUSY_CLIENTS, 0, requests - first)
    return {
        "part": "soak",
        "photo": sample.name,
        "clients": BUSY_CLIENTS,
        "requests": requests,
        "settled": first,
        "failed": sum(answer.status != 200 for answer in answers),
        "per_s": round(len(answers) / (time.perf_counter() - started), 2),
        "before_mib": round(before, 1),
        "after_mib": round(server.measure_memory_mib(), 1),
        **compute_percentiles([answer.ms for answer in answers]),
    }


def render(lines: list[Measurement]) -> str:
    """Return the tables and the targets."""
    served = [line for line in lines if line.get("part", "served") == "served"]
    first = lines[0]
    text = (
        f"**`POST /v1/recognize`**, {first['gallery']} persons enrolled, {first['workers']} workers, "
        f"{first['seconds']:g} s a line in {ROUNDS} rounds, the ceiling before and after each.\n\n"
        f"{_render_served_table(served)}\n\n{_render_bars(served)}"
    )
    many = next(line for line in served if line["clients"] == BUSY_CLIENTS)
    for line in lines:
        if line.get("part") == "overload":
            text += f"\n\n{_render_overload(line, many)}"
        if line.get("part") == "soak":
            text += f"\n\n{_render_soak(line)}"
    return text


def _render_served_table(served: list[Measurement]) -> str:
    rows = [
        [
            f"{line['photo']}, {line['width']}×{line['height']}, {line['bytes'] / 1e3:,.0f} kB",
            line["clients"],
            f"{line['per_s']:.1f}",
            f"{line['ceiling_per_s']:.1f}",
            f"{_compute_ceiling_share(line):.0%} ({', '.join(f'{share:.0%}' for share in sorted(line['shares']))})",
            *(format_milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
            line["refused"],
            *(f"{line['cpu_ms'][who]:.1f}" for who in CPU_CONSUMERS),
        ]
        for line in served
    ]
    names = ("photo", "clients", "photos/s", "ceiling", "share", "p50 ms", "p95 ms", "p99 ms", "503")
    return render_table((*names, *CPU_CONSUMERS.values()), rows)


def _compute_ceiling_share(line: Measurement) -> float:
    return float(_compute_mean(line["shares"]))


def _compute_latency_spread(line: Measurement) -> float:
    return float(line["p99_ms"] / line["p50_ms"])


def _format_verdict(reached: bool) -> str:
    return "Reached" if reached else "Not reached"


def _render_bars(served: list[Measurement]) -> str:
    min_share = min(map(_compute_ceiling_share, served))
    spread = max(_compute_latency_spread(line) for line in served if line["clients"] == BUSY_CLIENTS)
    return (
        f"Bars: at least {SHARE_BAR:.0%} of the ceiling. {_format_verdict(min_share >= SHARE_BAR)}, "
        f"least {min_share:.0%}. At {BUSY_CLIENTS} clients a p99 of at most {SPREAD_BAR:g} times the p50. "
        f"{_format_verdict(spread <= SPREAD_BAR)}, {spread:.2f}."
    )


def _render_overload(line: Measurement, many: Measurement) -> str:
    max_p99_ms = SPREAD_BAR * many["p50_ms"]
    held = line["p99_ms"] <= max_p99_ms and not line["without_retry_after"]
    refusal, share = line["refusal"], line["refused"] / (line["n"] + line["refused"])
    return (
        f"**At {OVERLOAD_FACTOR:g} times the load** that {BUSY_CLIENTS} clients are served "
        f"({line['offered_per_s']:.0f} photos a second, open loop): {line['per_s']:.1f} a second served, "
        f"p50 {format_milliseconds(line['p50_ms'])} ms, p99 {format_milliseconds(line['p99_ms'])} ms; "
        f"{share:.0%} refused with 503, after {format_milliseconds(refusal['p50_ms'])} ms (p50) "
        f"and {format_milliseconds(refusal['p99_ms'])} ms (p99), {line['without_retry_after']} "
        f"of them without `Retry-After`.\n\n"
        f"Bar: a p99 of at most {SPREAD_BAR:g} times the p50 of {BUSY_CLIENTS} clients, "
        f"{format_milliseconds(max_p99_ms)} ms. {_format_verdict(held)}."
    )


def _render_soak(line: Measurement) -> str:
    grown = line["after_mib"] - line["before_mib"]
    return (
        f"**{line['requests']:,} requests** of {line['clients']} clients, {line['photo']}: {line['failed']} failed, "
        f"{line['per_s']:.1f} a second; the server's processes held {line['before_mib']:,.0f} MiB after "
        f"{line['settled']:,} requests and {line['after_mib']:,.0f} MiB at the end.\n\nBar: no growth beyond "
        f"{GROWTH_BAR_MIB:g} MiB. {_format_verdict(grown <= GROWTH_BAR_MIB and not line['failed'])}."
    )
