"""How many photos a second does the API serve, and which share of what its networks alone could do is that?

The real server in a process of its own, with its database; this process is the client. Closed loop: every client sends
its next photo when the last one is answered. The client's work comes out of the same cores and is reported. Then an
open loop at three times what the server can do, and 20,000 requests with an eye on memory.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import photos
from benchmarks.load import Answer, Connection, form, loop_until, open_loop
from benchmarks.record import Line, milliseconds, percentiles, table
from benchmarks.server import Server, running
from vultus.models.pipeline import Asked
from vultus.models.pipelines import Pipelines
from vultus.models.runtime.choice import survives_fork
from vultus.models.weights.store import WeightsStore
from vultus.models.workers.fork_server import Processes
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from benchmarks.photos import Sample
    from vultus.models.pipeline import FacePipeline

SECONDS, ROUNDS = 18.0, 3
"""A setting, warm-up not counted, in rounds; the ceiling is measured half a round before and after each of them."""

WARM_UP_S = 2.0
CLIENTS = (1, 4, 16, 64)
MANY = 16
OVERLOAD = 3.0
SOAK = 20_000
SETTLED = 1_000
"""Requests of a soak after which memory is first looked at."""

SHARE_BAR, SPREAD_BAR, GROWTH_BAR_MIB = 0.85, 2.5, 16.0
EXPECTED = {200, 503}
SPENDERS = {"workers": "workers", "api": "API", "postgresql": "PostgreSQL", "client": "client"}
"""Of processor time: the last columns, milliseconds a photo."""

CONSENT = {"consent_purpose": "Benchmark", "consent_recorded_by": "benchmark@example.org", "allow_lookalike": "true"}


class _Round(NamedTuple):
    """What some clients got in one go, and the processor time that everybody spent, seconds."""

    served_ms: list[float]
    per_s: float
    refused: int
    cpu_s: dict[str, float]


def measure(seconds: float = SECONDS) -> list[Line]:
    """Return a line for every photo and number of clients with the ceiling beside it, then overload and soak."""
    settings, limits = InferenceSettings(), PhotoSettings()
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as cache:
        load = partial(Pipelines.load, settings, limits, WeightsStore(Path(cache)))
        # Forks: before anything else.
        networks = Processes(
            load,
            pixel_budget=limits.pixel_budget,
            patience_s=settings.photo_timeout_s,
            shared=survives_fork(settings),
        )
        with running() as server:
            return asyncio.run(_measure(server, networks, seconds))


async def _measure(server: Server, networks: Processes, seconds: float) -> list[Line]:
    async with _started(networks) as pipeline:
        about = {"seconds": seconds, "gallery": await _register(server), "workers": InferenceSettings().workers}
        lines: list[Line] = []
        for sample in (photos.portrait(), photos.megapixel()):
            lines += await _served(server, networks, pipeline, sample, seconds)
        many = next(line for line in lines if line["clients"] == MANY)
        lines.append(await _overloaded(server, photos.portrait(), many["per_s"], seconds))
        lines.append(await _soaked(server, photos.lfw_like(), round(SOAK * min(1.0, seconds / SECONDS))))
        return [about | line for line in lines]


@asynccontextmanager
async def _started(networks: Processes) -> AsyncIterator[FacePipeline]:
    pipelines = await networks.ready()
    await networks.start(InferenceSettings().workers)
    yield pipelines.default
    for worker in networks.workers:
        await worker.close()
    await networks.close()


async def _served(
    server: Server, networks: Processes, pipeline: FacePipeline, sample: Sample, seconds: float
) -> list[Line]:
    request = form("/v1/recognize", server.key, sample.content)
    await _must_match(server, request)
    about = {"part": "served", "photo": sample.name, "width": sample.width, "height": sample.height}
    about["bytes"] = len(sample.content)
    lines = []
    for clients in CLIENTS:
        print(f"serving: {sample.name}, clients: {clients}", flush=True)
        workers = 1 if clients == 1 else len(networks.workers)
        rounds, ceilings = [], [await _ceiling(networks, pipeline, sample.content, workers, seconds / ROUNDS / 2)]
        for _ in range(ROUNDS):
            rounds.append(await _at(server, request, clients, seconds / ROUNDS))
            ceilings.append(await _ceiling(networks, pipeline, sample.content, workers, seconds / ROUNDS / 2))
        lines.append(about | {"clients": clients} | _together(rounds, ceilings))
    return lines


def _together(rounds: list[_Round], ceilings: list[float]) -> Line:
    """Return a line; the ceiling of a round is the mean of those beside it, for the machine's speed drifts."""
    beside = [(before + after) / 2 for before, after in pairwise(ceilings)]
    return {
        "per_s": round(_mean([one.per_s for one in rounds]), 2),
        "refused": sum(one.refused for one in rounds),
        **percentiles([ms for one in rounds for ms in one.served_ms]),
        "cpu_ms": {
            who: round(1e3 * sum(one.cpu_s[who] for one in rounds) / sum(len(one.served_ms) for one in rounds), 2)
            for who in rounds[0].cpu_s
        },
        "ceiling_per_s": round(_mean(beside), 2),
        "shares": [round(one.per_s / ceiling, 3) for one, ceiling in zip(rounds, beside, strict=True)],
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


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


async def _at(server: Server, request: bytes, clients: int, seconds: float) -> _Round:
    """Return what so many clients get."""
    start = time.perf_counter() + WARM_UP_S
    usage = asyncio.create_task(_usage(server, WARM_UP_S, seconds))
    seen = [answer for answer in await _closed_loop(server, request, clients, start + seconds) if answer.at >= start]
    served = [answer.ms for answer in seen if answer.status == 200]
    return _Round(served, len(served) / seconds, len(seen) - len(served), await usage)


async def _closed_loop(
    server: Server, request: bytes, clients: int, until: float, most: int | None = None
) -> list[Answer]:
    """Return the answers that so many clients get until a moment, or until they have `most` together."""
    left = iter(range(most)) if most is not None else None
    async with AsyncExitStack() as stack:
        connections = [await Connection.open(server.port) for _ in range(clients)]
        for connection in connections:
            stack.push_async_callback(connection.close)

        def caller(connection: Connection) -> Callable[[], Awaitable[Answer]]:
            return lambda: connection.ask(request)

        if left is None:
            looped = await asyncio.gather(*(loop_until(caller(one), until) for one in connections))
        else:
            looped = await asyncio.gather(*(_each(caller(one), left) for one in connections))
    answers = [answer for answers in looped for answer in answers]
    if unexpected := {answer.status for answer in answers} - EXPECTED:
        raise RuntimeError(f"Unexpected answers: {unexpected}")
    return answers


async def _each(call: Callable[[], Awaitable[Answer]], left: Iterator[int]) -> list[Answer]:
    return [await call() for _ in left]


async def _usage(server: Server, wait_s: float, seconds: float) -> dict[str, float]:
    """Return the processor time that this process and the server's spend, after a wait, seconds."""
    await asyncio.sleep(wait_s)
    before = {"client": time.process_time(), **server.cpu_s()}
    await asyncio.sleep(seconds)
    after = {"client": time.process_time(), **server.cpu_s()}
    return {who: after[who] - spent for who, spent in before.items()}


async def _ceiling(networks: Processes, pipeline: FacePipeline, photo: bytes, workers: int, seconds: float) -> float:
    """Return photos a second of the networks alone: one at a time on every core, or so many processes always busy.

    The same processes as the server's, photo by photo, without HTTP, database and batches.
    """
    networks.crowd[0] = workers
    start = time.perf_counter() + min(WARM_UP_S, seconds)

    def caller(at: int) -> Callable[[], Awaitable[Answer]]:
        async def analyze() -> Answer:
            await networks.workers[at].describe(pipeline, [Asked(photo)])
            return Answer(time.perf_counter(), 0, 200, b"")

        return analyze

    looped = await asyncio.gather(*(loop_until(caller(at), start + seconds) for at in range(workers)))
    return sum(answer.at >= start for answers in looped for answer in answers) / seconds


async def _overloaded(server: Server, sample: Sample, capacity_per_s: float, seconds: float) -> Line:
    """Return what becomes of requests that come three times as fast as they can be served, after a warm-up."""
    print("serving: overload", flush=True)
    start = time.perf_counter() + WARM_UP_S
    request = form("/v1/recognize", server.key, sample.content)
    answers = await open_loop(server.port, request, OVERLOAD * capacity_per_s, start + seconds)
    seen = [answer for answer in answers if answer.at >= start]
    served = [answer.ms for answer in seen if answer.status == 200]
    refused = [answer for answer in seen if answer.status == 503]
    if len(served) + len(refused) != len(seen):
        raise RuntimeError(f"Unexpected answers: {Counter(answer.status for answer in seen)}")
    return {
        "part": "overload",
        "photo": sample.name,
        "clients": None,
        "offered_per_s": round(OVERLOAD * capacity_per_s, 2),
        "per_s": round(len(served) / (max(answer.at for answer in seen) - start), 2),
        "refused": len(refused),
        "without_retry_after": sum(answer.retry_after_s is None for answer in refused),
        **percentiles(served),
        "refusal": percentiles([answer.ms for answer in refused]),
    }


async def _soaked(server: Server, sample: Sample, requests: int) -> Line:
    """Return the server's memory before and after many requests."""
    print(f"serving: soak, {requests} requests", flush=True)
    request = form("/v1/recognize", server.key, sample.content)
    first = min(SETTLED, requests // 2)
    await _closed_loop(server, request, MANY, 0, first)
    before, started = server.memory_mib(), time.perf_counter()
    answers = await _closed_loop(server, request, MANY, 0, requests - first)
    return {
        "part": "soak",
        "photo": sample.name,
        "clients": MANY,
        "requests": requests,
        "settled": first,
        "failed": sum(answer.status != 200 for answer in answers),
        "per_s": round(len(answers) / (time.perf_counter() - started), 2),
        "before_mib": round(before, 1),
        "after_mib": round(server.memory_mib(), 1),
        **percentiles([answer.ms for answer in answers]),
    }


def render(lines: list[Line]) -> str:
    """Return the tables and the bars."""
    served = [line for line in lines if line.get("part", "served") == "served"]
    first = lines[0]
    text = (
        f"**`POST /v1/recognize`**, {first['gallery']} persons enrolled, {first['workers']} workers, "
        f"{first['seconds']:g} s a line in {ROUNDS} rounds, the ceiling before and after each.\n\n"
        f"{_table(served)}\n\n{_bar(served)}"
    )
    many = next(line for line in served if line["clients"] == MANY)
    for line in lines:
        if line.get("part") == "overload":
            text += f"\n\n{_overload_text(line, many)}"
        if line.get("part") == "soak":
            text += f"\n\n{_soak_text(line)}"
    return text


def _table(served: list[Line]) -> str:
    rows = [
        [
            f"{line['photo']}, {line['width']}×{line['height']}, {line['bytes'] / 1e3:,.0f} kB",
            line["clients"],
            f"{line['per_s']:.1f}",
            f"{line['ceiling_per_s']:.1f}",
            f"{_share(line):.0%} ({', '.join(f'{share:.0%}' for share in sorted(line['shares']))})",
            *(milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
            line["refused"],
            *(f"{line['cpu_ms'][who]:.1f}" for who in SPENDERS),
        ]
        for line in served
    ]
    names = ("photo", "clients", "photos/s", "ceiling", "share", "p50 ms", "p95 ms", "p99 ms", "503")
    return table((*names, *SPENDERS.values()), rows)


def _share(line: Line) -> float:
    return float(_mean(line["shares"]))


def _spread(line: Line) -> float:
    return float(line["p99_ms"] / line["p50_ms"])


def _verdict(reached: bool) -> str:
    return "Reached" if reached else "Not reached"


def _bar(served: list[Line]) -> str:
    least = min(map(_share, served))
    spread = max(_spread(line) for line in served if line["clients"] == MANY)
    return (
        f"Bars: at least {SHARE_BAR:.0%} of the ceiling. {_verdict(least >= SHARE_BAR)}, least {least:.0%}. At {MANY} "
        f"clients a p99 of at most {SPREAD_BAR:g} times the p50. {_verdict(spread <= SPREAD_BAR)}, {spread:.2f}."
    )


def _overload_text(line: Line, many: Line) -> str:
    most = SPREAD_BAR * many["p50_ms"]
    held = line["p99_ms"] <= most and not line["without_retry_after"]
    refusal, share = line["refusal"], line["refused"] / (line["n"] + line["refused"])
    return (
        f"**At {OVERLOAD:g} times the load** that {MANY} clients are served ({line['offered_per_s']:.0f} photos a "
        f"second, open loop): {line['per_s']:.1f} a second served, p50 {milliseconds(line['p50_ms'])} ms, p99 "
        f"{milliseconds(line['p99_ms'])} ms; {share:.0%} refused with 503, after {milliseconds(refusal['p50_ms'])} ms "
        f"(p50) and {milliseconds(refusal['p99_ms'])} ms (p99), {line['without_retry_after']} of them without "
        f"`Retry-After`.\n\nBar: a p99 of at most {SPREAD_BAR:g} times the p50 of {MANY} clients, "
        f"{milliseconds(most)} ms. {_verdict(held)}."
    )


def _soak_text(line: Line) -> str:
    grown = line["after_mib"] - line["before_mib"]
    return (
        f"**{line['requests']:,} requests** of {line['clients']} clients, {line['photo']}: {line['failed']} failed, "
        f"{line['per_s']:.1f} a second; the server's processes held {line['before_mib']:,.0f} MiB after "
        f"{line['settled']:,} requests and {line['after_mib']:,.0f} MiB at the end.\n\nBar: no growth beyond "
        f"{GROWTH_BAR_MIB:g} MiB. {_verdict(grown <= GROWTH_BAR_MIB and not line['failed'])}."
    )
