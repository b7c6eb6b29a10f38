"""What the processes of a worker group do: the keeper, the fork server and the workers.

Their sockets are their lifelines: each ends when the other end of its socket is closed.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vultus.errors import VultusError
from vultus.models.imaging.memory_budget import SharedMemoryBudget
from vultus.models.runtime import use_all_cores
from vultus.models.workers.messages import (
    LENGTH_HEADER,
    Hello,
    decode_batch,
    encode_loaded,
    encode_message,
    encode_results,
)
from vultus.models.workers.worker import run_batch
from vultus.utils.confinement import confine_process
from vultus.utils.processes import name_process

if TYPE_CHECKING:
    from collections.abc import Callable  # noqa: TC004  annotations are not evaluated
    from mmap import mmap  # noqa: TC004

    from vultus.domain import Analysis
    from vultus.models.pipelines import PipelineRegistry  # noqa: TC004
    from vultus.models.workers.decoding_watch import DecodingWatch  # noqa: TC004

log = logging.getLogger(__name__)

WORKER_HEADER = struct.Struct("<H")
"""Message to the fork server: the number of the worker to fork. A socket comes with it."""

WORKER_NICENESS = 5
"""Workers keep every core busy; whoever answers requests, refusals among them, needs a moment of one at once."""


@dataclass(frozen=True, slots=True)
class Nursery:
    """What workers are made of.

    Attributes:
        load_pipelines: Loads the networks.
        in_flight: One byte shared by all processes, the number of photos in flight.
        decoding_watch: Memory shared by all processes.
        memory_budget: Bytes for decoding, shared by all workers.
        shared: Whether the networks are fork-safe, and so loaded once.
    """

    load_pipelines: Callable[[], PipelineRegistry]
    in_flight: mmap
    decoding_watch: DecodingWatch
    memory_budget: int
    shared: bool


def fork_keeper(nursery: Nursery) -> tuple[int, socket.socket]:
    """Fork the process that forks fork servers; return its process id and a socket connected to it."""
    near, far = socket.socketpair()
    pid = os.fork()
    if not pid:
        _reset_inherited_state(far)
        _run_and_exit(lambda: _run_keeper(far, nursery))
    far.close()
    return pid, near


def _run_keeper(parent: socket.socket, nursery: Nursery) -> None:
    """Fork a fork server for every socket received from the parent; end after them."""
    name_process("vultus-keeper")
    budget = SharedMemoryBudget(nursery.memory_budget)  # here, so that workers of two fork servers share it
    while True:
        message, descriptors, _, _ = socket.recv_fds(parent, 1, 1)
        if not message:
            break
        with socket.socket(fileno=descriptors[0]) as server:
            if not os.fork():
                parent.close()
                _run_and_exit(lambda: _run_fork_server(server, nursery, budget))
    parent.close()
    with suppress(ChildProcessError):
        os.wait()


def _reset_inherited_state(keep: socket.socket) -> None:
    """Reset signal handlers, and let go of what the file descriptors inherited from the parent refer to."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent handles them and ends its children
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process waits for workers: the kernel reaps them
    # The parent's objects still know the numbers of their descriptors, and may write to them or close them: the numbers
    # must not be given to sockets of ours, so they are not closed.
    gc.freeze()
    null = os.open(os.devnull, os.O_RDWR)
    for inherited in sorted(int(entry.name) for entry in Path("/dev/fd").iterdir()):
        if inherited > 2 and inherited not in (keep.fileno(), null):
            os.dup2(null, inherited)


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


def _run_fork_server(parent: socket.socket, nursery: Nursery, budget: SharedMemoryBudget) -> None:
    """Load the networks, then fork a worker for every socket received from the parent."""
    name_process("vultus-forker")
    load_networks = partial(_load_pipelines, nursery.load_pipelines, budget)
    common = _load_and_report(parent, load_networks) if nursery.shared else None
    begun = common if nursery.shared else _run_in_child(lambda: _load_and_report(parent, load_networks))
    if not begun:
        return
    while True:
        message, descriptors, _, _ = socket.recv_fds(parent, WORKER_HEADER.size, 1)
        if not message:
            return
        (number,) = WORKER_HEADER.unpack(message)
        with socket.socket(fileno=descriptors[0]) as pool:
            if not os.fork():
                parent.close()
                _run_and_exit(partial(_run_worker, pool, common, load_networks, nursery, number))


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


def _run_worker(
    pool_socket: socket.socket,
    common: PipelineRegistry | None,
    load_networks: Callable[[], PipelineRegistry],
    nursery: Nursery,
    number: int,
) -> None:
    """Analyse batches, with common networks or its own, until the pool closes the socket, or an analysis fails.

    After a failure that nobody foresaw, such as one for want of memory, the process may fail at every photo: it ends,
    and the pool replaces it.
    """
    name_process("vultus-worker")
    pipelines = common or load_networks()
    for pipeline in pipelines:
        pipeline.on_decoding = partial(nursery.decoding_watch.record_decoding, number)
    nursery.decoding_watch.record_decoding(number, None)  # whatever the last worker of this number was doing
    os.nice(WORKER_NICENESS)
    confine_process(decoding_bytes=nursery.memory_budget)
    stream = pool_socket.makefile("rwb")
    stream.write(encode_message(Hello(os.getpid())))
    stream.flush()
    while head := stream.read(LENGTH_HEADER.size):
        batch = decode_batch(stream.read(LENGTH_HEADER.unpack(head)[0]))
        with use_all_cores(lambda: nursery.in_flight[0] <= 1):  # the only photo in flight
            results = run_batch(pipelines, batch.space_id, batch.requests)
        stream.write(encode_results(results))
        stream.flush()
        if _log_defects(results):
            return
        del batch, results


def _log_defects(results: list[Analysis | Exception]) -> bool:
    """Log what the parent is not sent, the traces of defects, and return whether there were any."""
    defects = [one for one in results if isinstance(one, Exception) and not isinstance(one, VultusError)]
    for defect in defects:
        log.error("an analysis failed", exc_info=defect)
    return bool(defects)
