"""Watches of sources: that they end when they are told to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from vultus.domain.sources import SourceProblem
from vultus.services.sources.watching import FrameRates, SourceWatch
from vultus.sources.messages import SourceLostNotice


class Observer:
    """Takes note of nothing."""

    async def handle_loss(self, problem: SourceProblem) -> None:
        del problem


@pytest.mark.parametrize("turns", range(5))
async def test_a_watch_ends_although_a_notice_came_at_that_moment(turns: int) -> None:
    notices: asyncio.Queue[SourceLostNotice] = asyncio.Queue()
    feed: Any = SimpleNamespace(receive=notices.get, request_frame=lambda _: None, close=lambda: None)
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
