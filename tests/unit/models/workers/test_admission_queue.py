"""Photos are taken in order and bounded, frames if they are the newest, and the batch lane when nothing else waits."""

from __future__ import annotations

import asyncio

import pytest

from vultus.domain import Lane
from vultus.errors import OverloadedError
from vultus.models.pipeline import AnalysisRequest
from vultus.models.workers.admission_queue import MAX_BATCH_LANE_WAIT_S, AdmissionQueue, AnalysisJob


def make_job(
    name: str, lane: Lane = Lane.INTERACTIVE, *, source: str = "", space_id: str = "s", waited_s: float = 0.0
) -> AnalysisJob:
    job = AnalysisJob(
        AnalysisRequest(name.encode()), space_id, asyncio.get_running_loop().create_future(), lane, source
    )
    job.enqueued_at -= waited_s
    return job


def make_frame(name: str, source: str = "door") -> AnalysisJob:
    return make_job(name, Lane.LIVE, source=source)


def fill(queue: AdmissionQueue, *jobs: AnalysisJob) -> None:
    for job in jobs:
        queue.enqueue(job)


def take(queue: AdmissionQueue) -> list[str]:
    """Return the names of the next batch."""
    return [job.request.photo.decode() for job in queue.next_batch()]


def take_all(queue: AdmissionQueue) -> list[list[str]]:
    batches = []
    while len(queue):
        batches.append(take(queue))
    return batches


def make_queue(*, workers: int = 1, max_queue: int = 3, max_batch: int = 1) -> AdmissionQueue:
    return AdmissionQueue(workers=workers, max_queue=max_queue, max_batch=max_batch)


async def test_photos_are_taken_in_the_order_in_which_they_came() -> None:
    queue = make_queue()
    fill(queue, *map(make_job, "abc"))

    assert take_all(queue) == [["a"], ["b"], ["c"]]


async def test_photos_of_one_embedding_space_share_a_batch() -> None:
    queue = make_queue(max_queue=9, max_batch=3)
    fill(queue, make_job("a"), make_job("b"), make_job("c", space_id="other"), make_job("d", space_id="other"))

    assert take_all(queue) == [["a", "b"], ["c", "d"]]


async def test_beyond_its_capacity_the_queue_refuses_photos() -> None:
    queue = make_queue(workers=1, max_queue=1)
    fill(queue, make_job("a"), make_job("b"))

    with pytest.raises(OverloadedError, match="All 2 places"):
        queue.enqueue(make_job("c"))
    assert take(queue) == ["a"]
    with pytest.raises(OverloadedError):  # it is running
        queue.enqueue(make_job("c"))


async def test_a_newer_frame_takes_the_place_of_the_older_one_of_its_source() -> None:
    queue = make_queue()
    older = [make_frame("door 1"), make_frame("door 2")]
    fill(queue, older[0], make_frame("gate 1", "gate"), older[1], make_job("photo"), make_frame("door 3"))

    assert take_all(queue) == [["door 3"], ["gate 1"], ["photo"]]
    assert [str(frame.result.exception()) for frame in older] == ["A newer frame of the same source came."] * 2


async def test_a_frame_never_queues_behind_a_photo() -> None:
    queue = make_queue()
    queue.enqueue(make_job("photo"))

    with pytest.raises(OverloadedError, match="Photos come first"):
        queue.enqueue(make_frame("frame"))
    assert take_all(queue) == [["photo"]]


async def test_a_frame_that_found_no_photo_waiting_is_not_overtaken() -> None:
    queue = make_queue()
    fill(queue, make_frame("frame"), make_job("photo"))

    assert take_all(queue) == [["frame"], ["photo"]]


