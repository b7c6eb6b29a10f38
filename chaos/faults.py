"""F9: what a server needs fails under it; are its answers right or 503, and does it notice and heal by itself?

Three callers ask all the while: for an enrolled vector and for a stranger's, for an enrolled face in a photo, and to
enrol. An answer is wrong that says nobody matches because data were missing, and so is any 5xx but 503.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
from tests.faces import nobody, portrait

from chaos.client import Client, draw_vectors
from chaos.outcome import Bar, Outcome, Plan
from chaos.service import Service, end_leftovers, make_data_directory, run_service
from chaos.sql import connect
from vultus.db.embedded.cluster import SUPERUSER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from vultus.domain import FloatArray

BAR = "only right answers or 503, readiness turns ≤ 2 s, heals by itself ≤ 5 s"
TURN_BAR_S, HEAL_BAR_S = 2.0, 5.0
FAULT_S = 5.0
SETTINGS = {"INFERENCE__WORKERS": "2", "DATABASE__STATEMENT_TIMEOUT_MS": "3000"}
HEAL_LIMIT_S = 30.0
DISK_MIB = 260


class Asker:
    """Callers that know the right answer.

    Attributes:
        wrong: Answers that were neither right nor a refusal.
        statuses: How often each status was answered; 0 without an answer.
        enrolled: External ids whose enrolment was acknowledged.
    """

    def __init__(self, client: Client, known: FloatArray, strangers: FloatArray) -> None:
        self.wrong: list[str] = []
        self.statuses = Counter[int]()
        self.enrolled: list[str] = []
        self._client, self._known, self._strangers = client, known, strangers
        self._asked = 0

    async def run(self, stopped: asyncio.Event) -> None:
        """Ask until the event is set."""
        await asyncio.gather(*(self._repeat(ask, stopped) for ask in (self._search, self._recognize, self._enrol)))

    async def ask_once(self) -> bool:
        """Return whether a search, a photo and an enrolment are all answered rightly now."""
        return all([await self._try(ask) for ask in (self._search, self._recognize, self._enrol)])

    async def _repeat(self, ask: Callable[[], Awaitable[httpx.Response]], stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            await self._try(ask)
            await asyncio.sleep(0.02)

    async def _try(self, ask: Callable[[], Awaitable[httpx.Response]]) -> bool:
        try:
            answer = await ask()
        except (httpx.HTTPError, OSError):
            self.statuses[0] += 1
            return False
        self.statuses[answer.status_code] += 1
        if answer.status_code not in {200, 201, 429, 503}:
            self.wrong.append(f"status {answer.status_code}: {answer.text[:150]}")
        return bool(answer.is_success)

    async def _search(self) -> httpx.Response:
        self._asked += 1
        is_known = self._asked % 2 == 0
        vectors = self._known if is_known else self._strangers
        answer = await self._client.search_vector(vectors[self._asked % len(vectors)])
        if answer.status_code == 200 and answer.json()["verdict"] != ("match" if is_known else "no_match"):
            self.wrong.append(f"{'an enrolled' if is_known else 'a strange'} vector: {answer.json()['verdict']}")
        return answer

    async def _recognize(self) -> httpx.Response:
        has_face = self._asked % 3 > 0
        answer = await self._client.recognize_photo(portrait() if has_face else nobody())
        if answer.status_code == 200:
            verdicts = [face["verdict"] for face in answer.json()["faces"]]
            if verdicts != (["match"] if has_face else []):
                self.wrong.append(f"a photo of {'an enrolled person' if has_face else 'nobody'}: {verdicts}")
        return answer

    async def _enrol(self) -> httpx.Response:
        name = f"extra-{time.monotonic_ns()}"
        vector = draw_vectors(1, self._known.shape[1], time.monotonic_ns() % 2**32)[0]
        answer = await self._client.enrol_vectors({name: vector})
        if answer.is_success:
            self.enrolled.append(name)
        return answer


@asynccontextmanager
async def stop_postgres(service: Service) -> AsyncIterator[None]:
    """Stop every process of PostgreSQL, as a machine that hangs; let them go on."""
    stopped = service.find_postgres()
    for process in stopped:
        process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            with suppress(psutil.Error):
                process.resume()


@asynccontextmanager
async def kill_postgres(service: Service) -> AsyncIterator[None]:
    """Kill PostgreSQL's first process."""
    os.kill(service.find_postgres()[0].pid, signal.SIGKILL)
    yield


