"""Worker processes: the event loop does not share the GIL with inference; a decoder that crashes ends only its process.

The networks are loaded once, by a fork server: a process forked from this one before it has threads. It then forks the
workers, which share its memory copy-on-write, and forks another whenever one has ended. It never starts threads.
Networks that are not fork-safe are loaded by every worker separately.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from contextlib import suppress
from functools import partial
from mmap import mmap
from typing import TYPE_CHECKING, NoReturn

import msgspec

from vultus.errors import SetupError, VultusError
from vultus.models.imaging.memory_budget import SharedMemoryBudget
from vultus.models.runtime import use_all_cores
from vultus.models.workers.messages import (
    LENGTH_HEADER,
    Hello,
    PhotoBatch,
    decode_batch,
    decode_hello,
    decode_loaded,
    decode_results,
    encode_loaded,
    encode_message,
    encode_results,
)
from vultus.models.workers.worker import WorkerEndedError, run_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vultus.domain import Analysis, SpaceRegistry
    from vultus.models.pipeline import AnalysisRequest
    from vultus.models.pipelines import PipelineRegistry

log = logging.getLogger(__name__)

WORKER_START_TIMEOUT_S = 60.0
"""Longest time until a worker has started, including loading its own networks."""

MAX_MESSAGE_BYTES = 1 << 30
"""Longest message that is read from a worker."""


class ProcessWorkerGroup:
    """Starts a fork server that loads the networks and forks worker processes.

    Create it before the process has threads or open descriptors that a child should not inherit.

    Args:
        load_pipelines: Loads the networks, in the fork server.
        memory_budget: Bytes for decoding, shared by all workers.
        timeout_s: Timeout per photo; a worker that exceeds it is killed.
        shared: Whether the networks are fork-safe, and so loaded once.
    """

    def __init__(
        self,
        load_pipelines: Callable[[], PipelineRegistry],
        *,
        memory_budget: int,
        timeout_s: float,
        shared: bool = True,
    ) -> None:
        self.workers: list[ProcessWorker] = []
        self.timeout_s = timeout_s
        self.in_flight = mmap(-1, 1)  # shared with every child
        self._socket, child_socket = socket.socketpair()
        self._pid = os.fork()
        if not self._pid:
            _reset_inherited_state(child_socket)
            _run_and_exit(
                lambda: _run_fork_server(child_socket, load_pipelines, self.in_flight, memory_budget, shared=shared)
            )
        child_socket.close()
        self._socket.setblocking(False)

    async def wait_until_loaded(self) -> SpaceRegistry:
        """Wait until the networks are loaded; return what services know of them.

        Raises:
            WeightsError: A file is missing or not the published one.
            SetupError: The fork server ended.
        """
        try:
            return decode_loaded(await _receive_message(self._socket))
        except EOFError:
            raise SetupError("The process that loads the networks ended; is there enough memory?") from None

    async def start_workers(self, count: int) -> None:
        """Fork `count` workers.

        Raises:
            SetupError: A worker ended before it had started.
        """
        self.workers = [ProcessWorker(self) for _ in range(count)]
        try:
            await asyncio.gather(*(worker.restart() for worker in self.workers))
        except WorkerEndedError as error:
            raise SetupError(f"{error} Is there enough memory?") from error

    def fork_worker(self) -> socket.socket:
        """Fork a worker and return the socket connected to it.

        Raises:
            WorkerEndedError: The fork server has ended.
        """
        parent_socket, child_socket = socket.socketpair()
        try:
            socket.send_fds(self._socket, [b"w"], [child_socket.fileno()])
        except OSError as error:
            parent_socket.close()
            raise WorkerEndedError("The process that makes workers is gone.") from error
        finally:
            child_socket.close()
        parent_socket.setblocking(False)
        return parent_socket

    async def close(self) -> None:
        """End the fork server; the workers were closed by the pool."""
        self._socket.close()
        with suppress(ChildProcessError):
            await asyncio.to_thread(os.waitpid, self._pid, 0)


class ProcessWorker:
    """A worker process, connected by a socket.

    Attributes:
        pid: Process id.
    """

    def __init__(self, group: ProcessWorkerGroup) -> None:
        self.pid = 0
        self._group = group
        self._socket: socket.socket | None = None

    async def restart(self) -> None:
        """Fork another process.

        Raises:
            WorkerEndedError: The fork server has ended, or the new process did before it had started.
        """
        if self._socket is not None:
            self._socket.close()
        self._socket = self._group.fork_worker()
        try:
            async with asyncio.timeout(WORKER_START_TIMEOUT_S):
                self.pid = decode_hello(await _receive_message(self._socket)).pid
        except (EOFError, TimeoutError) as error:
            raise WorkerEndedError("A worker ended before it began.") from error
        except msgspec.MsgspecError as error:
            self._socket.close()  # which ends the process
            raise WorkerEndedError(f"A worker began with an unknown message: {error}.") from error

    async def analyze_batch(self, space_id: str, requests: Sequence[AnalysisRequest]) -> list[Analysis | Exception]:
        """Send photos to the process and return its analyses.

        Raises:
            WorkerEndedError: The process ended, or was killed because it exceeded its timeout or sent anything else.
        """
        if self._socket is None:
            raise WorkerEndedError("The worker was not started.")
        try:
            async with asyncio.timeout(self._group.timeout_s * len(requests)):
                await _send_message(self._socket, PhotoBatch(space_id, list(requests)))
                results = decode_results(await _receive_message(self._socket))
        except TimeoutError as error:
            self._kill_process()
            raise WorkerEndedError(f"The worker {self.pid} was stopped: it took too long.") from error
        except (EOFError, OSError) as error:
            raise WorkerEndedError(f"The worker {self.pid} ended.") from error
        except Exception as error:  # the message is not a list of results
            self._kill_process()
            raise WorkerEndedError(f"The worker {self.pid} was stopped: {error}.") from error
        if len(results) != len(requests):
            self._kill_process()
            raise WorkerEndedError(f"The worker {self.pid} was stopped: it returned results for other photos.")
        return results

    def _kill_process(self) -> None:
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.kill(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Close the connection, so that the process ends, and wait until it has."""
        if self._socket is None:
            return
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


