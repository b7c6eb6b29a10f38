"""`vultus serve` on loopback with a data directory of its own, which figures may kill, overload and starve."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from benchmarks.server import START_S, STOP_S, end_with_parent, find_address, find_first_key, find_postgres_processes

from chaos.client import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

POLL_S = 0.02
MEMORY_SAMPLE_S = 0.05
DEFAULT_SETTINGS = {"MODELS__OFFLINE": "true", "SERVER__METRICS": "shared"}
"""Names without `VULTUS_`: the built-in networks, nothing fetched; `/metrics` on the API's port."""


class Service:
    """A server that can be started, stopped and killed repeatedly; its port stays the same.

    Args:
        data: Its data directory.
        settings: Environment variables without the prefix `VULTUS_`.

    Attributes:
        data: Its data directory.
        log_file: Everything it printed, all starts together.
        port: On 127.0.0.1.
        key: The administrator's; empty unless this server started first on its data directory.
    """

    def __init__(self, data: Path, settings: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self.port = find_free_port()
        self.log_file = data / f"serve-{self.port}.log"
        self.key = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the main process."""
        if self._process is None:
            raise RuntimeError("The server was not started.")
        return self._process.pid

    async def start(self) -> float:
        """Start the server, wait until it announces its address, and return how long that took, seconds.

        Raises:
            RuntimeError: It does not start; the message contains its output.
        """
        started, offset = time.monotonic(), self.log_file.stat().st_size if self.log_file.exists() else 0
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VULTUS_")}
        environment |= {"VULTUS_DATA_DIR": str(self.data)}
        environment |= {f"VULTUS_{name}": value for name, value in self.settings.items()}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220  returns at once
                [Path(sys.executable).parent / "vultus", "serve", "--host", "127.0.0.1", "--port", str(self.port)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        while self._process.poll() is None and time.monotonic() < started + START_S:
            text = self.read_log(offset)
            if find_address(text):
                self.key = self.key or find_first_key(self.data)
                return time.monotonic() - started
            await asyncio.sleep(POLL_S)
        raise RuntimeError(f"The server did not start:\n{self.read_log(offset)}")

    def read_log(self, offset: int = 0) -> str:
        """Return what the server printed, from a byte on."""
        with self.log_file.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")

    def kill(self) -> None:
        """Kill the main process with SIGKILL and reap it."""
        os.kill(self.pid, signal.SIGKILL)
        if self._process:
            self._process.wait()

    def stop(self) -> None:
        """Stop the server as Ctrl-C does; kill it if it does not end."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def open_client(self, key: str | None = None) -> Client:
        """Return a client with a key; the administrator's unless given."""
        return Client(self.port, self.key if key is None else key)

    def list_processes(self) -> list[psutil.Process]:
        """Return the main process, the fork server and the workers, in order of their start."""
        own = psutil.Process(self.pid)
        found = [own, *(child for child in own.children(recursive=True) if child.name() != "postgres")]
        return sorted(found, key=lambda process: (process.create_time(), process.pid))

    def find_postgres(self) -> list[psutil.Process]:
        """Return the processes of the embedded PostgreSQL, the one that started the others first."""
        return sorted(find_postgres_processes(self.data), key=lambda process: (process.create_time(), process.pid))

    def measure_memory_mib(self) -> float:
        """Return the memory of the server's processes and PostgreSQL, shared memory counted once, MiB."""
        total = 0
        for process in (*self.list_processes(), *self.find_postgres()):
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total / 2**20

    async def watch_memory(self, done: asyncio.Event) -> float:
        """Return the most memory seen until the event is set, MiB."""
        peak = 0.0
        while not done.is_set():
            with suppress(psutil.Error):
                peak = max(peak, await asyncio.to_thread(self.measure_memory_mib))
            await asyncio.sleep(MEMORY_SAMPLE_S)
        return peak

    async def wait_until_ready(self, limit_s: float = 60.0) -> float:
        """Return how long readiness takes from now on, seconds; infinity beyond the limit."""
        started = time.monotonic()
        while time.monotonic() < started + limit_s:
            if await self.fetch_readiness() == 200:
                return time.monotonic() - started
            await asyncio.sleep(POLL_S)
        return float("inf")

    async def fetch_readiness(self, timeout_s: float = 5.0) -> int:
        """Return the status of `/v1/health/ready`; 0 without an answer."""
        try:
            async with asyncio.timeout(timeout_s):
                return await fetch_status(self.port, "/v1/health/ready")
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return 0


async def fetch_status(port: int, path: str) -> int:
    """Return the status of a GET without a key, over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        return int((await reader.readuntil(b"\r\n")).split()[1])
    finally:
        writer.transport.abort()


def find_free_port() -> int:
    """Return a TCP port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def make_data_directory() -> Iterator[Path]:
    """Yield an empty directory that PostgreSQL's user can reach, and delete it with everything in it.

    A PostgreSQL that a killed server left behind on it is ended first.
    """
    folder = Path(tempfile.mkdtemp(prefix="vultus-chaos-"))
    folder.chmod(0o711)
    data = folder / "data"
    data.mkdir(mode=0o700)
    try:
        yield data
    finally:
        end_leftovers(data)
        shutil.rmtree(folder, ignore_errors=True)


def end_leftovers(data: Path) -> None:
    """End what still runs on a data directory: PostgreSQL, which outlives a killed server, and orphaned workers."""
    left = find_postgres_processes(data)
    for process in left:
        with suppress(psutil.Error):
            process.resume()
            process.kill()
    psutil.wait_procs(left, timeout=STOP_S)


@asynccontextmanager
async def run_service(settings: Mapping[str, str] | None = None, data: Path | None = None) -> AsyncIterator[Service]:
    """Start a server, on an empty data directory unless given; stop it however the block ends, and leave nothing."""
    if data is None:
        with make_data_directory() as folder:
            async with run_service(settings, folder) as service:
                yield service
        return
    service = Service(data, settings)
    try:
        await service.start()
        yield service
    finally:
        await asyncio.to_thread(service.stop)


def run_command(data: Path, *arguments: str) -> str:
    """Run a command of `vultus` on a data directory and return what it prints.

    Raises:
        subprocess.CalledProcessError: It fails.
    """
    return _start_command(data, *arguments, stdout=subprocess.PIPE, check=True).stdout


def try_command(data: Path, *arguments: str) -> tuple[int, str]:
    """Run a command of `vultus` on a data directory; return its exit status and all that it said."""
    done = _start_command(data, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


def _start_command(data: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VULTUS_")}
    environment |= {"VULTUS_DATA_DIR": str(data), "VULTUS_MODELS__OFFLINE": "true"}
    program = Path(sys.executable).parent / "vultus"
    return subprocess.run([program, *arguments], env=environment, text=True, **options)