@asynccontextmanager
async def end_connections(service: Service) -> AsyncIterator[None]:
    """End every connection of the server."""
    async with connect(service, SUPERUSER) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'vultus%'"
        )
    yield


@asynccontextmanager
async def lock_tables(service: Service) -> AsyncIterator[None]:
    """Hold a lock that every query of faces and persons waits for, which exhausts the pool."""
    async with connect(service) as connection, connection.transaction():
        await connection.execute("LOCK TABLE persons, faces IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def slow_postgres(service: Service) -> AsyncIterator[None]:
    """Let PostgreSQL run a tenth of the time."""
    done = asyncio.Event()

    async def throttle() -> None:
        while not done.is_set():
            async with stop_postgres(service):
                await asyncio.sleep(0.18)
            await asyncio.sleep(0.02)

    throttling = asyncio.create_task(throttle())
    try:
        yield
    finally:
        done.set()
        await throttling


@asynccontextmanager
async def kill_worker(service: Service) -> AsyncIterator[None]:
    """Kill one of the processes that analyse photos."""
    find_workers(service)[-1].kill()
    yield


@asynccontextmanager
async def kill_workers(service: Service) -> AsyncIterator[None]:
    """Kill all of them."""
    for process in find_workers(service):
        process.kill()
    yield


@asynccontextmanager
async def stop_worker(service: Service) -> AsyncIterator[None]:
    """Stop one of them, as a decoder that hangs."""
    worker = find_workers(service)[-1]
    worker.suspend()
    try:
        yield
    finally:
        with suppress(psutil.Error):
            worker.resume()


@asynccontextmanager
async def kill_fork_server(service: Service) -> AsyncIterator[None]:
    """Kill the process that forks workers, and the workers."""
    parents = {process.ppid() for process in find_workers(service)} - {service.pid}
    for process in (*map(psutil.Process, parents), *find_workers(service)):
        with suppress(psutil.Error):
            process.kill()
    yield


@asynccontextmanager
async def fill_disk(service: Service) -> AsyncIterator[None]:
    """Fill the file system of the data directory."""
    ballast = service.data / "ballast"
    with ballast.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(2**16))
            file.flush()
    try:
        yield
    finally:
        ballast.unlink()


FAULTS = {
    "PostgreSQL stopped": stop_postgres,
    "PostgreSQL killed": kill_postgres,
    "PostgreSQL slow": slow_postgres,
    "connections ended": end_connections,
    "tables locked, pool exhausted": lock_tables,
    "a worker killed": kill_worker,
    "all workers killed": kill_workers,
    "a worker stopped": stop_worker,
    "fork server and workers killed": kill_fork_server,
    "disk full": fill_disk,
}
UNREADY = {"PostgreSQL stopped"}
"""Faults that last, and in which nothing can be answered."""


def find_workers(service: Service) -> list[psutil.Process]:
    """Return the processes that analyse photos: those of the server that have no children."""
    return [process for process in service.list_processes()[1:] if not process.children()]


