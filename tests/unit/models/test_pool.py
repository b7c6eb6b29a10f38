"""The pool answers everyone: with an analysis, with a refusal, or with the news that it closes."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, cast

import pytest
from tests.faces import portrait

from vultus.domain import Analysis
from vultus.errors import NotAnImageError, OverloadedError, UnavailableError
from vultus.models.pool import AnalysisPool
from vultus.settings import InferenceSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.models.pipeline import FacePipeline


class SlowPipeline:
    """Answers a photo when its gate opens, and remembers which photos it saw."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.seen: list[bytes] = []

    def describe(self, photo: bytes, *, embed: bool = True, **_: bool) -> Analysis:
        self.seen.append(photo)
        self.entered.set()
        self.gate.wait(10)
        return Analysis(1, 1, photo.decode(), (), {"embed": float(embed)})


@pytest.fixture
def slow() -> Iterator[SlowPipeline]:
    pipeline = SlowPipeline()
    yield pipeline
    pipeline.gate.set()


class SlowPool(AnalysisPool):
    """A pool whose photos all go to one slow pipeline."""

    def __init__(self, slow: SlowPipeline, *, workers: int = 1, max_queue: int = 2) -> None:
        super().__init__(InferenceSettings(workers=workers, max_queue=max_queue))
        self.slow = cast("FacePipeline", slow)

    async def take(self, photo: bytes, *, embed: bool = True) -> Analysis:
        return await self.analyze(photo, self.slow, embed=embed)


async def running(slow: SlowPipeline) -> None:
    await asyncio.to_thread(slow.entered.wait, 5)


async def test_a_photo_is_described_with_the_time_it_waited(pipeline: FacePipeline) -> None:
    async with AnalysisPool(InferenceSettings(workers=2)) as pool:
        analysis = await pool.analyze(portrait(), pipeline)

    assert len(analysis.faces) == 1
    assert set(analysis.timings_ms) == {"queue", "decode", "detect", "align", "embed"}


async def test_failures_of_the_pipeline_reach_the_caller(pipeline: FacePipeline) -> None:
    async with AnalysisPool(InferenceSettings(workers=1)) as pool:
        with pytest.raises(NotAnImageError):
            await pool.analyze(b"no photo", pipeline)

        assert pool.waiting == 0


async def test_a_full_pool_refuses_at_once_and_has_room_again_later(slow: SlowPipeline) -> None:
    async with SlowPool(slow, workers=1, max_queue=2) as pool:
        waiting = [asyncio.create_task(pool.take(b"%d" % i)) for i in range(3)]
        await running(slow)

        with pytest.raises(OverloadedError, match="All 3 places"):
            await pool.take(b"one too many")
        slow.gate.set()

        assert [(await task).sha256 for task in waiting] == ["0", "1", "2"]
        assert (await pool.take(b"later")).sha256 == "later"


async def test_whoever_hangs_up_while_waiting_never_reaches_the_networks(slow: SlowPipeline) -> None:
    async with SlowPool(slow, workers=1, max_queue=1) as pool:
        first = asyncio.create_task(pool.take(b"first"))
        await running(slow)
        second = asyncio.create_task(pool.take(b"second"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second

        third = asyncio.create_task(pool.take(b"third"))
        await asyncio.sleep(0)
        slow.gate.set()
        await asyncio.gather(first, third)

    assert slow.seen == [b"first", b"third"]


async def test_closing_finishes_what_runs_and_answers_who_waits(slow: SlowPipeline) -> None:
    pool = SlowPool(slow, workers=1, max_queue=2)
    tasks = [asyncio.create_task(pool.take(b"%d" % i)) for i in range(3)]
    await running(slow)

    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError):
        await pool.take(b"too late")
    slow.gate.set()
    await closing

    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], Analysis)
    assert [type(answer) for answer in answers[1:]] == [UnavailableError, UnavailableError]
    assert slow.seen == [b"0"]


async def test_whether_vectors_are_wanted_reaches_the_pipeline(slow: SlowPipeline) -> None:
    slow.gate.set()
    async with SlowPool(slow) as pool:
        assert (await pool.take(b"a", embed=False)).timings_ms["embed"] == 0
