"""Every photo gets an analysis, a refusal, or the error that the pool closes."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, cast

import pytest
from tests.faces import nobody, portrait

from vultus.domain import DETECTION, EMBEDDINGS, Analysis, Lane, Want
from vultus.errors import NotAnImageError, OverloadedError, PackNotLoadedError, UnavailableError
from vultus.models.pipelines import PipelineRegistry
from vultus.models.workers.pool import AnalysisPool
from vultus.models.workers.worker import ThreadWorkerGroup
from vultus.settings import InferenceSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vultus.models.pipeline import AnalysisRequest, FacePipeline
    from vultus.models.workers.admission_queue import SlotReservation


class SlowPipeline:
    """Returns a batch when its gate opens, and records the batches."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[bytes]] = []
        self.wants: list[Want] = []

    def analyze_photos(self, requests: Sequence[AnalysisRequest]) -> list[Analysis]:
        self.batches.append([one.photo for one in requests])
        self.wants += [one.want for one in requests]
        self.entered.set()
        self.gate.wait(10)
        return [Analysis(1, 1, one.photo.decode(), (), {"embed": float(one.want.embed)}) for one in requests]


@pytest.fixture
def slow() -> Iterator[SlowPipeline]:
    pipeline = SlowPipeline()
    yield pipeline
    pipeline.gate.set()


class SlowRegistry:
    """Slow pipelines by the embedding space of each."""

    def __init__(self, slow: SlowPipeline) -> None:
        self.by_space = {"slow": slow}

    def get_pipeline_for_space(self, space_id: str) -> SlowPipeline:
        return self.by_space[space_id]


class SlowPool(AnalysisPool):
    """A pool whose photos all go to one slow pipeline."""

    def __init__(self, slow: SlowPipeline, *, workers: int = 1, max_queue: int = 2, max_batch: int = 1) -> None:
        self.registry = SlowRegistry(slow)
        group = ThreadWorkerGroup(cast("PipelineRegistry", self.registry), workers)
        super().__init__(InferenceSettings(workers=workers, max_queue=max_queue, max_batch=max_batch), group)

    async def submit(
        self,
        photo: bytes,
        want: Want = EMBEDDINGS,
        lane: Lane = Lane.INTERACTIVE,
        *,
        source: str = "",
        reservation: SlotReservation | None = None,
    ) -> Analysis:
        return await self.analyze_photo(photo, "slow", want, lane, source=source, reservation=reservation)

    async def submit_all(self, count: int) -> list[asyncio.Task[Analysis]]:
        """Submit photos named by their numbers, in this order."""
        tasks = [asyncio.create_task(self.submit(b"%d" % i)) for i in range(count)]
        await asyncio.sleep(0)
        return tasks


async def wait_until_entered(slow: SlowPipeline) -> None:
    await asyncio.to_thread(slow.entered.wait, 5)


async def test_an_analysis_reports_the_time_it_waited(pipeline: FacePipeline) -> None:
    async with AnalysisPool(InferenceSettings(workers=2), ThreadWorkerGroup(PipelineRegistry(pipeline), 2)) as pool:
        analysis = await pool.analyze_photo(portrait(), pipeline.space.id)

    assert len(analysis.faces) == 1
    assert set(analysis.timings_ms) == {"queue", "decode", "detect", "align", "embed"}


@pytest.mark.parametrize(("lane", "turned"), [(Lane.INTERACTIVE, True), (Lane.BATCH, True), (Lane.LIVE, False)])
async def test_photos_are_searched_turned_and_frames_are_not(slow: SlowPipeline, lane: Lane, *, turned: bool) -> None:
    slow.gate.set()
    async with SlowPool(slow) as pool:
        await pool.submit(b"photo", DETECTION, lane, source="door")

    assert slow.wants == [Want(embed=False, turned=turned)]


async def test_failures_of_the_pipeline_reach_the_caller(pipeline: FacePipeline) -> None:
    async with AnalysisPool(InferenceSettings(workers=1), ThreadWorkerGroup(PipelineRegistry(pipeline), 1)) as pool:
        with pytest.raises(NotAnImageError):
            await pool.analyze_photo(b"no photo", pipeline.space.id)

        assert pool.in_flight == 0


