"""Processes that decode sources, seen from the server: started, asked for frames, and replaced when they end."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from vultus.domain.source_addresses import AllowedSources, SourceAddress
from vultus.domain.sources import SourceProblem
from vultus.sources.messages import (
    LENGTH_HEADER,
    MAX_MESSAGE_BYTES,
    CloseSource,
    Command,
    FrameTaken,
    Notice,
    OpenSource,
    Permit,
    Ping,
    Pong,
    RequestFrame,
    SourceLostNotice,
    decode_notice,
    encode_message,
)

log = logging.getLogger(__name__)

PASSED_VARIABLES = ("PATH", "HOME", "LANG", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
PASSED_PREFIXES = ("PYTHON", "LC_", "COVERAGE_", "CUDA_", "NVIDIA_")
"""Of the environment a decoder gets these: nothing of this service's settings."""

PING_INTERVAL_S, PING_TIMEOUT_S = 5.0, 20.0
FIRST_RESTART_S, MAX_RESTART_S = 1.0, 30.0
"""Pauses before a process is replaced: doubled up to the longest, each ± a quarter."""

STEADY_S = 60.0
"""After a process has run for so long, the first pause is short again."""

SUSPECT_S = 600.0
"""After a process has ended, it gets no further sources for so long."""


@dataclass(frozen=True, slots=True)
class SourceOpening:
    """How a source is to be opened; as in `OpenSource`."""

    address: SourceAddress
    allowed: AllowedSources
    is_played: bool = True
    interval_s: float = 0.2
    max_side_px: int = 1280
    open_timeout_s: float = 10.0
    read_timeout_s: float = 10.0
    hardware: str | None = None


class SourceFeed:
    """One source that is being decoded.

    Attributes:
        opening: How it was opened.
        process: Decodes it.
    """

    def __init__(self, opening: SourceOpening, process: DecoderProcess, number: int) -> None:
        self.opening = opening
        self.process = process
        self._number = number
        self._notices: deque[FrameTaken | SourceLostNotice] = deque()
        self._has_news = asyncio.Event()
        self._requested_interval_s: float | None = None
        self._is_awaited = False

    @property
    def pid(self) -> int:
        """Id of the process that decodes it."""
        return self.process.pid

    async def receive(self) -> FrameTaken | SourceLostNotice:
        """Wait for the frame that was requested, or for news that the source was lost, whichever comes first."""
        while not self._notices:
            self._has_news.clear()
            await self._has_news.wait()
        notice = self._notices.popleft()
        if isinstance(notice, FrameTaken):
            self._is_awaited = False
        return notice

    def request_frame(self, interval_s: float) -> None:
        """Request the newest frame, unless one is awaited; the next one is requested after about `interval_s`."""
        if not self._is_awaited:
            self._is_awaited = True
            self._requested_interval_s = interval_s
            self.repeat_request()

    def repeat_request(self) -> None:
        """Send the request that was not answered yet, if there is one: to a process that has just started."""
        if self._requested_interval_s is not None:
            self.process.send(RequestFrame(self._number, self._requested_interval_s))

    def handle_notice(self, notice: FrameTaken | SourceLostNotice) -> None:
        """Keep a notice until it is received: no frame that was not requested, and no loss after another."""
        if isinstance(notice, FrameTaken):
            if self._requested_interval_s is None:
                return
            self._requested_interval_s = None
        elif self._notices and isinstance(self._notices[-1], SourceLostNotice):
            self._notices.pop()
        self._notices.append(notice)
        self._has_news.set()

    def restart_process(self) -> None:
        """End the process that decodes it, which hangs; another takes its place."""
        self.process.kill()

    def close(self) -> None:
        """Close the source."""
        self.process.remove_feed(self._number)


