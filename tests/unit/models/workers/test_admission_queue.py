"""Photos are taken in order and bounded, frames if they are the newest, and the batch lane when nothing else waits."""

from __future__ import annotations

import asyncio
import heapq
import random
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest

from vultus.domain import Lane
from vultus.errors import OverloadedError
from vultus.models.pipeline import AnalysisRequest
from vultus.models.workers.admission_queue import (
    MAX_BATCH_LANE_WAIT_S,
    MAX_FRAME_WAIT_S,
    AdmissionQueue,
    AnalysisJob,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def make_job(
    name: str,
    lane: Lane = Lane.INTERACTIVE,
    *,
    source: str = "",
    client: str = "",
    space_id: str = "s",
    waited_s: float = 0.0,
) -> AnalysisJob:
    job = AnalysisJob(
        AnalysisRequest(name.encode()), space_id, asyncio.get_running_loop().create_future(), lane, source, client
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

    assert take_all(queue) == [["photo"], ["door 3"], ["gate 1"]]
    assert [str(frame.result.exception()) for frame in older] == ["A newer frame of the same source came."] * 2


async def test_a_frame_never_queues_behind_a_photo() -> None:
    queue = make_queue()
    queue.enqueue(make_job("photo"))

    with pytest.raises(OverloadedError, match="Photos come first"):
        queue.enqueue(make_frame("frame"))
    assert take_all(queue) == [["photo"]]


async def test_photos_overtake_a_frame_that_waits_but_not_for_long() -> None:
    queue = make_queue()
    fill(queue, make_frame("frame"), make_job("photo"))
    assert take_all(queue) == [["photo"], ["frame"]]

    fill(queue, make_job("late frame", Lane.LIVE, source="door", waited_s=MAX_FRAME_WAIT_S), make_job("photo"))
    assert take_all(queue) == [["late frame"], ["photo"]]


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

    assert take_all(queue) == [["a"], ["b"], ["frame 2"]]
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

    queue.enqueue(make_job("frame", Lane.LIVE, source="door", waited_s=MAX_FRAME_WAIT_S))
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

    assert take_all(queue) == [["photo"], ["frame"], ["crop 1", "crop 2"]]


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


class Timeline:
    """Workers and clients of a queue in simulated time: a photo takes 30 ms, give or take."""

    def __init__(self, workers: int) -> None:
        self.now = 0.0
        self.queue = AdmissionQueue(
            workers=workers, max_queue=max(14, 7 * workers), max_batch=4, clock=lambda: self.now
        )
        self.workers = self.free = workers
        self.latencies_s: list[float] = []
        self._sent: dict[int, tuple[AnalysisJob, float, Callable[[float], None]]] = {}
        self.refused = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._chance = random.Random(1)

    def at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, len(self._events) + self._chance.getrandbits(32), happen))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] < until:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        self.now = until

    def send(self, again: Callable[[float], None] = lambda _after_s: None) -> None:
        """Send a photo; `again` is called with the time to wait after its answer."""
        job, sent_at = make_job("photo"), self.now
        try:
            self.queue.enqueue(job)
        except OverloadedError as error:
            self.refused += 1
            again(error.facts["retry_after_s"])
            return
        self._sent[id(job)] = (job, sent_at, again)
        self._start()

    def _start(self) -> None:
        while self.free and len(self.queue):
            batch = self.queue.next_batch()
            self.free -= 1
            duration_s = 0.03 * len(batch) * self._chance.uniform(0.7, 1.3)
            self.at(self.now + duration_s, partial(self._finish, batch, duration_s))

    def _finish(self, batch: list[AnalysisJob], duration_s: float) -> None:
        self.queue.complete(batch, duration_s)
        self.free += 1
        self._start()
        shed = [entry for entry in self._sent.values() if entry[0].result.done()]
        self.refused += len(shed)
        for job, _, again in shed:
            del self._sent[id(job)]
            again(cast("OverloadedError", job.result.exception()).facts["retry_after_s"])
        for job in batch:
            _, sent_at, again = self._sent.pop(id(job))
            self.latencies_s.append(self.now - sent_at)
            again(0.0)

    def send_steadily(self, photos_per_s: float) -> None:
        self.send()
        self.at(self.now + self._chance.expovariate(photos_per_s), partial(self.send_steadily, photos_per_s))

    def add_client(self) -> None:
        self.send(lambda after_s: self.at(self.now + after_s + 0.001, self.add_client))