@contextmanager
def make_small_disk(outcome: Outcome) -> Iterator[Path]:
    """Yield a data directory on a file system of its own, in memory, or on the usual one where that is not permitted.

    The directory has space for a database and little more.
    """
    folder = Path(tempfile.mkdtemp(prefix="vultus-chaos-"))
    folder.chmod(0o711)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=711", "tmpfs", folder], check=False)
    if mounted.returncode:
        outcome.notes.append("disk full: not tried, a file system cannot be mounted here")
    data = folder / "data"
    data.mkdir(mode=0o700)
    try:
        yield data
    finally:
        end_leftovers(data)
        if not mounted.returncode:
            subprocess.run(["umount", "--lazy", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


async def measure(plan: Plan) -> Outcome:
    """Cause every fault in turn, several times."""
    outcome, rounds = Outcome(), plan.choose(3, 1)
    faults = ["PostgreSQL killed", "connections ended", "all workers killed"] if plan.short else list(FAULTS)
    turned, healed = dict[str, float](), dict[str, float]()
    async with AsyncExitStack() as stack:
        make_folder = make_data_directory() if plan.short else make_small_disk(outcome)
        data = stack.enter_context(make_folder)
        service = await stack.enter_async_context(run_service(SETTINGS, data))
        client = await stack.enter_async_context(service.open_client())
        client.http.timeout = httpx.Timeout(30.0)
        asker = await _prepare(client, plan)
        for name in faults:
            if name == "disk full" and not data.parent.is_mount():
                continue
            for _ in range(rounds):
                turn_s, heal_s = await _cause(service, asker, name, plan, outcome)
                turned[name] = max(turned.get(name, 0.0), turn_s)
                healed[name] = max(healed.get(name, 0.0), heal_s)
        stored = {person["external_id"] for person in await client.list_persons()}
        lost = [name for name in asker.enrolled if name not in stored]
        outcome.check(not lost, f"{len(lost)} acknowledged enrolments of {len(asker.enrolled)} are lost")
    outcome.require_control(asker.statuses[503] or asker.statuses[0], "faults that callers noticed")
    lasting = [turned[name] for name in UNREADY if name in turned]
    outcome.bars += [Bar("readiness turned after s", max(lasting), TURN_BAR_S, timed=True)] if lasting else []
    outcome.bars.append(Bar("healed after s", max(healed.values()), HEAL_BAR_S, timed=True))
    times = ", ".join(f"{name} {seconds:.1f}" for name, seconds in healed.items())
    outcome.notes.append(f"{rounds} times each; healed after s: {times}; statuses {dict(asker.statuses)}")
    return outcome


async def _prepare(client: Client, plan: Plan) -> Asker:
    """Enrol a photo and vectors, and see that the callers are answered rightly before anything fails."""
    _, dimension = await client.fetch_space()
    known, strangers = draw_vectors(100, dimension, plan.seed).reshape(2, 50, dimension)
    (await client.register_photo(portrait(scale=0.8), name="Ada")).raise_for_status()
    persons = {f"known-{at}": vector for at, vector in enumerate(known)}
    (await client.enrol_vectors(persons)).raise_for_status()
    asker = Asker(client, known, strangers)
    for _ in range(6):
        if not await asker.ask_once() or asker.wrong:
            raise RuntimeError(f"Answers are wrong before anything fails: {asker.wrong} {asker.statuses}")
    return asker


async def _cause(service: Service, asker: Asker, name: str, plan: Plan, outcome: Outcome) -> tuple[float, float]:
    """Cause a fault; return after how many seconds readiness turned, and all was right again after its end."""
    stopped = asyncio.Event()
    asking = asyncio.create_task(asker.run(stopped))
    await asyncio.sleep(0.3)
    started, turn_s = time.monotonic(), 0.0
    async with FAULTS[name](service):
        lasts_s = 0.3 if plan.short or "killed" in name or "ended" in name else FAULT_S
        while time.monotonic() - started < lasts_s:
            if name in UNREADY and not turn_s and await service.fetch_readiness(timeout_s=10.0) != 200:
                turn_s = time.monotonic() - started
            await asyncio.sleep(0.05)
        outcome.check(name not in UNREADY or turn_s, f"{name}: readiness stays 200")
    ended = time.monotonic()
    while not (await service.fetch_readiness() == 200 and await asker.ask_once()):
        if time.monotonic() - ended > HEAL_LIMIT_S:
            outcome.check(held=False, failure=f"{name}: does not heal within {HEAL_LIMIT_S:.0f} s")
            break
        await asyncio.sleep(0.05)
    heal_s = time.monotonic() - ended
    stopped.set()
    await asking
    outcome.check(not asker.wrong, f"{name}: {'; '.join(asker.wrong[:3])}")
    asker.wrong.clear()
    return turn_s, heal_s
