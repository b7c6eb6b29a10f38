"""How long from starting the server with a large gallery until it answers, and until it searches by index?

`python -m benchmarks.start --faces 1000000`: a data directory of its own with so many made-up faces in the default
collection. The server is started after an orderly stop, and after the server and PostgreSQL were killed at once, so
that PostgreSQL recovers first. Until the index is there searches are answered too, exactly and slowly, from SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks import identities, record
from benchmarks.crowds import Crowd
from benchmarks.galleries import connected
from benchmarks.record import Line, table
from benchmarks.server import Server, postgres_of, running
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Callable

FACES = 1_000_000
STARTS = 2
BAR_S = 10.0
PATIENCE_S = 120.0
COUNTED = re.compile(r"^vultus_index_faces (\S+)$", re.MULTILINE)


def measure(faces: int) -> list[Line]:
    """Return a line a start."""
    folder = Path(tempfile.mkdtemp(prefix="vultus-bench-"))
    folder.chmod(0o711)
    data = folder / "data"
    data.mkdir()
    try:
        with running(data):
            pass
        print(f"start: {faces:,} faces are enrolled", flush=True)
        asyncio.run(_fill(data, faces))
        lines = []
        for _ in range(STARTS):
            print("start: after a stop", flush=True)
            lines.append({"after": "a stop", **_start(data, faces, lambda server: None)})
        for _ in range(STARTS):
            print("start: to be killed", flush=True)
            _start(data, faces, lambda server: _kill(server, data))
            print("start: after kill -9", flush=True)
            lines.append({"after": "kill -9 of server and PostgreSQL", **_start(data, faces, lambda server: None)})
        return [line | {"faces": faces} for line in lines]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _fill(data: Path, faces: int) -> None:
    with EmbeddedPostgres(data) as server:
        async with connected(server.start(), DatabaseSettings(statement_timeout_ms=0)) as database:
            crowd = await Crowd.empty(database, identities.real(), "default")
            await crowd.grow(faces)


def _start(data: Path, faces: int, end: Callable[[Server], None]) -> Line:
    """Start a server, wait until it searches by index, and return the seconds both took."""
    started = time.perf_counter()
    with running(data) as server:
        answers = time.perf_counter() - started
        while (held := _index_faces(server)) < faces:
            if time.perf_counter() - started > PATIENCE_S:
                raise RuntimeError(f"After {PATIENCE_S:g} s the index has {held:,.0f} of {faces:,} faces.")
            time.sleep(0.05)
        line = {
            "answers_s": round(answers, 2),
            "index_s": round(time.perf_counter() - started, 2),
            "memory_mib": round(server.memory_mib()),
        }
        end(server)
    return line


def _index_faces(server: Server) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
        found = COUNTED.search(answer.read().decode())
    return float(found[1]) if found else 0.0


def _kill(server: Server, data: Path) -> None:
    """Kill the server, its workers and its PostgreSQL, none of which gets to tidy up."""
    doomed = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    doomed += postgres_of(data)
    for process in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(doomed, 10)


def render(lines: list[Line]) -> str:
    """Return the table."""
    rows = [[line["after"], f"{line['answers_s']:.1f}", f"{line['index_s']:.1f}", line["memory_mib"]] for line in lines]
    slowest = max(line["index_s"] for line in lines)
    told = table(("after", "answers", "index", "MiB"), rows)
    return (
        f"**A start with {lines[0]['faces']:,} faces**, seconds from the command to the first answer and to an index "
        f"of all of them; MiB of all its processes but PostgreSQL.\n\n{told}\n\n"
        f"Bar: at most {BAR_S:g} s. {'Reached' if slowest <= BAR_S else 'Not reached'}, slowest {slowest:.1f} s."
    )


def main() -> None:
    """Answer the question of the command line."""
    parser = record.arguments("start", __doc__)
    parser.add_argument("--faces", type=int, default=FACES)
    asked = parser.parse_args()
    record.answer(
        "start", None if asked.show else lambda: measure(asked.faces), render, lambda lines: lines[0]["faces"] >= FACES
    )


if __name__ == "__main__":
    main()
