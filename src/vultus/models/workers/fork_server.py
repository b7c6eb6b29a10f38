"""Workers that are processes: the event loop has Python's lock to itself, and a decoder that dies takes nothing along.

The networks are loaded once, by a process forked from this one before it has threads; it then forks the workers, which
share its memory until they write to it, and forks another whenever one has died. It never has a thread of its own.
Networks that do not survive a fork are loaded by every worker for itself.
"""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import os
import pickle
import signal
import socket
import struct
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from functools import partial
from mmap import mmap
from typing import TYPE_CHECKING, Any, NoReturn

from vultus.domain import Analysis
from vultus.errors import SetupError, VultusError
from vultus.models.imaging.pixel_budget import SharedPixelBudget
from vultus.models.runtime import all_cores
from vultus.models.workers.worker import WorkerEndedError, describe_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vultus.models.pipeline import Asked, FacePipeline
    from vultus.models.pipelines import Pipelines

log = logging.getLogger(__name__)

LENGTH = struct.Struct("<Q")
ARRAYS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
}
"""What NumPy's arrays and numbers are pickled with."""

BUILTINS = {"bytearray", "frozenset", "set", "RuntimeError"}
VALUES = {"vultus.domain.policies", "vultus.domain.faces", "vultus.domain.galleries", "vultus.errors"}
BEGIN_S = 60.0
"""Longest time a worker takes to begin, its own networks loaded."""

MOST_BYTES = 1 << 30
"""Longest message of a worker that is read."""


class Processes:
    """Loads networks in a process of their own, and has it fork workers.

    Make it before the process has threads or anything open that a child should not hold.

    Args:
        load: Loads the networks, in the other process.
        pixel_budget: Of all workers together.
        patience_s: A worker that takes longer for a photo is stopped.
        shared: Whether the networks survive a fork.
    """

    def __init__(
        self, load: Callable[[], Pipelines], *, pixel_budget: int, patience_s: float, shared: bool = True
    ) -> None:
        self.workers: list[ProcessWorker] = []
        self.patience_s = patience_s
        self.crowd = mmap(-1, 1)  # shared with every child
        self._socket, theirs = socket.socketpair()
        self._pid = os.fork()
        if not self._pid:
            _leave_parent(theirs)
            _end_with(lambda: _nurse(theirs, load, self.crowd, pixel_budget, shared=shared))
        theirs.close()
        self._socket.setblocking(False)

    async def ready(self) -> Pipelines:
        """Wait until the networks are loaded; return what is known of them here, where none can run.

        Raises:
            WeightsError: A file is missing or not the published one.
            SetupError: The process ended.
        """
        try:
            loaded = pickle.loads(await _receive(self._socket))  # noqa: S301  our own child, before any photo
        except EOFError:
            raise SetupError("The process that loads the networks ended; is there enough memory?") from None
        if isinstance(loaded, Exception):
            raise loaded
        pipelines: Pipelines = loaded
        return pipelines

    async def start(self, count: int) -> None:
        """Fork so many workers.

        Raises:
            SetupError: They end before they begin.
        """
        self.workers = [ProcessWorker(self) for _ in range(count)]
        try:
            await asyncio.gather(*(worker.replace() for worker in self.workers))
        except WorkerEndedError as error:
            raise SetupError(f"{error} Is there enough memory?") from error

    def fork(self) -> socket.socket:
        """Have a worker forked and return the socket to talk to it.

        Raises:
            WorkerEndedError: The process that forks is gone.
        """
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self._socket, [b"w"], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise WorkerEndedError("The process that makes workers is gone.") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        return ours

    async def close(self) -> None:
        """End the process that forks; the workers were closed by the pool."""
        self._socket.close()
        with suppress(ChildProcessError):
            await asyncio.to_thread(os.waitpid, self._pid, 0)


class ProcessWorker:
    """A forked process behind a socket.

    Attributes:
        pid: Of the process.
    """

    def __init__(self, crew: Processes) -> None:
        self.pid = 0
        self._crew = crew
        self._socket: socket.socket | None = None

    async def replace(self) -> None:
        """Fork another process."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._crew.fork()
        try:
            async with asyncio.timeout(BEGIN_S):
                self.pid = pickle.loads(await _receive(self._socket))  # noqa: S301  it has seen no photo yet
        except (EOFError, TimeoutError) as error:
            raise WorkerEndedError("A worker ended before it began.") from error

    async def describe(self, pipeline: FacePipeline, asked: Sequence[Asked]) -> list[Analysis | Exception]:
        """Send photos, receive analyses."""
        if self._socket is None:
            raise WorkerEndedError("The worker was not started.")
        try:
            async with asyncio.timeout(self._crew.patience_s * len(asked)):
                await _send(self._socket, (pipeline.contract.id, asked))
                answers = _read_answers(await _receive(self._socket))
        except TimeoutError as error:
            self._kill()
            raise WorkerEndedError(f"The worker {self.pid} was stopped: it took too long.") from error
        except (EOFError, OSError) as error:
            raise WorkerEndedError(f"The worker {self.pid} ended.") from error
        except Exception as error:  # whatever it sent, it is no answer
            self._kill()
            raise WorkerEndedError(f"The worker {self.pid} was stopped: {error}.") from error
        if len(answers) != len(asked):
            self._kill()
            raise WorkerEndedError(f"The worker {self.pid} was stopped: it answered for other photos.")
        return answers

    def _kill(self) -> None:
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.kill(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Tell the process to end, and wait until it has."""
        if self._socket is None:
            return
        with suppress(OSError, EOFError):
            self._socket.shutdown(socket.SHUT_WR)
            await _receive(self._socket)
        self._socket.close()