@pytest.mark.parametrize("workers", [1, 2, 8])
async def test_of_twice_the_load_what_is_accepted_waits_no_longer_than_a_photo_takes(workers: int) -> None:
    time = Timeline(workers)
    time.send_steadily(2 * workers / 0.03)
    time.run(2)  # in which the queue learns how fast the workers are
    time.latencies_s.clear()
    time.refused = 0
    time.run(2 + 120 / workers)

    served = sorted(time.latencies_s)
    assert len(served) > 0.9 * 120 / 0.03
    assert served[len(served) * 99 // 100] < 3 * 1.3 * 0.03
    assert time.refused > 0.9 * len(served)


@pytest.mark.parametrize(("workers", "clients"), [(1, 8), (2, 16), (4, 30)])
async def test_clients_that_wait_for_their_answers_are_all_served(workers: int, clients: int) -> None:
    time = Timeline(workers)
    for _ in range(clients):
        time.add_client()
    time.run(20)

    assert time.refused == 0
    assert max(time.latencies_s) < 2 * clients * 0.03 / workers


async def test_after_twice_the_load_bursts_are_accepted_again() -> None:
    time = Timeline(2)
    time.send_steadily(2 * 2 / 0.03)
    time.run(10)
    with pytest.raises(OverloadedError, match="in time") as refused:
        for _ in range(4):
            time.queue.reserve_slot()
    assert refused.value.facts["retry_after_s"] == 1

    time._events = [event for event in time._events if "send_steadily" not in repr(event[2])]
    time.run(12)
    for _ in range(14):
        time.queue.enqueue(make_job("burst"))


async def test_a_reserved_slot_is_kept_whatever_comes_meanwhile() -> None:
    queue = make_queue(workers=1, max_queue=1)
    reservation = queue.reserve_slot("client")
    queue.enqueue(make_job("a"))
    with pytest.raises(OverloadedError):
        queue.enqueue(make_job("b"))

    queue.enqueue(make_job("c"), reservation)

    assert take_all(queue) == [["a"], ["c"]]
    with pytest.raises(OverloadedError):
        queue.enqueue(make_job("d"), reservation)


def make_photos(client: str, count: int) -> list[AnalysisJob]:
    return [make_job(f"{client}{at}", client=client) for at in range(count)]


async def test_a_client_that_has_every_place_gives_way_to_one_that_comes() -> None:
    queue = make_queue(workers=1, max_queue=5)
    greedy, modest = make_photos("a", 6), make_photos("b", 4)
    fill(queue, *greedy)
    with pytest.raises(OverloadedError):  # alone it may have all of them, and no more
        queue.ensure_capacity("a")
    queue.ensure_capacity()  # who is not known yet may be another
    queue.ensure_capacity("b")

    fill(queue, *modest[:3])

    assert [job.result.done() for job in greedy] == [False] * 3 + [True] * 3
    for client in ("a", "b"):
        with pytest.raises(OverloadedError):
            queue.reserve_slot(client)
    with pytest.raises(OverloadedError, match="fewer places"):
        await greedy[5].result
    assert take_all(queue) == [["a0"], ["b0"], ["a1"], ["b1"], ["a2"], ["b2"]]


async def test_a_client_whose_photos_run_waits_its_turn() -> None:
    queue = make_queue(workers=2, max_queue=9)
    fill(queue, *make_photos("a", 4))
    running = [queue.next_batch(), queue.next_batch()]
    fill(queue, *make_photos("b", 3))

    assert take(queue) == ["b0"]
    queue.complete(running[0], 0.1)
    assert take_all(queue) == [["b1"], ["a2"], ["b2"], ["a3"]]


async def test_slots_that_a_client_reserves_are_given_up_too() -> None:
    queue = make_queue(workers=1, max_queue=3)
    reserved = [queue.reserve_slot("a") for _ in range(4)]

    queue.reserve_slot("b")

    fill(queue, make_job("b0", client="b"))
    first, *others = make_photos("a", 4)
    queue.enqueue(first, reserved[0])
    with pytest.raises(OverloadedError):
        queue.enqueue(others[2], reserved[3])


async def test_photos_that_only_run_are_taken_from_nobody() -> None:
    queue = make_queue(workers=2, max_queue=1)
    fill(queue, *make_photos("a", 2))
    queue.next_batch()
    queue.next_batch()
    fill(queue, make_job("b0", client="b"))

    with pytest.raises(OverloadedError, match="All 3 places"):
        queue.reserve_slot("c")
