"""Does a gallery change its network under load without an error, a wrong answer or a pause?

`python -m benchmarks.transition --faces 5000 --pack yunet+mobilefacenet`: people of a folder a person
(VULTUS_BENCH_PHOTOS) are enrolled with retained crops, then the background job carries them over while photos that
were not enrolled are recognised, so many a second whatever the answers take; then switch, way back, switch again, end.

The whole service runs in this process behind its HTTP port, with a database of its own. An answer is wrong if it
differs from what the contract that gave it says of the same photo in the same gallery at rest. Without --pack the other
network is the default pack's with another alignment, a vector space of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from tests.packs import zoomed

from benchmarks import photos, record
from benchmarks.load import Answer, Connection, form
from benchmarks.record import Line, milliseconds, percentiles, table
from vultus.api.app import create_app
from vultus.domain import Actor, Role
from vultus.errors import NoPhotoAcceptedError
from vultus.main import beside, carry_now_and_then, listen, open_database, open_store
from vultus.models.pipelines import Pipelines
from vultus.models.workers.pool import AnalysisPool
from vultus.services.enrolment.registration import RegistrationRequest
from vultus.services.people.consents import ConsentGrant
from vultus.services.photo_analysis import Photo
from vultus.services.wiring import Services, build
from vultus.settings import InferenceSettings, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SECONDS = 20.0
"""Under load before the beginning, after every switch and after the end."""

RATE_PER_S = 5.0
FACES = 5000
PROBES = 200
WHO = Actor("benchmark")
HOME = "default"
SIMILARITY_SLACK = 2e-3
SWITCH_BAR_MS = 1000.0
KEEP_ALIVE_S = 3600  # a connection that waits for its turn is not hung up on

Probe = tuple[str, bytes]  # whose photo, a JPEG
Said = tuple[str, str | None, float | None]  # verdict, closest person, similarity


@dataclass
class Load:
    """What was asked and answered in a phase."""

    phase: str
    seen: list[tuple[str, Answer | Exception]] = field(default_factory=list)


def measure(faces: int, pack: str | None, seconds: float) -> list[Line]:
    """Return a line for every phase, then one about the whole way."""
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as folder:
        Path(folder).chmod(0o711)  # PostgreSQL's user passes through it
        inference = InferenceSettings(extra_packs=(pack,) if pack else ())
        settings = Settings(data_dir=Path(folder) / "data", inference=inference)
        return asyncio.run(_measure(settings, faces, pack, seconds))


async def _measure(settings: Settings, faces: int, pack: str | None, seconds: float) -> list[Line]:
    people = _people()
    async with _service(settings, pack) as (services, port, key):
        other = pack or "zoomed"
        default = services.collections.default_policy()
        await services.collections.change(HOME, actor=WHO, policy=replace(default, keep_crops=True))
        began = time.perf_counter()
        enrolled = await _enrol(services, people, faces)
        enrol_s = time.perf_counter() - began
        probes = [(name, path.read_bytes()) for name, path in _unenrolled(people, enrolled)]
        connections = [await Connection.open(port) for _ in range(32)]
        run = _Run(services, connections, key, probes)
        try:
            whole = await run.way(other, seconds)
        finally:
            for connection in connections:
                await connection.close()
    about = {"faces": len(enrolled), "pack": other, "rate_per_s": RATE_PER_S, "seconds": seconds}
    return [about | line for line in (*run.lines(), whole | {"enrol_s": round(enrol_s, 1)})]


@asynccontextmanager
async def _service(settings: Settings, pack: str | None) -> AsyncIterator[tuple[Services, int, str]]:
    pipelines = await asyncio.to_thread(Pipelines.load, settings.inference, settings.photos, open_store(settings))
    if pack is None:
        pipelines = Pipelines(pipelines.default, zoomed(pipelines.default))
    async with open_database(settings) as database, AnalysisPool(settings.inference) as pool:
        services = build(settings, database, pool, pipelines)
        await services.collections.ensure_default()
        _, key = await services.access.create("benchmark", Role.ADMIN, actor=WHO)
        with listen("127.0.0.1", 0) as listener:
            app = create_app(services, max_requests=settings.server.max_requests)
            config = uvicorn.Config(
                app, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=KEEP_ALIVE_S
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            async with beside(carry_now_and_then(services.carrier, 0.5)), beside(services.shadow.forever()):
                yield services, listener.getsockname()[1], key
            server.should_exit = True
            await serving


def _people() -> dict[str, list[Path]]:
    folder = os.environ.get(photos.FOLDER_VARIABLE)
    if not folder:
        raise SystemExit(f"{photos.FOLDER_VARIABLE} must name a folder with one folder of photos a person.")
    found = {entry.name: sorted(entry.glob("*.jpg")) for entry in sorted(Path(folder).iterdir()) if entry.is_dir()}
    # People with a photo to spare first, so that a small gallery can be asked about too.
    return dict(sorted(((name, paths) for name, paths in found.items() if paths), key=lambda one: len(one[1]) < 2))


async def _enrol(services: Services, people: dict[str, list[Path]], faces: int) -> dict[str, Path]:
    """Enrol one photo a person, then further ones but the last, until there are so many; return a photo a person."""
    first = [(name, paths[0]) for name, paths in people.items()]
    more = [(name, path) for name, paths in people.items() for path in paths[1:-1]]
    waiting = iter(first + more)
    enrolled: dict[str, Path] = {}
    count = itertools.count(1)
    done = 0

    async def worker() -> None:
        nonlocal done
        for name, path in waiting:
            if done >= faces:
                return
            request = RegistrationRequest(
                collection=HOME,
                photos=(Photo(path.read_bytes()),),
                external_id=name,
                name=name,
                consent=ConsentGrant("Benchmark", "benchmark"),
                largest_face=True,
                allow_lookalike=True,
            )
            try:
                await services.registrar.register(request, actor=WHO)
            except NoPhotoAcceptedError:
                continue
            enrolled[name if name not in enrolled else f"{name} {next(count)}"] = path
            done += 1
            if done % 500 == 0:
                print(f"transition: {done} faces enrolled", flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(services.settings.inference.workers + 1):
            group.create_task(worker())
    return enrolled


def _unenrolled(people: dict[str, list[Path]], enrolled: dict[str, Path]) -> list[tuple[str, Path]]:
    """Return the last photo of persons who were enrolled by another one."""
    found = [(name, paths[-1]) for name, paths in people.items() if name in enrolled and enrolled[name] != paths[-1]]
    return found[:: max(1, len(found) // PROBES)][:PROBES]


class _Run:
    """The way there and back, under load from the first phase to the last."""

    def __init__(self, services: Services, connections: list[Connection], key: str, probes: list[Probe]) -> None:
        self._services = services
        self._free = connections
        self._requests = {name: form("/v1/recognize", key, photo) for name, photo in probes}
        self._rest: dict[str, dict[str, Said]] = {}
        self._loads: list[Load] = []
        self._took: dict[str, float] = {}

    async def way(self, pack: str, seconds: float) -> Line:
        """Go it and say how long the steps took."""
        moves = self._services.transitions
        await self._at_rest()
        await self._under("before", self._sleep(seconds))
        await self._step("begin", lambda: moves.set_out(HOME, pack=pack, shadow_share=0.0, actor=WHO))
        began = time.perf_counter()
        await self._under("carrying", self._carried())
        carry_s = time.perf_counter() - began
        state = await moves.state(HOME)

        def switch() -> Awaitable[Any]:
            return moves.switch(HOME, leave_behind=True, actor=WHO)

        await self._under("switch, after it", self._then("switch", switch, seconds))
        await self._at_rest()
        await self._under("way back, after it", self._then("way back", switch, seconds))
        await self._under("switch again, after it", self._then("switch again", switch, seconds))
        end = self._then("finish", lambda: moves.finish(HOME, leave_behind=True, actor=WHO), seconds)
        await self._under("end, after it", end)
        return {
            "measure": "whole",
            "carried": state.second.faces,
            "failed": state.second.failed,
            "persons_left_behind": state.second.persons_missing,
            "carry_s": round(carry_s, 1),
            "carried_per_s": round(state.second.faces / carry_s, 1),
            "took_ms": {name: round(ms, 1) for name, ms in self._took.items()},
        }

    def lines(self) -> list[Line]:
        """Return a line a phase."""
        lines = []
        for load in self._loads:
            good = [(name, one) for name, one in load.seen if isinstance(one, Answer) and one.status == 200]
            lines.append(
                {
                    "measure": "phase",
                    "phase": load.phase,
                    "asked": len(load.seen),
                    "errors": len(load.seen) - len(good),
                    "kinds": sorted({_error(one) for _, one in load.seen} - {""}),
                    "wrong": sum(self._wrong(name, one) for name, one in good),
                    "right_person": sum(_said(one)[:2] == ("match", name) for name, one in good),
                    **percentiles([one.ms for _, one in good]),
                }
            )
        return lines

    async def _at_rest(self) -> None:
        """Keep what the contract that is searched says of every probe."""
        for name, request in self._requests.items():
            answer = await self._ask(request)
            self._rest.setdefault(answer.json()["contract_id"], {})[name] = _said(answer)

    def _wrong(self, name: str, answer: Answer) -> bool:
        verdict, person, similarity = _said(answer)
        at_rest = self._rest.get(answer.json()["contract_id"], {}).get(name)
        if at_rest is None or (verdict, person) != at_rest[:2]:
            return True
        return similarity is not None and abs(similarity - (at_rest[2] or 0)) > SIMILARITY_SLACK

    async def _under(self, phase: str, work: Awaitable[None]) -> None:
        """Do something while photos are recognised."""
        print(f"transition: {phase}", flush=True)
        load = Load(phase)
        self._loads.append(load)
        stop = asyncio.Event()
        asking = asyncio.create_task(self._keep_asking(load, stop))
        try:
            await work
        finally:
            stop.set()
            await asking

    async def _keep_asking(self, load: Load, stop: asyncio.Event) -> None:
        async def one(name: str, request: bytes) -> None:
            try:
                load.seen.append((name, await self._ask(request)))
            except Exception as error:  # noqa: BLE001  every failure counts
                load.seen.append((name, error))

        async with asyncio.TaskGroup() as group:
            start = time.perf_counter()
            for at, (name, request) in enumerate(itertools.cycle(self._requests.items())):
                await asyncio.sleep(max(0.0, start + at / RATE_PER_S - time.perf_counter()))
                if stop.is_set():
                    return
                group.create_task(one(name, request))

    async def _ask(self, request: bytes) -> Answer:
        connection = self._free.pop()
        answer = await connection.ask(request)
        self._free.append(connection)
        return answer

    async def _step(self, name: str, act: Callable[[], Awaitable[Any]]) -> None:
        began = time.perf_counter()
        await act()
        self._took[name] = (time.perf_counter() - began) * 1e3

    async def _then(self, name: str, act: Callable[[], Awaitable[Any]], seconds: float) -> None:
        await self._step(name, act)
        await asyncio.sleep(seconds)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _carried(self) -> None:
        state = await self._services.transitions.state(HOME)
        while state.second.pending:
            await asyncio.sleep(1)
            state = await self._services.transitions.state(HOME)
        print(f"transition: {state.second.faces} faces carried", flush=True)


def _error(seen: Answer | Exception) -> str:
    """Name what went wrong; empty when nothing did."""
    if isinstance(seen, Answer):
        return "" if seen.status == 200 else str(seen.json()["code"])
    return type(seen).__name__


def _said(answer: Answer) -> Said:
    """Return what was said of the largest face."""
    faces = answer.json()["faces"]
    if not faces:
        return "no_face", None, None
    face = max(faces, key=lambda one: one["quality"]["size_px"])
    best = face["candidates"][0] if face["candidates"] else None
    return face["verdict"], best and best["external_id"], best and best["similarity"]


def render(lines: list[Line]) -> str:
    """Return the tables."""
    *phases, whole = lines
    rows = [
        [
            line["phase"],
            line["asked"],
            line["errors"],
            line["wrong"],
            line["right_person"],
            *(milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
        ]
        for line in phases
    ]
    columns = ("under load", "asked", "errors", "wrong", "right person", "p50 ms", "p95 ms", "p99 ms")
    clean = not sum(line["errors"] + line["wrong"] for line in phases)
    slowest = max(ms for name, ms in whole["took_ms"].items() if name not in {"begin", "finish"})
    took = ", ".join(f"{name} {milliseconds(ms)} ms" for name, ms in whole["took_ms"].items())
    reached = "Reached" if clean and slowest < SWITCH_BAR_MS else "Not reached"
    return (
        f"**A gallery of {whole['faces']:,} faces moves to `{whole['pack']}`**, {whole['rate_per_s']:g} recognitions a "
        f"second all the way.\n\n{table(columns, rows)}\n\n"
        f"{whole['carried']:,} faces carried in {whole['carry_s']:,.0f} s ({whole['carried_per_s']:.1f} a second); not "
        f"carried: {whole['failed'] or 'none'}; persons left behind: {whole['persons_left_behind']}. Steps: {took}.\n\n"
        f"Bar: no error, no wrong answer, a switch below {SWITCH_BAR_MS:,.0f} ms. {reached}."
    )


def main() -> None:
    """Answer the question of the command line."""
    parser = record.arguments("transition", __doc__)
    parser.add_argument("--faces", type=int, default=FACES)
    parser.add_argument("--pack", help="that the gallery moves to; unless given, the default one, aligned otherwise")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="under load after every step")
    asked = parser.parse_args()
    record.answer(
        "transition",
        None if asked.show else lambda: measure(asked.faces, asked.pack, asked.seconds),
        render,
        lambda lines: lines[0]["seconds"] >= SECONDS and lines[0]["faces"] >= FACES,
    )


if __name__ == "__main__":
    main()
