"""Does an online model migration under load cause an error, a wrong result or a pause?

`python -m benchmarks.transition --faces 5000 --pack yunet+mobilefacenet`: persons with one folder of photos each
(VULTUS_BENCH_PHOTOS) are enrolled with retained crops, then the background job backfills them while photos that
were not enrolled are recognised at a fixed rate; then cutover, rollback, cutover again, completion.

The whole service runs in this process behind its HTTP port, with a database of its own. A response is wrong if it
differs from the reference response without load: same photo, gallery and embedding space. Without --pack the target
network is the default pack's with another alignment, an embedding space of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from tests.packs import zoomed

from benchmarks import photos, record
from benchmarks.galleries import CALLER
from benchmarks.load import Connection, Response, build_photo_request
from benchmarks.record import Measurement, compute_percentiles, format_milliseconds, render_table
from vultus.api.app import create_app
from vultus.domain import Role
from vultus.errors import NoPhotoAcceptedError
from vultus.main import open_database, open_weights_store
from vultus.models.pipelines import PipelineRegistry
from vultus.models.workers.pool import AnalysisPool
from vultus.models.workers.worker import ThreadWorkerGroup
from vultus.server.serving import bind_socket
from vultus.services.enrolment.registration import RegistrationRequest
from vultus.services.people.consents import ConsentGrant
from vultus.services.photo_analysis import Photo
from vultus.services.wiring import Services, build_services
from vultus.settings import InferenceSettings, Settings
from vultus.utils.request_scope import RequestLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SECONDS = 20.0
"""Under load before the start, after every cutover and after completion."""

RATE_PER_S = 5.0
FACES = 5000
PROBES = 200
ACTOR = CALLER
COLLECTION = "default"
SIMILARITY_SLACK = 2e-3
SWITCH_BAR_MS = 1000.0
KEEP_ALIVE_S = 3600  # so that the server does not close idle connections

Probe = tuple[str, bytes]  # whose photo, a JPEG
Identification = tuple[str, str | None, float | None]  # verdict, closest person, similarity


@dataclass
class PhaseAnswers:
    """Requests and their outcomes in a phase."""

    phase: str
    outcomes: list[tuple[str, Response | Exception]] = field(default_factory=list)


def measure(faces: int, pack: str | None, seconds: float) -> list[Measurement]:
    """Return one line per phase, then one for the whole migration."""
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as folder:
        Path(folder).chmod(0o711)  # PostgreSQL's user passes through it
        inference = InferenceSettings(extra_packs=(pack,) if pack else ())
        settings = Settings(data_dir=Path(folder) / "data", inference=inference)
        return asyncio.run(_measure(settings, faces, pack, seconds))


async def _measure(settings: Settings, faces: int, pack: str | None, seconds: float) -> list[Measurement]:
    people = _list_people_photos()
    async with _start_service(settings, pack) as (services, port, key):
        other = pack or "zoomed"
        await services.collections.update_collection(CALLER, COLLECTION, policy={"keep_crops": True})
        began = time.perf_counter()
        enrolled = await _enrol_people(services, people, faces)
        enrol_s = time.perf_counter() - began
        probes = [(name, path.read_bytes()) for name, path in _select_probes(people, enrolled)]
        connections = [await Connection.open(port) for _ in range(32)]
        run = _MigrationRun(services, connections, key, probes)
        try:
            whole = await run.run_phases(other, seconds)
        finally:
            for connection in connections:
                await connection.close()
    about = {"faces": len(enrolled), "pack": other, "rate_per_s": RATE_PER_S, "seconds": seconds}
    return [about | line for line in (*run.build_lines(), whole | {"enrol_s": round(enrol_s, 1)})]


@asynccontextmanager
async def _start_service(settings: Settings, pack: str | None) -> AsyncIterator[tuple[Services, int, str]]:
    pipelines = await asyncio.to_thread(
        PipelineRegistry.load, settings.inference, settings.photos, open_weights_store(settings)
    )
    if pack is None:
        pipelines = PipelineRegistry(pipelines.default, zoomed(pipelines.default))
    group = ThreadWorkerGroup(pipelines, settings.inference.workers)
    async with open_database(settings) as database, AnalysisPool(settings.inference, group) as pool:
        services = build_services(settings, database, pool, pipelines.spaces)
        await services.collections.ensure_default_collection()
        _, key = await services.access.create_key(CALLER, "benchmark", Role.ADMIN)
        with bind_socket("127.0.0.1", 0) as listener:
            limits = RequestLimits(
                max_requests=settings.server.max_requests, max_bodies_bytes=settings.server.max_bodies_bytes
            )
            app = create_app(services, limits=limits)
            config = uvicorn.Config(
                app, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=KEEP_ALIVE_S
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            async with (
                services.jobs.run("backfill", services.backfill_worker.run, interval_s=0.5),
                services.jobs.run("shadow-comparison", services.shadow_comparer.compare_next, interval_s=None),
            ):
                yield services, listener.getsockname()[1], key
            server.should_exit = True
            await serving


def _list_people_photos() -> dict[str, list[Path]]:
    folder = os.environ.get(photos.FOLDER_VARIABLE)
    if not folder:
        raise SystemExit(f"{photos.FOLDER_VARIABLE} must name a folder with one folder of photos a person.")
    found = {entry.name: sorted(entry.glob("*.jpg")) for entry in sorted(Path(folder).iterdir()) if entry.is_dir()}
    # Persons with several photos first, so that a small gallery has probes too.
    return dict(sorted(((name, paths) for name, paths in found.items() if paths), key=lambda one: len(one[1]) < 2))


async def _enrol_people(services: Services, people: dict[str, list[Path]], faces: int) -> dict[str, Path]:
    """Enrol one photo per person, then further ones but the last, up to `faces`; return the enrolled photos."""
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
                collection=COLLECTION,
                photos=(Photo(path.read_bytes()),),
                external_id=name,
                name=name,
                consent=ConsentGrant("Benchmark", "benchmark"),
                largest_face=True,
                allow_lookalike=True,
            )
            try:
                await services.registrar.register(CALLER, request)
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


def _select_probes(people: dict[str, list[Path]], enrolled: dict[str, Path]) -> list[tuple[str, Path]]:
    """Return the last photo of persons who were enrolled with another one."""
    found = [(name, paths[-1]) for name, paths in people.items() if name in enrolled and enrolled[name] != paths[-1]]
    return found[:: max(1, len(found) // PROBES)][:PROBES]


class _MigrationRun:
    """A migration with rollback, under load from the first phase to the last."""

    def __init__(self, services: Services, connections: list[Connection], key: str, probes: list[Probe]) -> None:
        self._services = services
        self._free = connections
        self._requests = {name: build_photo_request("/v1/recognize", key, photo, limit="1") for name, photo in probes}
        self._reference_answers: dict[str, dict[str, Identification]] = {}
        self._phases: list[PhaseAnswers] = []
        self._durations_ms: dict[str, float] = {}

    async def run_phases(self, pack: str, seconds: float) -> Measurement:
        """Run all phases and return the durations of the steps."""
        migrations = self._services.migrations
        await self._record_reference_answers()
        await self._run_under_load("before", self._sleep(seconds))
        await self._time_step("begin", lambda: migrations.start(CALLER, COLLECTION, pack=pack, shadow_share=0.0))
        began = time.perf_counter()
        await self._run_under_load("carrying", self._wait_for_backfill())
        backfill_s = time.perf_counter() - began
        state = await migrations.get_state(CALLER, COLLECTION)

        def switch() -> Awaitable[Any]:
            return migrations.cut_over(CALLER, COLLECTION, allow_unmigrated=True)

        await self._run_under_load("switch, after it", self._time_step_and_wait("switch", switch, seconds))
        await self._record_reference_answers()
        await self._run_under_load("way back, after it", self._time_step_and_wait("way back", switch, seconds))
        await self._run_under_load("switch again, after it", self._time_step_and_wait("switch again", switch, seconds))
        end = self._time_step_and_wait(
            "finish", lambda: migrations.finish(CALLER, COLLECTION, allow_unmigrated=True), seconds
        )
        await self._run_under_load("end, after it", end)
        return {
            "measure": "whole",
            "carried": state.second.faces,
            "failed": state.second.failed,
            "persons_left_behind": state.second.persons_missing,
            "carry_s": round(backfill_s, 1),
            "carried_per_s": round(state.second.faces / backfill_s, 1),
            "took_ms": {name: round(ms, 1) for name, ms in self._durations_ms.items()},
        }

    def build_lines(self) -> list[Measurement]:
        """Return one line per phase."""
        lines = []
        for load in self._phases:
            good = [(name, one) for name, one in load.outcomes if isinstance(one, Response) and one.status == 200]
            lines.append(
                {
                    "measure": "phase",
                    "phase": load.phase,
                    "asked": len(load.outcomes),
                    "errors": len(load.outcomes) - len(good),
                    "kinds": sorted({_get_error_code(one) for _, one in load.outcomes} - {""}),
                    "wrong": sum(self._is_wrong(name, one) for name, one in good),
                    "right_person": sum(_parse_identification(one)[:2] == ("match", name) for name, one in good),
                    **compute_percentiles([one.ms for _, one in good]),
                }
            )
        return lines

    async def _record_reference_answers(self) -> None:
        """Store the searched embedding space's response to every probe."""
        for name, request in self._requests.items():
            answer = await self._send_request(request)
            self._reference_answers.setdefault(answer.json()["contract_id"], {})[name] = _parse_identification(answer)

    def _is_wrong(self, name: str, answer: Response) -> bool:
        verdict, person, similarity = _parse_identification(answer)
        reference = self._reference_answers.get(answer.json()["contract_id"], {}).get(name)
        if reference is None or (verdict, person) != reference[:2]:
            return True
        return similarity is not None and abs(similarity - (reference[2] or 0)) > SIMILARITY_SLACK

    async def _run_under_load(self, phase: str, work: Awaitable[None]) -> None:
        """Run a step while photos are recognised."""
        print(f"transition: {phase}", flush=True)
        load = PhaseAnswers(phase)
        self._phases.append(load)
        stop = asyncio.Event()
        sending = asyncio.create_task(self._send_probes(load, stop))
        try:
            await work
        finally:
            stop.set()
            await sending

    async def _send_probes(self, load: PhaseAnswers, stop: asyncio.Event) -> None:
        async def send_probe(name: str, request: bytes) -> None:
            try:
                load.outcomes.append((name, await self._send_request(request)))
            except Exception as error:  # noqa: BLE001  every failure counts
                load.outcomes.append((name, error))

        async with asyncio.TaskGroup() as group:
            start = time.perf_counter()
            for at, (name, request) in enumerate(itertools.cycle(self._requests.items())):
                await asyncio.sleep(max(0.0, start + at / RATE_PER_S - time.perf_counter()))
                if stop.is_set():
                    return
                group.create_task(send_probe(name, request))

    async def _send_request(self, request: bytes) -> Response:
        connection = self._free.pop()
        answer = await connection.send_request(request)
        self._free.append(connection)
        return answer

    async def _time_step(self, name: str, act: Callable[[], Awaitable[Any]]) -> None:
        began = time.perf_counter()
        await act()
        self._durations_ms[name] = (time.perf_counter() - began) * 1e3

    async def _time_step_and_wait(self, name: str, act: Callable[[], Awaitable[Any]], seconds: float) -> None:
        await self._time_step(name, act)
        await asyncio.sleep(seconds)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _wait_for_backfill(self) -> None:
        state = await self._services.migrations.get_state(CALLER, COLLECTION)
        while state.second.pending:
            await asyncio.sleep(1)
            state = await self._services.migrations.get_state(CALLER, COLLECTION)
        print(f"transition: {state.second.faces} faces carried", flush=True)