async def test_photos_of_a_batch_get_the_results_they_get_alone(pipeline: FacePipeline) -> None:
    photos = [portrait(), b"no photo", nobody(), portrait(mirror=True)]
    alone = [pipeline.analyze_photo(photo) if at != 1 else None for at, photo in enumerate(photos)]
    async with AnalysisPool(
        InferenceSettings(workers=1, max_batch=4), ThreadWorkerGroup(PipelineRegistry(pipeline), 1)
    ) as pool:
        busy = asyncio.create_task(pool.analyze_photo(portrait(), pipeline.space.id))
        answers = await asyncio.gather(
            *(pool.analyze_photo(photo, pipeline.space.id) for photo in photos), return_exceptions=True
        )
        await busy

    assert isinstance(answers[1], NotAnImageError)
    for answer, expected in zip(answers, alone, strict=True):
        if expected is not None:
            assert isinstance(answer, Analysis)
            assert answer.sha256 == expected.sha256
            for face, expected_face in zip(answer.faces, expected.faces, strict=True):
                assert face.vector @ expected_face.vector == pytest.approx(1, abs=1e-5)


async def test_waiting_photos_are_batched_in_order(slow: SlowPipeline) -> None:
    async with SlowPool(slow, max_queue=9, max_batch=3) as pool:
        tasks = await pool.submit_all(6)
        await wait_until_entered(slow)
        slow.gate.set()
        await asyncio.gather(*tasks)

    assert slow.batches == [[b"0"], [b"1", b"2", b"3"], [b"4", b"5"]]


async def test_a_batch_leaves_photos_for_a_free_worker(slow: SlowPipeline) -> None:
    async with SlowPool(slow, workers=2, max_queue=9, max_batch=8) as pool:
        tasks = await pool.submit_all(8)
        await wait_until_entered(slow)
        slow.gate.set()
        await asyncio.gather(*tasks)

    assert max(map(len, slow.batches)) == 3  # half of the six that waited


async def test_two_pipelines_do_not_share_a_batch(slow: SlowPipeline) -> None:
    other = SlowPipeline()
    other.gate.set()
    async with SlowPool(slow, max_queue=9, max_batch=8) as pool:
        tasks = await pool.submit_all(2)
        pool.registry.by_space["other"] = other
        tasks.append(asyncio.create_task(pool.analyze_photo(b"2", "other")))
        await wait_until_entered(slow)
        slow.gate.set()
        assert [(await task).sha256 for task in tasks] == ["0", "1", "2"]

    assert (slow.batches, other.batches) == ([[b"0"], [b"1"]], [[b"2"]])


async def test_a_full_pool_refuses_immediately_and_accepts_again_later(slow: SlowPipeline) -> None:
    async with SlowPool(slow, workers=1, max_queue=2) as pool:
        waiting = await pool.submit_all(3)
        await wait_until_entered(slow)

        with pytest.raises(OverloadedError, match="All 3 places") as refused:
            await pool.submit(b"one too many")
        slow.gate.set()

        assert refused.value.facts["retry_after_s"] >= 1
        assert [(await task).sha256 for task in waiting] == ["0", "1", "2"]
        assert (await pool.submit(b"later")).sha256 == "later"


async def test_a_slot_is_reserved_for_a_photo_that_is_still_being_read(slow: SlowPipeline) -> None:
    async with SlowPool(slow, workers=1, max_queue=1) as pool:
        first = await pool.submit_all(1)
        await wait_until_entered(slow)

        with pool.reserve_slot() as reservation:
            with pytest.raises(OverloadedError):
                pool.reserve_slot()
            with pytest.raises(OverloadedError):
                await pool.submit(b"without a reservation")
            reserved = asyncio.create_task(pool.submit(b"mine", reservation=reservation))
            await asyncio.sleep(0)
        slow.gate.set()

        assert [(await task).sha256 for task in (*first, reserved)] == ["0", "mine"]
        with pool.reserve_slot():
            pass


