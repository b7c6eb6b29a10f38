"""Worker processes: the event loop does not share the GIL with inference; a decoder that crashes ends only its process.

Before this process has threads it forks a keeper, which does nothing but fork again. The keeper forks the fork server,
which loads the networks once, never starts threads, and forks the workers, which share its memory copy-on-write; it
forks another whenever one has ended. If the fork server ends, the keeper forks another. What these processes do is in
`processes.py`. Networks that are not fork-safe are loaded by every worker separately.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from contextlib import suppress
from mmap import mmap
from typing import TYPE_CHECKING

import msgspec
import psutil

from vultus.errors import SetupError, VultusError
from vultus.models.workers.decoding_watch import DecodingWatch
from vultus.models.workers.messages import (
    LENGTH_HEADER,
    PhotoBatch,
    decode_hello,
    decode_loaded,
    decode_results,
    encode_message,
)
from vultus.models.workers.processes import WORKER_HEADER, Nursery, fork_keeper
from vultus.models.workers.worker import WorkerEndedError, WorkerStoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vultus.domain import Analysis, SpaceRegistry
    from vultus.models.pipeline import AnalysisRequest
    from vultus.models.pipelines import PipelineRegistry

log = logging.getLogger(__name__)

WORKER_START_TIMEOUT_S = 60.0
"""Longest time until a worker has started, including loading its own networks."""

CHECK_INTERVAL_S = 0.2
"""Pause between looks at what a worker decodes."""

MAX_MESSAGE_BYTES = 1 << 30
"""Longest message that is read from a worker."""


class ProcessWorkerGroup:
    """Starts a fork server that loads the networks and forks worker processes.

    Create it before the process has threads or open descriptors that a child should not inherit.

    Args:
        load_pipelines: Loads the networks, in the fork server.
        memory_budget: Bytes for decoding, shared by all workers.
        timeout_s: Timeout per photo; a worker that exceeds it is killed.
        decode_timeout_s: Processor time for decoding a photo; a worker that exceeds it is killed.
        shared: Whether the networks are fork-safe, and so loaded once.
    """

    def __init__(
        self,
        load_pipelines: Callable[[], PipelineRegistry],
        *,
        memory_budget: int,
        timeout_s: float,
        decode_timeout_s: float = 2.0,
        shared: bool = True,
    ) -> None:
        self.workers: list[ProcessWorker] = []
        self.timeout_s = timeout_s
        self.decode_timeout_s = decode_timeout_s
        self.in_flight = mmap(-1, 1)  # shared with every child
        self.decoding_watch = DecodingWatch()
        nursery = Nursery(load_pipelines, self.in_flight, self.decoding_watch, memory_budget, shared)
        self._keeper_pid, self._keeper = fork_keeper(nursery)
        self._socket = self._start_fork_server()
        self._is_lost = False
        self._loading = asyncio.Lock()
        self._mending: asyncio.Task[None] | None = None

    def _start_fork_server(self) -> socket.socket:
        """Let the keeper fork a fork server, and return the socket connected to it.

        Raises:
            WorkerEndedError: The keeper has ended.
        """
        return _send_socket(self._keeper, b"f", "The process that starts fork servers is gone.")

    async def wait_until_loaded(self) -> SpaceRegistry:
        """Wait until the networks are loaded; return what services know of them.

        Raises:
            WeightsError: A file is missing or not the published one.
            SetupError: The fork server ended.
        """
        try:
            spaces = decode_loaded(await _receive_message(self._socket))
        except EOFError:
            raise SetupError("The process that loads the networks ended; is there enough memory?") from None
        # It never sends anything again: readable means ended.
        asyncio.get_running_loop().add_reader(self._socket, self._handle_end)
        return spaces

    def _handle_end(self) -> None:
        """Start another fork server: without one, no worker could be replaced."""
        asyncio.get_running_loop().remove_reader(self._socket)
        log.error("The process that forks workers ended; another is started.")
        self._is_lost = True
        self._mending = asyncio.create_task(self._mend_quietly())

    async def _mend_quietly(self) -> None:
        try:
            await self._ensure_fork_server()
        except WorkerEndedError as error:
            log.error("%s It is tried again when a worker ends.", error)

    async def _ensure_fork_server(self) -> None:
        """Start another fork server if the last one ended.

        Raises:
            WorkerEndedError: It cannot be started, or ended as well.
        """
        async with self._loading:
            if not self._is_lost:
                return
            self._socket.close()
            self._socket = self._start_fork_server()
            try:
                async with asyncio.timeout(WORKER_START_TIMEOUT_S):
                    await self.wait_until_loaded()
            except (VultusError, TimeoutError) as error:
                raise WorkerEndedError("Networks could not be loaded again.") from error
            self._is_lost = False

    async def start_workers(self, count: int) -> None:
        """Fork `count` workers.

        Raises:
            SetupError: A worker ended before it had started.
        """
        self.workers = [ProcessWorker(self, number) for number in range(count)]
        try:
            await asyncio.gather(*(worker.restart() for worker in self.workers))
        except WorkerEndedError as error:
            raise SetupError(f"{error} Is there enough memory?") from error

    async def fork_worker(self, number: int) -> socket.socket:
        """Fork a worker and return the socket connected to it.

        Raises:
            WorkerEndedError: There is no fork server, and none can be started.
        """
        await self._ensure_fork_server()
        return _send_socket(self._socket, WORKER_HEADER.pack(number), "The process that forks workers is gone.")

    async def close(self) -> None:
        """End keeper and fork server; the workers were closed by the pool."""
        if self._mending is not None:
            self._mending.cancel()
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._keeper.close()
        with suppress(ChildProcessError):
            await asyncio.to_thread(os.waitpid, self._keeper_pid, 0)


def _send_socket(receiver: socket.socket, message: bytes, words: str) -> socket.socket:
    """Send one end of a new connection to a process, and return the other."""
    near, far = socket.socketpair()
    try:
        socket.send_fds(receiver, [message], [far.fileno()])
    except OSError as error:
        near.close()
        raise WorkerEndedError(words) from error
    finally:
        far.close()
    near.setblocking(False)
    return near


class ProcessWorker:
    """A worker process, connected by a socket.

    Attributes:
        pid: Process id.

    Args:
        group: Whose worker it is.
        number: Its own, from 0.
    """

    def __init__(self, group: ProcessWorkerGroup, number: int) -> None:
        self.pid = 0
        self._number = number
        self._group = group
        self._socket: socket.socket | None = None
        self._slow_photo: int | None = None

    async def restart(self) -> None:
        """Fork another process.

        Raises:
            WorkerEndedError: The fork server has ended, or the new process did before it had started.
        """
        if self._socket is not None:
            self._stop_watching()
            self._socket.close()
        self._socket = await self._group.fork_worker(self._number)
        self._slow_photo = None
        try:
            async with asyncio.timeout(WORKER_START_TIMEOUT_S):
                self.pid = decode_hello(await _receive_message(self._socket)).pid
        except (EOFError, OSError, TimeoutError) as error:
            raise WorkerEndedError("A worker ended before it began.") from error
        except msgspec.MsgspecError as error:
            self._socket.close()  # which ends the process
            raise WorkerEndedError(f"A worker began with an unknown message: {error}.") from error

    def watch_idle(self, on_end: Callable[[], None]) -> None:
        """Call back once if the process ends before its next batch."""
        if self._socket is None:
            return

        loop, connection = asyncio.get_running_loop(), self._socket

        def handle_end() -> None:
            loop.remove_reader(connection)
            on_end()

        loop.add_reader(connection, handle_end)  # an idle worker sends nothing: readable means ended

    def _stop_watching(self) -> None:
        if self._socket is not None and self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)

    async def analyze_batch(self, space_id: str, requests: Sequence[AnalysisRequest]) -> list[Analysis | Exception]:
        """Send photos to the process and return its analyses.

        Raises:
            WorkerStoppedError: The process was killed because it exceeded a timeout.
            WorkerEndedError: The process ended, or was killed because it sent anything else.
        """
        if self._socket is None:
            raise WorkerEndedError("The worker was not started.")
        self._stop_watching()
        self._check = asyncio.get_running_loop().call_later(CHECK_INTERVAL_S, self._check_decoding)
        try:
            async with asyncio.timeout(self._group.timeout_s * len(requests)):
                await _send_message(self._socket, PhotoBatch(space_id, list(requests)))
                results = decode_results(await _receive_message(self._socket))
        except TimeoutError as error:
            self._kill_process()
            raise WorkerStoppedError(f"The worker {self.pid} was stopped: it took too long.") from error
        except (EOFError, OSError) as error:
            if self._slow_photo is not None:
                detail = f"The worker {self.pid} was stopped: decoding a photo took too long."
                raise WorkerStoppedError(detail, self._slow_photo) from error
            raise WorkerEndedError(f"The worker {self.pid} ended.") from error
        except Exception as error:  # the message is not a list of results
            self._kill_process()
            raise WorkerEndedError(f"The worker {self.pid} was stopped: {error}.") from error
        finally:
            self._check.cancel()
        if len(results) != len(requests):
            self._kill_process()
            raise WorkerEndedError(f"The worker {self.pid} was stopped: it returned results for other photos.")
        return results

    def _check_decoding(self) -> None:
        """Stop the process if it has decoded one photo for too long; look again later otherwise."""
        decoding = self._group.decoding_watch.find_decoding(self._number)
        if decoding is not None:
            try:
                used = psutil.Process(self.pid).cpu_times()
            except psutil.Error:
                return
            if used.user + used.system - decoding.started_s > self._group.decode_timeout_s:
                self._slow_photo = decoding.position
                self._kill_process()
                return
        self._check = asyncio.get_running_loop().call_later(CHECK_INTERVAL_S, self._check_decoding)

    def _kill_process(self) -> None:
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.kill(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Close the connection, so that the process ends, and wait until it has."""
        if self._socket is None:
            return
        self._stop_watching()
        with suppress(OSError, EOFError):
            self._socket.shutdown(socket.SHUT_WR)
            await _receive_message(self._socket)
        self._socket.close()


async def _receive_message(source: socket.socket) -> bytearray:
    loop = asyncio.get_running_loop()
    (length,) = LENGTH_HEADER.unpack(await _receive_exactly(loop, source, LENGTH_HEADER.size))
    if length > MAX_MESSAGE_BYTES:
        raise EOFError(f"a message of {length} bytes is not a message of this protocol")
    return await _receive_exactly(loop, source, length)


async def _receive_exactly(loop: asyncio.AbstractEventLoop, source: socket.socket, length: int) -> bytearray:
    received = bytearray(length)
    view, offset = memoryview(received), 0
    while offset < length:
        count = await loop.sock_recv_into(source, view[offset:])
        if not count:
            raise EOFError
        offset += count
    return received


async def _send_message(target: socket.socket, message: PhotoBatch) -> None:
    await asyncio.get_running_loop().sock_sendall(target, encode_message(message))
