"""How long from starting the server with a large gallery until it answers, and until it searches by index?

`python -m benchmarks.start --faces 1000000`: a data directory of its own with so many synthetic faces in the default
collection. The server is started after a graceful stop, and after the server and PostgreSQL were killed together, so
that PostgreSQL recovers first. Until the index is loaded, searches run exactly, and slowly, in SQL.
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

import asyncpg
import psutil

from benchmarks import identities, record
from benchmarks.crowds import SyntheticGallery
from benchmarks.galleries import connect_migrated_database
from benchmarks.record import Measurement, render_table
from benchmarks.server import Server, find_postgres_processes, run_server
from vultus.db.embedded.cluster import OWNER
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Callable

FACES = 1_000_000
STARTS = 2
BAR_S = 10.0
TIMEOUT_S = 120.0
INDEX_FACES_METRIC = re.compile(r"^vultus_index_faces (\S+)$", re.MULTILINE)


def measure(faces: int) -> list[Measurement]:
    """Return one line per start."""
    folder = Path(tempfile.mkdtemp(prefix="vultus-bench-"))
    folder.chmod(0o711)
    data = folder / "data"
    data.mkdir()
    try:
        with run_server(data):
            pass
        print(f"start: {faces:,} faces are enrolled", flush=True)
        asyncio.run(_fill_gallery(data, faces))
        lines = []
        for _ in range(STARTS):
            print("start: after a stop", flush=True)
            lines.append({"after": "a stop", **_time_start(data, faces, lambda server: None)})
        for _ in range(STARTS):
            print("start: to be killed", flush=True)
            _time_start(data, faces, lambda server: _kill_server(server, data))
            print("start: after kill -9", flush=True)
            lines.append({"after": "kill -9 of server and PostgreSQL", **_time_start(data, faces, lambda server: None)})
        return [line | {"faces": faces} for line in lines]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _fill_gallery(data: Path, faces: int) -> None:
    with EmbeddedPostgres(data) as server:
        url = server.start().owner
        superuser = await asyncpg.connect(server.superuser_url.replace("+asyncpg", ""))
        # It is filled without checks, by the role that owns it.
        await superuser.execute(
            f"GRANT SET ON PARAMETER session_replication_role TO {OWNER}; GRANT pg_checkpoint TO {OWNER}"
        )
        await superuser.close()
        async with connect_migrated_database(url, DatabaseSettings(statement_timeout_ms=0)) as database:
            gallery = await SyntheticGallery.create_empty(database, identities.load_real_people(), "default")
            await gallery.enrol_until(faces)


def _time_start(data: Path, faces: int, end: Callable[[Server], None]) -> Measurement:
    """Start a server, wait until it searches by index, and return the seconds both took."""
    started = time.perf_counter()
    with run_server(data) as server:
        answers = time.perf_counter() - started
        while (held := _read_indexed_faces(server)) < faces:
            if time.perf_counter() - started > TIMEOUT_S:
                raise RuntimeError(f"After {TIMEOUT_S:g} s the index has {held:,.0f} of {faces:,} faces.")
            time.sleep(0.05)
        line = {
            "answers_s": round(answers, 2),
            "index_s": round(time.perf_counter() - started, 2),
            "memory_mib": round(server.measure_memory_mib()),
        }
        end(server)
    return line


def _read_indexed_faces(server: Server) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
        found = INDEX_FACES_METRIC.search(answer.read().decode())
    return float(found[1]) if found else 0.0


def _kill_server(server: Server, data: Path) -> None:
    """Kill the server, its workers and its PostgreSQL without cleanup."""
    doomed = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    doomed += find_postgres_processes(data)
    for process in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(doomed, 10)


def render(lines: list[Measurement]) -> str:
    """Return the table."""
    rows = [[line["after"], f"{line['answers_s']:.1f}", f"{line['index_s']:.1f}", line["memory_mib"]] for line in lines]
    slowest = max(line["index_s"] for line in lines)
    rendered = render_table(("after", "answers", "index", "MiB"), rows)
    return (
        f"**A start with {lines[0]['faces']:,} faces**, seconds from the command to the first answer and to an index "
        f"of all of them; MiB of all its processes but PostgreSQL.\n\n{rendered}\n\n"
        f"Bar: at most {BAR_S:g} s. {'Reached' if slowest <= BAR_S else 'Not reached'}, slowest {slowest:.1f} s."
    )


def main() -> None:
    """Run the benchmark of the command line."""
    parser = record.build_argument_parser("start", __doc__)
    parser.add_argument("--faces", type=int, default=FACES)
    options = parser.parse_args()
    record.run_benchmark(
        "start",
        None if options.show else lambda: measure(options.faces),
        render,
        lambda lines: lines[0]["faces"] >= FACES,
    )


if __name__ == "__main__":
    main()
