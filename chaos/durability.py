"""F2: every write is traced down to the disk; does any answer begin before its write-ahead log is flushed?

`strace` watches PostgreSQL and the server. Between two answers a write to the log must end in a flush before the second
begins. The control is the same with `synchronous_commit = off`, where answers must be seen to come first, since nobody
flushes before ten seconds.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from chaos.client import CONSENT
from chaos.outcome import Outcome, Plan
from chaos.service import make_data_directory, run_service, try_command
from chaos.sql import connect
from vultus.db.embedded.cluster import SUPERUSER
from vultus.db.requirements import DURABILITY_SETTINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chaos.client import Client
    from chaos.service import Service

BAR = (
    "the write-ahead log is flushed before the first byte of 1,000 of 1,000 answers to writes; a start is refused with "
    "fsync, full_page_writes or synchronous_commit off"
)
SETTINGS = {"INFERENCE__WORKERS": "1"}
ATTACH_S = 20.0
CONTROL = 10
CALLS = "trace=pwrite64,pwritev,fdatasync,fsync,sendto,sendmsg,write,writev"
_CALL = re.compile(r"^(?P<at>[\d.]+) (?P<name>\w+)\(\d+<(?P<path>[^>]*)>(?P<rest>.*) <(?P<took>[\d.]+)>$")


class Call(NamedTuple):
    """A system call: when it began and ended, seconds; what it was."""

    began: float
    ended: float
    kind: str


async def measure(plan: Plan) -> Outcome:
    """Trace writes with and without a flush before the answer, and start with each setting that loses commits."""
    outcome = Outcome()
    count = plan.choose(1_000, 12)
    with make_data_directory() as data:
        async with run_service(SETTINGS, data) as service, service.open_client() as client:
            async with _trace(service) as folder:
                await _write(client, count)
            late = find_unflushed(_read_calls(folder))
            shutil.rmtree(folder)
            outcome.tries += count
            outcome.failures += [f"answer {at} of {count} began before a flush" for at in late.unflushed]
            if late.answers != count:
                raise RuntimeError(f"{late.answers} of {count} answers were traced")
            await _set(service, "synchronous_commit", "off")
            await _set(service, "wal_writer_delay", "10000")
            async with _trace(service) as folder:
                await _write(client, CONTROL)
            control = find_unflushed(_read_calls(folder))
            shutil.rmtree(folder)
            await _set(service, "synchronous_commit", None)
            await _set(service, "wal_writer_delay", None)
            outcome.require_control(
                len(control.unflushed) > CONTROL / 2,
                f"{len(control.unflushed)} of {CONTROL} answers came first with synchronous_commit off",
            )
            for name in DURABILITY_SETTINGS[: plan.choose(3, 1)]:
                await _set(service, name, "off")
                status, said = await asyncio.to_thread(try_command, data, "keys", "list")
                outcome.check(status == 7 and f"runs with {name} off" in said, f"with {name} off: {said}")
                await _set(service, name, None)
            status, said = await asyncio.to_thread(try_command, data, "keys", "list")
            outcome.require_control(status == 0, "with all of them on a command starts")
    return outcome


class Unflushed(NamedTuple):
    """Answers that were traced, and the numbers of those that began before a flush."""

    answers: int
    unflushed: list[int]


def find_unflushed(calls: list[Call]) -> Unflushed:
    """Return which answers began before what was written to the log since the answer before was flushed."""
    answers, unflushed = 0, []
    written_at = flushed_at = 0.0
    since = 0.0
    for call in sorted(calls, key=lambda one: one.ended if one.kind == "flush" else one.began):
        if call.kind == "write":
            written_at = call.began
        elif call.kind == "flush" and since < written_at < call.began:
            flushed_at = call.ended
        elif call.kind == "answer":
            answers += 1
            if flushed_at <= since:
                unflushed.append(answers)
            since = call.began
    return Unflushed(answers, unflushed)


def _read_calls(folder: Path) -> list[Call]:
    calls = []
    for file in folder.iterdir():
        for line in file.read_text(errors="replace").splitlines():
            if (found := _CALL.match(line)) is None:
                continue
            kind = ""
            if "/pg_wal/" in found["path"]:
                kind = "flush" if found["name"] in {"fdatasync", "fsync"} else "write"
            elif '"HTTP/1.1 2' in found["rest"]:
                kind = "answer"
            if kind:
                began = float(found["at"])
                calls.append(Call(began, began + float(found["took"]), kind))
    return calls


@asynccontextmanager
async def _trace(service: Service) -> AsyncIterator[Path]:
    """Trace PostgreSQL and the server's main process for the length of the block; yield the folder of the trace."""
    folder = Path(tempfile.mkdtemp(prefix="vultus-trace-"))
    pids = [str(process.pid) for process in service.find_postgres()] + [str(service.pid)]
    names = [argument for pid in pids for argument in ("-p", pid)]
    command = ["strace", "-ff", "-y", "-ttt", "-T", "-s", "16", "-e", CALLS, "-o", str(folder / "trace"), *names]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: ASYNC220  returns at once
    try:
        async with asyncio.timeout(ATTACH_S):
            while not await asyncio.to_thread(_is_traced, [int(pid) for pid in pids]):
                if tracer.poll() is not None:
                    raise RuntimeError(f"strace ended: {tracer.communicate()[1]}")
                await asyncio.sleep(0.05)
        yield folder
    finally:
        tracer.send_signal(signal.SIGINT)  # it lets go of the processes
        await asyncio.to_thread(tracer.communicate)


def _is_traced(pids: list[int]) -> bool:
    return all(
        "TracerPid:\t0\n" not in status.read_text() for pid in pids if (status := Path(f"/proc/{pid}/status")).exists()
    )


async def _write(client: Client, count: int) -> None:
    """Write one thing after another, each in a request of its own."""
    people = "/v1/collections/default/persons"
    made: list[str] = []
    for at in range(count):
        if at % 3 == 0:
            answer = await client.http.post(people, json={"name": "Ada", "consent": CONSENT})
            made.append(answer.json()["id"])
        elif at % 3 == 1:
            answer = await client.http.patch(f"{people}/{made[-1]}", json={"metadata": {"version": at}})
        else:
            answer = await client.http.delete(f"{people}/{made.pop()}")
        answer.raise_for_status()


async def _set(service: Service, name: str, value: str | None) -> None:
    """Change a setting of PostgreSQL behind the service's back, or take it back."""
    async with connect(service, SUPERUSER) as connection:
        change = f"RESET {name}" if value is None else f"SET {name} = {value}"
        await connection.execute(f"ALTER SYSTEM {change}")
        await connection.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(0.5)  # until every process has read it
