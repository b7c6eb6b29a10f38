"""Watching a source: its frames go to a stream, as many as what is going on calls for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from vultus.domain import Frame
from vultus.domain.sources import SourceProblem
from vultus.errors import ImageError, OverloadedError, SearchLimitError, UnavailableError
from vultus.sources.messages import FrameTaken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vultus.domain import FrameResult
    from vultus.services.live.stream import LiveStream
    from vultus.sources.pool import SourceFeed

log = logging.getLogger(__name__)

ALERT_S = 3.0
"""How long after the last face a source is still watched at its full pace."""

STALL_S = 120.0
"""A source of which nothing is heard for so long beyond its timeouts, not even that it is lost, hangs: its process is
replaced."""

FIGURES_S = 10.0


@dataclass(frozen=True, slots=True)
class FrameRates:
    """How many frames of a source are processed.

    Attributes:
        fps: Frames a second while somebody is there.
        idle_fps: Frames a second while nobody is.
    """

    fps: float
    idle_fps: float


@dataclass(slots=True)
class SourceFigures:
    """What became of a source's frames.

    Attributes:
        last_frame_at: When the last one was taken.
        processed: Since the watch began.
        dropped: Frames that were requested and not processed, because photos and other frames took all places.
    """

    last_frame_at: datetime | None = None
    processed: int = 0
    dropped: int = 0
    _recent: deque[float] = field(default_factory=deque)

    def count_frame(self, taken_at: datetime) -> None:
        """Count a frame that was processed."""
        self.processed += 1
        self.last_frame_at = taken_at
        self._recent.append(time.monotonic())
        self._forget_old()

    @property
    def fps(self) -> float:
        """Frames processed a second, over the last ten seconds."""
        self._forget_old()
        if len(self._recent) < 2:
            return 0.0
        return (len(self._recent) - 1) / max(1e-3, time.monotonic() - self._recent[0])

    def _forget_old(self) -> None:
        while self._recent and self._recent[0] < time.monotonic() - FIGURES_S:
            self._recent.popleft()


class SourceObserver(Protocol):
    """Is told what a watch sees."""

    async def handle_frame(self, taken: FrameTaken, frame: Frame, result: FrameResult) -> None:
        """Take note of a frame that was processed."""
        ...

    async def handle_start(self) -> None:
        """Take note that the source sends frames, at first or again."""
        ...

    async def handle_loss(self, problem: SourceProblem) -> None:
        """Take note that the source could not be opened, or sends nothing any more."""
        ...


class SourceWatch:
    """Feeds the frames of a source to a stream.

    Attributes:
        figures: What became of its frames.
        newest: The last frame that was taken; None while the source sends none.

    Args:
        feed: The source's; closed at the end.
        open_stream: Opens a stream, given by what factor frames are smaller than the video.
        rates: How many frames are processed.
        observer: Is told what happens.
        begins_at: When a recorded video was begun; None for what is seen now.
    """

    def __init__(
        self,
        feed: SourceFeed,
        open_stream: Callable[[float], Awaitable[LiveStream]],
        rates: FrameRates,
        observer: SourceObserver,
        *,
        begins_at: datetime | None = None,
    ) -> None:
        self.figures = SourceFigures()
        self.newest: FrameTaken | None = None
        self._feed = feed
        self._open_stream = open_stream
        self._rates = rates
        self._observer = observer
        self._begins_at = begins_at
        self._stream: LiveStream | None = None
        self._size = (0, 0)
        self._alert_until = 0.0
        self._sequence = 0

    async def run(self) -> None:
        """Process frames until the source is finished; a camera never is.

        Raises:
            VultusError: The stream cannot go on: its collection is gone, its key may not.
        """
        stall_s = STALL_S + self._feed.opening.open_timeout_s + self._feed.opening.read_timeout_s
        try:
            while True:
                self._feed.request_frame(self._interval_s)
                started = time.monotonic()
                try:
                    async with asyncio.timeout(stall_s):  # wait_for of Python 3.11 can lose a cancellation
                        notice = await self._feed.receive()
                except TimeoutError:
                    log.error("A source hangs; the process that decodes it is replaced.")
                    self._feed.restart_process()
                    continue
                if not isinstance(notice, FrameTaken):
                    self.newest = None
                    await self._end_stream()
                    await self._observer.handle_loss(notice.problem)
                    if notice.problem is SourceProblem.FINISHED:
                        return
                    continue
                if self._begins_at is not None:
                    self._feed.request_frame(0)  # the next one is decoded while this one is analysed
                await self._process_frame(notice)
                if self._begins_at is None:
                    await asyncio.sleep(max(0.0, started + self._interval_s - time.monotonic()))
        finally:
            self._feed.close()
            await self._end_stream()

    @property
    def _interval_s(self) -> float:
        if self._begins_at is not None:
            return 0.0
        return 1 / (self._rates.fps if time.monotonic() < self._alert_until else self._rates.idle_fps)

    async def _process_frame(self, taken: FrameTaken) -> None:
        self.newest = taken
        if self._begins_at is not None:
            captured_at = self._begins_at + timedelta(seconds=taken.position_s)
        else:
            captured_at = datetime.fromtimestamp(taken.taken_at, UTC)
        if self._size != (taken.width, taken.height):  # its tracks are in pixels of other frames
            await self._end_stream()
            self._size = (taken.width, taken.height)
        if self._stream is None:
            self._stream = await self._open_stream(
                min(1.0, self._feed.opening.max_side_px / max(taken.width, taken.height))
            )
            await self._observer.handle_start()
        self._sequence += 1
        frame = Frame(taken.content, self._sequence, captured_at)
        try:
            result = await self._stream.process_frame(frame)
        except OverloadedError:
            self.figures.dropped += 1
            return
        except (ImageError, SearchLimitError, UnavailableError) as error:
            self.figures.dropped += 1
            log.warning("a frame of a source was not processed: %s", error.detail, extra={"code": error.code})
            return
        self.figures.count_frame(captured_at)
        if result.tracks:
            self._alert_until = time.monotonic() + ALERT_S
        await self._observer.handle_frame(taken, frame, result)

    async def _end_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.end()