def _get_error_code(outcome: Response | Exception) -> str:
    """Return the error code; empty without an error."""
    if isinstance(outcome, Response):
        return "" if outcome.status == 200 else str(outcome.json()["code"])
    return type(outcome).__name__


def _parse_identification(answer: Response) -> Identification:
    """Return the identification of the largest face."""
    faces = answer.json()["faces"]
    if not faces:
        return "no_face", None, None
    face = max(faces, key=lambda one: one["quality"]["size_px"])
    best = face["candidates"][0] if face["candidates"] else None
    return face["verdict"], best and best["external_id"], best and best["similarity"]


def render(lines: list[Measurement]) -> str:
    """Return the tables."""
    *phases, whole = lines
    rows = [
        [
            line["phase"],
            line["asked"],
            line["errors"],
            line["wrong"],
            line["right_person"],
            *(format_milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
        ]
        for line in phases
    ]
    columns = ("under load", "asked", "errors", "wrong", "right person", "p50 ms", "p95 ms", "p99 ms")
    clean = not sum(line["errors"] + line["wrong"] for line in phases)
    slowest = max(ms for name, ms in whole["took_ms"].items() if name not in {"begin", "finish"})
    took = ", ".join(f"{name} {format_milliseconds(ms)} ms" for name, ms in whole["took_ms"].items())
    reached = "Reached" if clean and slowest < SWITCH_BAR_MS else "Not reached"
    return (
        f"**A gallery of {whole['faces']:,} faces moves to `{whole['pack']}`**, {whole['rate_per_s']:g} recognitions a "
        f"second all the way.\n\n{render_table(columns, rows)}\n\n"
        f"{whole['carried']:,} faces carried in {whole['carry_s']:,.0f} s ({whole['carried_per_s']:.1f} a second); not "
        f"carried: {whole['failed'] or 'none'}; persons left behind: {whole['persons_left_behind']}. Steps: {took}.\n\n"
        f"Bar: no error, no wrong answer, a switch below {SWITCH_BAR_MS:,.0f} ms. {reached}."
    )


def main() -> None:
    """Run the benchmark of the command line."""
    parser = record.build_argument_parser("transition", __doc__)
    parser.add_argument("--faces", type=int, default=FACES)
    parser.add_argument("--pack", help="that the gallery moves to; unless given, the default one, aligned otherwise")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="under load after every step")
    options = parser.parse_args()
    record.run_benchmark(
        "transition",
        None if options.show else lambda: measure(options.faces, options.pack, options.seconds),
        render,
        lambda lines: lines[0]["seconds"] >= SECONDS and lines[0]["faces"] >= FACES,
    )


if __name__ == "__main__":
    main()