async def test_a_reservation_expires_when_the_photo_does_not_arrive(
    slow: SlowPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vultus.models.workers.admission_queue.RESERVATION_TTL_S", 0)
    async with SlowPool(slow, workers=1, max_queue=1) as pool:
        first = await pool.submit_all(1)
        await wait_until_entered(slow)
        with pool.reserve_slot():
            other = asyncio.create_task(pool.submit(b"other"))
            await asyncio.sleep(0)
            slow.gate.set()
            assert [(await task).sha256 for task in (*first, other)] == ["0", "other"]


async def test_retry_after_follows_from_how_fast_photos_are_analysed(slow: SlowPipeline) -> None:
    async with SlowPool(slow, workers=1, max_queue=2) as pool:
        first = await pool.submit_all(1)
        await wait_until_entered(slow)
        await asyncio.sleep(1.1)
        slow.gate.set()
        await asyncio.gather(*first)
        slow.gate.clear()
        waiting = await pool.submit_all(3)

        with pytest.raises(OverloadedError) as refused:
            await pool.submit(b"one too many")
        slow.gate.set()
        await asyncio.gather(*waiting)

    assert refused.value.facts["retry_after_s"] == 5  # four photos of a little more than a second


async def test_a_photo_whose_caller_hangs_up_never_reaches_the_networks(slow: SlowPipeline) -> None:
    async with SlowPool(slow, workers=1, max_queue=1) as pool:
        first = asyncio.create_task(pool.submit(b"first"))
        await wait_until_entered(slow)
        second = asyncio.create_task(pool.submit(b"second"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second

        third = asyncio.create_task(pool.submit(b"third"))
        await asyncio.sleep(0)
        slow.gate.set()
        await asyncio.gather(first, third)

    assert slow.batches == [[b"first"], [b"third"]]


async def test_closing_finishes_running_photos_and_refuses_waiting_ones(slow: SlowPipeline) -> None:
    pool = SlowPool(slow, workers=1, max_queue=2)
    tasks = await pool.submit_all(3)
    await wait_until_entered(slow)

    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError):
        await pool.submit(b"too late")
    slow.gate.set()
    await closing

    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], Analysis)
    assert [type(answer) for answer in answers[1:]] == [UnavailableError, UnavailableError]
    assert slow.batches == [[b"0"]]


async def test_a_defect_fails_every_photo_of_the_batch_and_the_next_is_served(slow: SlowPipeline) -> None:
    slow.gate.set()
    async with SlowPool(slow, max_queue=9, max_batch=9) as pool:
        tasks = [asyncio.create_task(pool.submit(photo)) for photo in (b"0", b"\xff", b"2")]  # the second is no text
        answers = await asyncio.gather(*tasks, return_exceptions=True)

        assert [type(answer) for answer in answers] == [Analysis, UnicodeDecodeError, UnicodeDecodeError]
        assert (await pool.submit(b"later")).sha256 == "later"


async def test_whether_to_embed_reaches_the_pipeline(slow: SlowPipeline) -> None:
    slow.gate.set()
    async with SlowPool(slow) as pool:
        assert (await pool.submit(b"a", DETECTION)).timings_ms["embed"] == 0


async def test_a_photo_in_batch_waits_in_a_full_pool_and_is_answered(slow: SlowPipeline) -> None:
    async with SlowPool(slow, workers=1, max_queue=1) as pool:
        photos = await pool.submit_all(2)
        await wait_until_entered(slow)
        crop = asyncio.create_task(pool.submit(b"crop", lane=Lane.BATCH))
        await asyncio.sleep(0)
        assert pool.in_flight == 3
        slow.gate.set()
        answers = await asyncio.gather(*photos, crop)

    assert [answer.sha256 for answer in answers] == ["0", "1", "crop"]


async def test_the_newest_frame_of_a_source_is_analyzed_and_older_ones_are_dropped(slow: SlowPipeline) -> None:
    async with SlowPool(slow, workers=1, max_queue=4) as pool:
        frames = [asyncio.create_task(pool.submit(b"%d" % at, lane=Lane.LIVE, source="door")) for at in range(4)]
        await wait_until_entered(slow)
        slow.gate.set()
        answers = await asyncio.gather(*frames, return_exceptions=True)

    assert [type(answer) for answer in answers] == [Analysis, OverloadedError, OverloadedError, Analysis]
    assert slow.batches == [[b"0"], [b"3"]]


async def test_an_unknown_embedding_space_is_refused(pipeline: FacePipeline) -> None:
    async with AnalysisPool(InferenceSettings(workers=1), ThreadWorkerGroup(PipelineRegistry(pipeline), 1)) as pool:
        with pytest.raises(PackNotLoadedError, match="arcface-12345678"):
            await pool.analyze_photo(portrait(), "arcface-12345678")
