"""The real server as a process of its own, on a database of its own, stopped when the block ends."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from vultus.cli.serving import FIRST_KEY_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

START_S = 90.0
STOP_S = 30.0
PR_SET_PDEATHSIG = 1
ADDRESS = re.compile(r"answers on http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        port: On 127.0.0.1.
        key: The administrator's; empty unless this is the first start, which prints it.
        pid: Of the main process.
        data: Its data directory.
    """

    port: int
    key: str
    pid: int
    data: Path

    def measure_cpu_s(self) -> dict[str, float]:
        """Return the processor time used so far by API, workers and PostgreSQL, seconds."""
        api, *workers = self._list_processes()
        return {
            "api": _sum_cpu_s([api]),
            "workers": _sum_cpu_s(workers),
            "postgresql": _sum_cpu_s(find_postgres_processes(self.data)),
        }

    def measure_memory_mib(self) -> float:
        """Return the memory of the server's processes without PostgreSQL, shared memory counted once, MiB."""
        return float(sum(process.memory_full_info().pss for process in self._list_processes()) / 2**20)

    def _list_processes(self) -> list[psutil.Process]:
        own = psutil.Process(self.pid)
        return [own, *(child for child in own.children(recursive=True) if child.name() != "postgres")]


def find_postgres_processes(data: Path) -> list[psutil.Process]:
    """Return the processes of the PostgreSQL whose files are in a directory."""
    found = psutil.process_iter(["name", "cwd"])
    named = [one for one in found if one.info["name"] == "postgres" and one.info["cwd"]]
    return [one for one in named if Path(one.info["cwd"]).is_relative_to(data.resolve())]


def _sum_cpu_s(processes: Iterable[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(one.user + one.system for one in times))


@contextmanager
def run_server(data: Path | None = None, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start a server with default settings, ignoring this environment's; stop it however the block ends.

    Args:
        data: Its data directory, which is kept; None creates one and deletes it when the block ends.
        settings: Beside the defaults: environment variables without the prefix `VULTUS_`.

    Raises:
        RuntimeError: The server does not start; the message contains its output.
    """
    folder = data or Path(tempfile.mkdtemp(prefix="vultus-bench-"))
    written = folder / "server.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VULTUS_")}
    environment |= {"VULTUS_DATA_DIR": str(folder), "VULTUS_CUSTODY_DIR": str(folder / "custody")}
    environment["VULTUS_MODELS__OFFLINE"] = "true"  # the built-in networks
    environment["VULTUS_SERVER__METRICS"] = "shared"
    environment |= {f"VULTUS_{name}": value for name, value in (settings or {}).items()}
    try:
        with written.open("wb") as log:
            process = subprocess.Popen(
                [Path(sys.executable).parent / "vultus", "serve", "--host", "127.0.0.1", "--port", "0"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches only the benchmark, which stops the server itself
                preexec_fn=end_with_parent,
            )
        try:
            yield _wait_until_announced(process, written, folder)
        finally:
            _stop_process(process)
    finally:
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)


def find_address(text: str) -> int | None:
    """Return the port that a server's output announces."""
    found = ADDRESS.search(text)
    return int(found[1]) if found else None


def find_first_key(data: Path) -> str:
    """Return the administrator's key that the first start on a data directory wrote there; empty if another one did."""
    path = data / FIRST_KEY_FILE
    return path.read_text().strip() if path.exists() else ""


def end_with_parent() -> None:
    """Make Linux stop the server even when the benchmark is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _wait_until_announced(process: subprocess.Popen[bytes], written: Path, data: Path) -> Server:
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        text = written.read_text(encoding="utf-8", errors="replace")
        if port := find_address(text):
            return Server(port, find_first_key(data), process.pid, data)
        time.sleep(0.1)
    raise RuntimeError(f"The server did not start:\n{written.read_text(encoding='utf-8', errors='replace')}")


def _stop_process(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