def _reset_inherited_state(keep: socket.socket) -> None:
    """Reset signal handlers and close file descriptors inherited from the parent."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent handles them and ends its children
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process waits for workers: the kernel reaps them
    # The parent's objects must not be collected here: they would close descriptors whose numbers have been reused.
    gc.freeze()
    os.closerange(3, keep.fileno())
    os.closerange(keep.fileno() + 1, os.sysconf("SC_OPEN_MAX"))


def _run_and_exit(work: Callable[[], object]) -> NoReturn:
    """Run a child's work, then exit without running the parent's cleanup."""
    status = 1
    try:
        work()
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0  # the parent ended or closed the connection
    except Exception:
        log.exception("a process for the networks failed")
    finally:
        os._exit(status)


def _run_fork_server(
    parent: socket.socket,
    load_pipelines: Callable[[], PipelineRegistry],
    in_flight: mmap,
    memory_budget: int,
    *,
    shared: bool,
) -> None:
    """Load the networks, then fork a worker for every socket received from the parent."""
    load_networks = partial(_load_pipelines, load_pipelines, SharedMemoryBudget(memory_budget))
    common = _load_and_report(parent, load_networks) if shared else None
    begun = common if shared else _run_in_child(lambda: _load_and_report(parent, load_networks))
    if not begun:
        return
    while True:
        message, descriptors, _, _ = socket.recv_fds(parent, 1, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as pool:
            if not os.fork():
                parent.close()
                _run_and_exit(lambda: _run_worker(pool, common or load_networks(), in_flight))


def _load_pipelines(load_pipelines: Callable[[], PipelineRegistry], budget: SharedMemoryBudget) -> PipelineRegistry:
    pipelines = load_pipelines()
    for pipeline in pipelines:
        pipeline.budget = budget
    gc.freeze()
    return pipelines


def _load_and_report(parent: socket.socket, load_pipelines: Callable[[], PipelineRegistry]) -> PipelineRegistry | None:
    """Load the networks and send their metadata, or the error, to the parent; return None after an error."""
    try:
        pipelines = load_pipelines()
    except VultusError as error:
        parent.sendall(encode_loaded(error))
        return None
    parent.sendall(encode_loaded(pipelines.spaces))
    return pipelines


def _run_in_child(work: Callable[[], object]) -> bool:
    """Run work in a forked process and return whether it succeeded."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if not pid:
        _run_and_exit(work)
    _, status = os.waitpid(pid, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    return status == 0


def _run_worker(pool_socket: socket.socket, pipelines: PipelineRegistry, in_flight: mmap) -> None:
    """Analyse batches until the pool closes the socket."""
    stream = pool_socket.makefile("rwb")
    stream.write(encode_message(Hello(os.getpid())))
    stream.flush()
    while head := stream.read(LENGTH_HEADER.size):
        batch = decode_batch(stream.read(LENGTH_HEADER.unpack(head)[0]))
        with use_all_cores(lambda: in_flight[0] <= 1):  # the only photo in flight
            results = run_batch(pipelines, batch.space_id, batch.requests)
        _log_defects(results)
        stream.write(encode_results(results))
        stream.flush()
        del batch, results


def _log_defects(results: list[Analysis | Exception]) -> None:
    """Log what the parent is not sent: the traces of defects."""
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, VultusError):
            log.error("an analysis failed", exc_info=result)