async def test_frames_are_dropped_before_a_photo_is_refused() -> None:
    queue = make_queue(workers=1, max_queue=2)
    frames = [make_frame(f"frame {at}", f"camera {at}") for at in range(3)]
    fill(queue, *frames)
    with pytest.raises(OverloadedError):
        queue.enqueue(make_frame("one too many", "camera 3"))

    fill(queue, make_job("a"), make_job("b"))
    assert [frame.result.done() for frame in frames] == [True, True, False]
    queue.reserve_slot()
    with pytest.raises(OverloadedError, match="All 3 places"):
        queue.enqueue(make_job("c"))

    assert take_all(queue) == [["frame 2"], ["a"], ["b"]]
    assert [type(frame.result.exception()) for frame in frames[:2]] == [OverloadedError] * 2


async def test_the_batch_lane_is_never_refused_and_takes_no_places() -> None:
    queue = make_queue(workers=1, max_queue=1)
    fill(queue, *(make_job(f"crop {at}", Lane.BATCH) for at in range(20)), make_job("a"), make_job("b"))

    assert len(queue) == 22
    with pytest.raises(OverloadedError):
        queue.enqueue(make_job("c"))


async def test_photos_of_the_batch_lane_that_run_refuse_neither_photos_nor_frames() -> None:
    queue = make_queue(workers=1, max_queue=3, max_batch=8)
    fill(queue, *(make_job(f"crop {at}", Lane.BATCH) for at in range(8)))
    batch = queue.next_batch()
    assert (queue.running, len(queue)) == (8, 0)

    queue.enqueue(make_frame("frame"))
    fill(queue, *map(make_job, "abc"))
    with queue.reserve_slot(), pytest.raises(OverloadedError, match="All 4 places"):
        queue.enqueue(make_job("d"))

    queue.complete(batch, 1.0)
    assert queue.running == 0
    take(queue)
    assert queue.running == 1
    with pytest.raises(OverloadedError):  # the frame runs, and takes a place
        queue.reserve_slot()


async def test_the_batch_lane_waits_for_photos_and_frames() -> None:
    queue = make_queue(max_queue=9, max_batch=4)
    fill(queue, make_job("crop 1", Lane.BATCH), make_job("crop 2", Lane.BATCH), make_frame("frame"), make_job("photo"))

    assert take_all(queue) == [["frame"], ["photo"], ["crop 1", "crop 2"]]


async def test_the_batch_lane_is_served_at_intervals_while_photos_keep_coming() -> None:
    queue = make_queue(max_queue=9)
    waited_s = MAX_BATCH_LANE_WAIT_S + 1
    fill(queue, *(make_job(f"crop {at}", Lane.BATCH, waited_s=waited_s) for at in range(2)), *map(make_job, "abc"))

    assert [take(queue) for _ in range(3)] == [["crop 0"], ["a"], ["b"]]  # one, however many wait
    queue._batch_lane_served_at -= waited_s
    assert take_all(queue) == [["crop 1"], ["c"]]


@pytest.mark.parametrize("lane", list(Lane))
async def test_a_cancelled_job_is_taken_out_of_its_lane(lane: Lane) -> None:
    queue = make_queue()
    first, second = make_job("a", lane, source="1"), make_job("b", lane, source="2")
    fill(queue, first, second)
    queue.cancel(first)

    assert take_all(queue) == [["b"]]
    queue.cancel(second)  # which runs


async def test_all_lanes_are_emptied() -> None:
    queue = make_queue()
    fill(queue, make_job("crop", Lane.BATCH), make_frame("frame"), make_job("photo"))

    assert {job.lane for job in queue.remove_all()} == set(Lane)
    assert len(queue) == 0


async def test_a_photo_whose_worker_ended_comes_first_and_alone() -> None:
    queue = make_queue(max_queue=9, max_batch=4)
    fill(queue, *map(make_job, "ab"))
    again = queue.next_batch()
    fill(queue, *map(make_job, "cd"))
    for job in reversed(again):
        queue.enqueue_again(job)

    assert take_all(queue) == [["a"], ["b"], ["c", "d"]]