class _Answers(pickle.Unpickler):
    """Reads what a worker sends: values of the domain, errors and arrays, nothing that could run code here.

    A worker decodes what strangers send; whoever takes one over must not have this process too.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function by name, if it is one of these."""
        if (module, name) in ARRAYS or (module == "builtins" and name in BUILTINS):
            return super().find_class(module, name)
        if module in VALUES and "." not in name:
            found = super().find_class(module, name)
            ours = isinstance(found, type) and found.__module__ == module
            if ours and (is_dataclass(found) or issubclass(found, Enum | VultusError)):
                return found
        raise pickle.UnpicklingError(f"a worker sent {module}.{name}")


def _read_answers(received: bytes) -> list[Analysis | Exception]:
    answers = _Answers(io.BytesIO(received)).load()
    if not isinstance(answers, list) or not all(isinstance(one, Analysis | Exception) for one in answers):
        raise pickle.UnpicklingError("a worker sent something else than analyses")
    return answers


async def _receive(source: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    (length,) = LENGTH.unpack(await _exactly(loop, source, LENGTH.size))
    if length > MOST_BYTES:
        raise EOFError(f"a message of {length} bytes is none of ours")
    return bytes(await _exactly(loop, source, length))


async def _exactly(loop: asyncio.AbstractEventLoop, source: socket.socket, length: int) -> bytearray:
    received = bytearray(length)
    view, at = memoryview(received), 0
    while at < length:
        count = await loop.sock_recv_into(source, view[at:])
        if not count:
            raise EOFError
        at += count
    return received


async def _send(target: socket.socket, value: Any) -> None:
    await asyncio.get_running_loop().sock_sendall(target, _packed(value))


def _packed(value: Any) -> bytes:
    packed = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(packed)) + packed


def _leave_parent(keep: socket.socket) -> None:
    """Forget, in a child, what was its parent's: signals, and whatever it had open."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM):  # for the parent, which ends its children in order
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers: the system forgets them
    # Objects of the parent's must not be collected here: they would close descriptors that are others by then.
    gc.freeze()
    os.closerange(3, keep.fileno())
    os.closerange(keep.fileno() + 1, os.sysconf("SC_OPEN_MAX"))


def _end_with(work: Callable[[], object]) -> NoReturn:
    """Run a child's work and end without anything of the parent's being run."""
    status = 1
    try:
        work()
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0  # the parent is gone, or done with us
    except Exception:
        log.exception("a process for the networks failed")
    finally:
        os._exit(status)


def _nurse(
    parent: socket.socket, load: Callable[[], Pipelines], crowd: mmap, pixel_budget: int, *, shared: bool
) -> None:
    """Load the networks, then fork a worker for every socket that comes."""
    networks = partial(_loaded, load, SharedPixelBudget(pixel_budget))
    common = _tell(parent, networks) if shared else None
    begun = common if shared else _in_child(lambda: _tell(parent, networks))
    if not begun:
        return
    while True:
        word, descriptors, _, _ = socket.recv_fds(parent, 1, 1)
        if not word:
            return
        with socket.socket(fileno=descriptors[0]) as pool:
            if not os.fork():
                parent.close()
                _end_with(lambda: _work(pool, common or networks(), crowd))


def _loaded(load: Callable[[], Pipelines], budget: SharedPixelBudget) -> Pipelines:
    pipelines = load()
    for pipeline in pipelines:
        pipeline.budget = budget
    gc.freeze()
    return pipelines


def _tell(parent: socket.socket, networks: Callable[[], Pipelines]) -> Pipelines | None:
    """Load the networks and say what they are, or what is wrong with them; return them if nothing is."""
    try:
        pipelines = networks()
    except VultusError as error:
        parent.sendall(_packed(error))
        return None
    parent.sendall(_packed(pipelines.told()))
    return pipelines


def _in_child(work: Callable[[], object]) -> bool:
    """Do some work in a forked process and say whether it came to its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if not pid:
        _end_with(work)
    _, status = os.waitpid(pid, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    return status == 0


def _work(pool: socket.socket, pipelines: Pipelines, crowd: mmap) -> None:
    """Describe batches until the pool hangs up."""
    stream = pool.makefile("rwb")
    stream.write(_packed(os.getpid()))
    stream.flush()
    while head := stream.read(LENGTH.size):
        contract_id, asked = pickle.loads(stream.read(LENGTH.unpack(head)[0]))  # noqa: S301  from the parent
        with all_cores(lambda: crowd[0] <= 1):  # as long as it is one photo and nobody else's waits
            answers = describe_batch(pipelines.of(contract_id), asked)
        stream.write(_packed([_told(answer) for answer in answers]))
        stream.flush()
        del asked, answers


def _told(answer: Analysis | Exception) -> Analysis | Exception:
    """Return what the parent is told: a defect stays in this process's log."""
    if not isinstance(answer, Exception) or isinstance(answer, VultusError):
        return answer
    log.error("an analysis failed", exc_info=answer)
    return RuntimeError(f"An analysis failed with {type(answer).__name__}; the worker's log has the trace.")
