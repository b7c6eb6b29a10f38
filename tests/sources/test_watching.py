"""Watches of sources: that they end when they are told to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from vultus.domain import Frame, FrameResult
from vultus.domain.source_addresses import AllowedSources, SourceAddress
from vultus.domain.sources import SourceProblem
from vultus.services.sources.watching import FrameRates, SourceWatch
from vultus.sources.messages import FrameTaken, SourceLostNotice
from vultus.sources.pool import SourceOpening

ADDRESS = SourceAddress.from_text("/srv/video.mp4")
OPENING = SourceOpening(ADDRESS, AllowedSources(), max_side_px=640)


class Observer:
    """Takes note of nothing."""

    async def handle_start(self) -> None:
        pass

    async def handle_frame(self, *_: object) -> None:
        pass

    async def handle_loss(self, problem: SourceProblem) -> None:
        del problem


class Stream:
    """Sees nobody."""

    def __init__(self, scale: float, ended: list[float]) -> None:
        self._scale, self._ended = scale, ended

    async def process_frame(self, frame: Frame) -> FrameResult:
        return FrameResult(frame.sequence, 640, 360, (), {})

    async def end(self) -> None:
        self._ended.append(self._scale)


@pytest.mark.parametrize("turns", range(5))
async def test_a_watch_ends_although_a_notice_came_at_that_moment(turns: int) -> None:
    notices: asyncio.Queue[SourceLostNotice] = asyncio.Queue()
    feed: Any = SimpleNamespace(receive=notices.get, request_frame=lambda _: None, close=lambda: None, opening=OPENING)
    observer: Any = Observer()
    open_stream: Any = None
    task = asyncio.create_task(SourceWatch(feed, open_stream, FrameRates(5, 1), observer).run())
    await asyncio.sleep(0.01)

    notices.put_nowait(SourceLostNotice(1, SourceProblem.CLOSED))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    ended, _ = await asyncio.wait({task}, timeout=1)
    task.cancel()

    assert ended


async def test_frames_of_another_size_are_another_stream() -> None:
    notices: asyncio.Queue[FrameTaken | SourceLostNotice] = asyncio.Queue()
    feed: Any = SimpleNamespace(receive=notices.get, request_frame=lambda _: None, close=lambda: None, opening=OPENING)
    observer: Any = Observer()
    opened: list[float] = []
    ended: list[float] = []

    async def open_stream(scale: float) -> Any:
        opened.append(scale)
        return Stream(scale, ended)

    for width, height in ((1280, 720), (1280, 720), (2560, 1440), (320, 240)):
        notices.put_nowait(FrameTaken(1, b"", 0.0, 0.0, width, height, 1))
    notices.put_nowait(SourceLostNotice(1, SourceProblem.FINISHED))
    await SourceWatch(feed, open_stream, FrameRates(1000, 1000), observer).run()

    assert opened == ended == [0.5, 0.25, 1.0]