class DecoderPool:
    """Distributes sources over processes; those of one are allowed the same.

    Of the sources of a process that ended, half go to another one: after a few times that which ends its process is
    alone, and does so to no other.

    Args:
        sources_per_process: Sources that share a process, at most.
    """

    def __init__(self, *, sources_per_process: int = 8) -> None:
        self._sources_per_process = sources_per_process
        self._processes: list[DecoderProcess] = []
        self._next_number = 0

    def open_feed(self, opening: SourceOpening) -> SourceFeed:
        """Return a feed of a source, which is opened in the least busy process that has room, or a new one."""
        self._processes = [one for one in self._processes if not one.is_closed]
        room = [
            one
            for one in self._processes
            if one.allowed == opening.allowed and len(one.feeds) < self._sources_per_process and not one.is_suspect
        ]
        process = min(room, key=lambda one: len(one.feeds)) if room else self._add_process(opening.allowed)
        self._next_number += 1
        feed = SourceFeed(opening, process, self._next_number)
        process.take_feed(self._next_number, feed)
        return feed

    def _add_process(self, allowed: AllowedSources) -> DecoderProcess:
        process = DecoderProcess(allowed, self._divide_feeds)
        self._processes.append(process)
        return process

    def _divide_feeds(self, ended: DecoderProcess) -> None:
        """Give half of the sources of a process that ended to another."""
        moved = list(ended.feeds)[(len(ended.feeds) + 1) // 2 :]
        if moved:
            other = self._add_process(ended.allowed)
            other.ended_at = ended.ended_at
            for number in moved:
                other.take_feed(number, ended.feeds.pop(number))

    @property
    def pids(self) -> list[int]:
        """Ids of the processes that run."""
        return [one.pid for one in self._processes if one.pid]

    async def close(self) -> None:
        """End every process."""
        await asyncio.gather(*(one.close() for one in self._processes))
        self._processes = []


@dataclass(eq=False)
class DecoderProcess:
    """One process, and another whenever it has ended, until it has no sources.

    Attributes:
        allowed: What it may open, for good.
        on_end: Is called when it has ended by itself, before another takes its place.
        feeds: Its sources, by number.
        pid: Id of the process; 0 while there is none.
        is_closed: Whether it had no sources any more, and so ended.
        ended_at: When the last one ended by itself, by the clock of `time.monotonic`.
    """

    allowed: AllowedSources
    on_end: Callable[[DecoderProcess], None]
    feeds: dict[int, SourceFeed] = field(default_factory=dict)
    pid: int = 0
    is_closed: bool = False
    ended_at: float = -math.inf
    _writer: asyncio.StreamWriter | None = None
    _task: asyncio.Task[None] | None = None
    _has_answered: bool = False

    @property
    def is_suspect(self) -> bool:
        """Whether one of its sources may be such as ends its process."""
        return time.monotonic() - self.ended_at < SUSPECT_S

    def take_feed(self, number: int, feed: SourceFeed) -> None:
        """Open a source in this process."""
        feed.process, self.feeds[number] = self, feed
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        else:
            self._send_opening(number, feed)

    def remove_feed(self, number: int) -> None:
        """Close a source; after the last one the process ends."""
        if self.feeds.pop(number, None) is None:
            return
        self.send(CloseSource(number))
        if not self.feeds:
            self.is_closed = True
            if self._writer is not None:
                self._writer.close()

    def send(self, command: Command) -> None:
        """Send a command; nothing while no process runs."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode_message(command))

    def kill(self) -> None:
        """End the process by force."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """End the process and wait until it has."""
        for number in list(self.feeds):
            self.remove_feed(number)
        if self._task is not None:
            await asyncio.wait({self._task})

    def _send_opening(self, number: int, feed: SourceFeed) -> None:
        opening = feed.opening
        self.send(
            OpenSource(
                number,
                opening.address.text,
                opening.is_played,
                opening.interval_s,
                opening.max_side_px,
                opening.open_timeout_s,
                opening.read_timeout_s,
                opening.hardware,
            )
        )
        feed.repeat_request()

    async def _run(self) -> None:
        """Run processes, one after another, until there are no sources."""
        delay_s = FIRST_RESTART_S
        while not self.is_closed:
            started = time.monotonic()
            try:
                await self._run_process()
            except OSError:
                log.exception("a process that decodes sources could not be started")
            if self.is_closed:
                break
            log.error("A process that decodes sources ended; another is started.")
            self.ended_at = time.monotonic()
            for number, feed in self.feeds.items():
                feed.handle_notice(SourceLostNotice(number, SourceProblem.DECODER_ENDED))
            self.on_end(self)
            if time.monotonic() - started > STEADY_S:
                delay_s = FIRST_RESTART_S
            await asyncio.sleep(delay_s * random.uniform(0.75, 1.25))  # noqa: S311
            delay_s = min(2 * delay_s, MAX_RESTART_S)

    async def _run_process(self) -> None:
        near, far = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "vultus.sources.process"),
                stdin=far.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                env=_select_environment(),
                start_new_session=True,  # Ctrl-C is for the server, which ends it
            )
        except BaseException:
            near.close()
            raise
        finally:
            far.close()
        self.pid = process.pid
        reader, self._writer = await asyncio.open_unix_connection(sock=near)
        if self.is_closed:  # while it was started
            self._writer.close()
        self._has_answered = True
        # A test run that counts lines writes a file for each process.
        writable = (str(Path.cwd()),) if "COVERAGE_PROCESS_CONFIG" in os.environ else ()
        self.send(Permit(self.allowed.entries, writable))
        for number, feed in self.feeds.items():
            self._send_opening(number, feed)
        watching = asyncio.create_task(self._watch_process())
        try:
            await self._receive_notices(reader)
        finally:
            watching.cancel()
            self._writer.close()
            self._writer = None
            if process.returncode is None:
                self.kill()  # not by `process`, which would wait for it a second time, and warn
            await process.wait()
            self.pid = 0

    async def _receive_notices(self, reader: asyncio.StreamReader) -> None:
        """Hand notices to their feeds until the process ends, or sends what is none."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = LENGTH_HEADER.unpack(await reader.readexactly(LENGTH_HEADER.size))
                if length > MAX_MESSAGE_BYTES:
                    break
                try:
                    notice: Notice = decode_notice(await reader.readexactly(length))
                except msgspec.MsgspecError:
                    break
                if isinstance(notice, Pong):
                    self._has_answered = True
                elif feed := self.feeds.get(notice.number):
                    feed.handle_notice(notice)

    async def _watch_process(self) -> None:
        """Kill the process if it does not answer."""
        while self._has_answered:
            self._has_answered = False
            self.send(Ping())
            for _ in range(round(PING_TIMEOUT_S / PING_INTERVAL_S)):
                await asyncio.sleep(PING_INTERVAL_S)
                if self._has_answered:
                    break
        log.error("A process that decodes sources does not answer; it is replaced.")
        self.kill()


def _select_environment() -> dict[str, str]:
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_VARIABLES or name.startswith(PASSED_PREFIXES)
    }
    return passed | {"OPENBLAS_NUM_THREADS": "1"}  # what threads it has before it is shut in would not be
