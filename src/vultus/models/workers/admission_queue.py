"""Admission queue: bounded, in lanes by urgency, cancellable, drained in batches.

A burst may fill all its places: sixteen clients of two workers are served one after the other. While more is wanted
than the workers can do, waiting helps nobody: then a photo is accepted only if it would wait no longer than one takes.

Clients share the places. One alone may have all of them; as soon as another comes, it takes its place from the client
with the most, and of the photos that wait those of clients with few places come first.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, NoReturn, Self

from vultus.domain import Lane
from vultus.errors import OverloadedError
from vultus.models.workers.demand import DemandMeter

if TYPE_CHECKING:
    import asyncio  # noqa: TC004  annotations are not evaluated
    from collections.abc import Callable, Iterable, Iterator

    from vultus.domain import Analysis  # noqa: TC004
    from vultus.models.pipeline import AnalysisRequest  # noqa: TC004

SMOOTHING_FACTOR = 0.1
"""Weight of the newest batch in the moving average of the time per photo."""

RESERVATION_TTL_S = 0.2
"""For how long a slot is reserved for a photo that is still being received: less than the queued photos take, so that
slots reserved for slow senders never leave the workers idle."""


EXCESS_WAIT_PHOTOS = 1.0
"""Longest expected wait of a photo, in times a photo takes, while more are wanted than can be served."""

MAX_FRAME_WAIT_S = 0.1
"""For so long photos that come later overtake a frame that waits: they would wait for the frames of every camera."""

MAX_BATCH_LANE_WAIT_S = 2.0
"""Longest wait of the batch lane while other photos wait too; after it, one of its photos is analysed before them."""


@dataclass(slots=True, eq=False)
class AnalysisJob:
    """A photo to be analysed by a worker.

    Attributes:
        request: The photo and what is wanted of it.
        space_id: Embedding space whose networks analyse it.
        result: Future that resolves to its analysis.
        lane: How urgent it is.
        source: Of a frame in the live lane, where newer frames replace older ones of the same source.
        client: Who sent it; empty if nobody in particular did.
        losses: Workers that ended while they analysed it.
        must_run_alone: Whether it must not share a batch: a worker ended while analysing it together with others.
        enqueued_at: When it was enqueued, seconds of `time.perf_counter`.
    """

    request: AnalysisRequest
    space_id: str
    result: asyncio.Future[Analysis]
    lane: Lane = Lane.INTERACTIVE
    source: str = ""
    client: str = ""
    losses: int = 0
    must_run_alone: bool = False
    enqueued_at: float = field(default_factory=time.perf_counter)

    def drop(self, reason: str, **facts: float) -> None:
        """Refuse a job that waits, unless its caller has gone."""
        if not self.result.done():
            self.result.set_exception(OverloadedError(reason, **facts))
            self.result.exception()  # a caller that has gone does not look at it


class SlotReservation:
    """A slot of the admission queue, reserved for a photo that is still being received.

    Any edge may reserve one as soon as it knows that a photo will come, whatever contains it (a form, a JSON body, a
    message of a socket), and passes it on in the `Photo`, whose analysis releases it when it takes its place in the
    queue. It expires after `RESERVATION_TTL_S`. As a context manager it is released at the end of the block, in case
    no photo came.
    """

    def __init__(self, reservations: set[SlotReservation], client: str, expires_at: float) -> None:
        self.client = client
        self.expires_at = expires_at
        self._reservations = reservations
        reservations.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the slot; one that is released or expired stays so."""
        self._reservations.discard(self)

    def is_held(self, now: float) -> bool:
        """Return whether the slot is neither released nor expired."""
        return self in self._reservations and self.expires_at > now


class AdmissionQueue:
    """Waiting jobs in their lanes, the count of running ones, and the reserved slots.

    The interactive lane is first in, first out. A frame in the live lane waits at most for frames of other sources and
    running photos. The batch lane is served while nothing else waits, or at intervals of `MAX_BATCH_LANE_WAIT_S`.

    Args:
        workers: How many batches run concurrently.
        max_queue: Most jobs that wait while every worker is busy, not counting those of the batch lane.
        max_batch: Most jobs per batch.
        clock: Returns seconds.
    """

    def __init__(
        self, *, workers: int, max_queue: int, max_batch: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        self._running: Counter[Lane] = Counter()
        self._workers = workers
        self._capacity = workers + max_queue
        self._max_batch = max_batch
        self._lanes: dict[Lane, deque[AnalysisJob]] = {lane: deque() for lane in Lane}
        self._reservations: set[SlotReservation] = set()
        self._demand = DemandMeter(self._capacity, clock)
        self._running_clients: Counter[str] = Counter()
        self._batches: dict[int, tuple[float, int]] = {}  # when running ones began, and their jobs, by identity
        self._mean_photo_s = 0.0
        self._batch_lane_served_at = -math.inf

    def __len__(self) -> int:
        """Return the number of waiting jobs."""
        return sum(map(len, self._lanes.values()))

    @property
    def running(self) -> int:
        """Number of jobs that workers analyse."""
        return self._running.total()

    def reserve_slot(self, client: str = "") -> SlotReservation:
        """Reserve a slot for a photo that is still being received.

        Args:
            client: Who sends it.

        Raises:
            OverloadedError: As from `ensure_capacity`.
        """
        self._make_room(client)
        return SlotReservation(self._reservations, client, self._clock() + RESERVATION_TTL_S)

    def ensure_capacity(self, client: str | None = None) -> None:
        """Raise unless there is a slot for a photo beyond the reserved ones; frames give way to photos.

        Args:
            client: Who sends it, if that is known yet; else it is assumed to have no place.

        Raises:
            OverloadedError: There is none that the client could have, or the photo would wait too long while more are
                wanted than can be served. `retry_after_s` estimates when those will be done that are wanted now.
        """
        if (reason := self._find_refusal()) and self._find_greediest_client(client) is None:
            self._refuse(reason)

    def _make_room(self, client: str) -> None:
        """Return once there is a slot for a client: a free one, or one of the client with the most.

        Raises:
            OverloadedError: As from `ensure_capacity`.
        """
        if (reason := self._find_refusal()) is None:
            return
        greediest = self._find_greediest_client(client)
        if greediest is None:
            self._refuse(reason)
        self._demand.record_arrival()
        self._take_place(greediest)

    def _find_refusal(self) -> str | None:
        """Return why a photo would be refused now; None if it would not."""
        self._update_demand()
        if self._count_occupied_slots(frames=False) + self._count_reserved_slots() >= self._capacity:
            return f"All {self._capacity} places for photos are taken."
        if self._demand.is_excessive and self._estimate_wait_s() > EXCESS_WAIT_PHOTOS * self._mean_photo_s:
            return "More photos are sent than can be analysed in time."
        return None

    def _refuse(self, reason: str) -> NoReturn:
        self._demand.record_arrival()
        if self._demand.is_excessive:
            self._shed_waiting_photos()
        raise OverloadedError(reason, retry_after_s=self._estimate_retry_s())

    def enqueue(self, job: AnalysisJob, reservation: SlotReservation | None = None) -> None:
        """Append a job to its lane.

        Args:
            job: The job.
            reservation: Of a slot for it; it is released.

        Raises:
            OverloadedError: Its lane takes no further one now, and no slot is reserved for it.
        """
        is_reserved = reservation is not None and reservation.is_held(self._clock())
        if reservation is not None:
            reservation.release()
        if job.lane is Lane.LIVE:
            self._enqueue_frame(job)
            return
        if job.lane is Lane.INTERACTIVE:
            if not is_reserved:
                self._make_room(job.client)
            self._update_demand()
            self._demand.record_arrival()
        self._lanes[job.lane].append(job)
        frames = self._lanes[Lane.LIVE]
        while frames and self._count_occupied_slots() > self._capacity:
            frames.popleft().drop("Photos came first.")

    def enqueue_again(self, job: AnalysisJob) -> None:
        """Put a job whose worker ended at the front of its lane, to run alone."""
        job.must_run_alone = True
        self._lanes[job.lane].appendleft(job)

    def cancel(self, job: AnalysisJob) -> None:
        """Remove a job from the queue if it is still waiting."""
        if job in self._lanes[job.lane]:
            self._lanes[job.lane].remove(job)

    def next_batch(self) -> list[AnalysisJob]:
        """Return the next batch of at least one job, all of one embedding space, and count its jobs as running.

        A batch is at most each worker's share of its lane: a larger one would delay photos that another free worker
        could start. Of the batch lane it is one job while other lanes wait.
        """
        self._order_photos()
        frames, photos = self._lanes[Lane.LIVE], self._lanes[Lane.INTERACTIVE]
        urgent = frames if frames and (not photos or self._is_frame_due(frames[0])) else photos
        if not urgent:
            batch = self._take_compatible_jobs(self._lanes[Lane.BATCH])
        elif self._is_batch_lane_due():
            self._batch_lane_served_at = self._clock()
            batch = [self._lanes[Lane.BATCH].popleft()]
        else:
            batch = self._take_compatible_jobs(urgent)
        self._running.update(job.lane for job in batch)
        self._running_clients.update(_list_clients(batch))
        self._batches[id(batch)] = (self._clock(), len(batch))
        return batch

    def complete(self, batch: list[AnalysisJob], duration_s: float) -> None:
        """Count a batch as completed and update the average time per photo."""
        self._running.subtract(job.lane for job in batch)
        self._running_clients -= Counter(_list_clients(batch))
        del self._batches[id(batch)]
        photo_s = duration_s / len(batch)
        self._mean_photo_s += SMOOTHING_FACTOR * (photo_s - self._mean_photo_s) if self._mean_photo_s else photo_s

    def remove_all(self) -> list[AnalysisJob]:
        """Remove and return all waiting jobs."""
        cancelled = [job for lane in self._lanes.values() for job in lane]
        for lane in self._lanes.values():
            lane.clear()
        return cancelled

    def _count_running(self) -> int:
        """Return the number of running jobs that take a slot: those of the batch lane leave it to photos."""
        return self.running - self._running[Lane.BATCH]

    def _count_occupied_slots(self, *, frames: bool = True) -> int:
        waiting = len(self._lanes[Lane.INTERACTIVE]) + (len(self._lanes[Lane.LIVE]) if frames else 0)
        return self._count_running() + waiting

    def _count_reserved_slots(self) -> int:
        now = self._clock()
        return sum(reservation.expires_at > now for reservation in self._reservations)

    def _update_demand(self) -> None:
        photos_per_s = self._workers / self._mean_photo_s if self._mean_photo_s else math.inf
        self._demand.update(self._count_occupied_slots(frames=False), photos_per_s)

    def _estimate_wait_s(self) -> float:
        """Return how long a photo that came now would wait for a worker."""
        free = self._workers - len(self._batches)
        ahead = len(self._lanes[Lane.INTERACTIVE]) + len(self._lanes[Lane.LIVE]) + self._count_reserved_slots()
        if ahead < free:
            return 0.0
        now, photo_s = self._clock(), self._mean_photo_s
        remaining = (max(0.0, started + jobs * photo_s - now) for started, jobs in self._batches.values())
        first = 0.0 if free > 0 else min(remaining, default=0.0)
        return first + (ahead - max(0, free)) * photo_s / self._workers

    def _estimate_retry_s(self) -> int:
        return max(1, math.ceil(self._demand.wanted * self._mean_photo_s / self._workers))

    def _count_places(self) -> Counter[str]:
        """Return how many places every client has: photos that run or wait, and reserved slots."""
        now = self._clock()
        held = (one.client for one in self._reservations if one.expires_at > now)
        return self._running_clients + Counter(_list_clients(self._lanes[Lane.INTERACTIVE])) + Counter(held)

    def _find_greediest_client(self, client: str | None) -> str | None:
        """Return the client with the most places; None unless it has one to give, and more than the other would have.

        Args:
            client: Who wants a place; None if that is not known, and then it has none.
        """
        places = self._count_places()
        greediest, most = next(iter(places.most_common(1)), ("", 0))
        own = 0 if client is None else places[client]
        has_some_to_give = most > self._running_clients[greediest]
        return greediest if most > own + 1 and has_some_to_give else None

    def _take_place(self, client: str) -> None:
        """Take the newest place that does not run yet from a client: a photo that waits, else a reserved slot."""
        waiting = self._lanes[Lane.INTERACTIVE]
        for job in reversed(waiting):
            if job.client == client:
                waiting.remove(job)
                job.drop("Photos of others came, who had fewer places.", retry_after_s=self._estimate_retry_s())
                return
        held = [one for one in self._reservations if one.client == client]
        max(held, key=lambda one: one.expires_at).release()

    def _order_photos(self) -> None:
        """Put the photos that wait in the order in which clients take turns; those of one client stay in theirs."""
        waiting = self._lanes[Lane.INTERACTIVE]
        if len(set(_list_clients(waiting))) < 2:
            return
        turns = self._running_clients.copy()
        ranked: list[tuple[bool, int, int, AnalysisJob]] = []
        for job in waiting:
            ranked.append((not job.must_run_alone, turns[job.client], len(ranked), job))
            turns[job.client] += 1
        ranked.sort(key=itemgetter(0, 1, 2))
        self._lanes[Lane.INTERACTIVE] = deque(job for *_, job in ranked)

    def _shed_waiting_photos(self) -> None:
        """Refuse photos that would wait too long: those behind them would wait as long."""
        self._order_photos()  # so that those of the clients with the most are last
        waiting = self._lanes[Lane.INTERACTIVE]
        while waiting and self._estimate_wait_s() > (EXCESS_WAIT_PHOTOS + 1) * self._mean_photo_s:
            waiting.pop().drop(
                "More photos are sent than can be analysed in time.", retry_after_s=self._estimate_retry_s()
            )

    def _enqueue_frame(self, job: AnalysisJob) -> None:
        """Let a frame take the place of an older one of its source, or append it if it would not wait for photos."""
        frames = self._lanes[Lane.LIVE]
        for at, older in enumerate(frames):
            if older.source == job.source:
                frames[at] = job
                older.drop("A newer frame of the same source came.")
                return
        if self._lanes[Lane.INTERACTIVE] or self._count_occupied_slots() >= self._capacity:
            raise OverloadedError("Photos come first.")
        frames.append(job)

    def _is_frame_due(self, frame: AnalysisJob) -> bool:
        """Return whether a frame has been overtaken by photos for as long as it may be."""
        return self._clock() - frame.enqueued_at >= MAX_FRAME_WAIT_S

    def _is_batch_lane_due(self) -> bool:
        """Return whether the batch lane has waited for as long as it may while other lanes wait too."""
        waiting = self._lanes[Lane.BATCH]
        if not waiting:
            return False
        since = max(waiting[0].enqueued_at, self._batch_lane_served_at)
        return self._clock() - since >= MAX_BATCH_LANE_WAIT_S

    def _take_compatible_jobs(self, waiting: deque[AnalysisJob]) -> list[AnalysisJob]:
        # A batch makes its first photo wait for its last one: it pays while photos wait anyway.
        max_batch = 1 if self._demand.is_excessive else self._max_batch
        max_size = max(1, min(max_batch, len(waiting) // self._workers))
        batch = [waiting.popleft()]
        while (
            len(batch) < max_size
            and waiting
            and not batch[0].must_run_alone
            and not waiting[0].must_run_alone
            and waiting[0].space_id == batch[0].space_id
        ):
            batch.append(waiting.popleft())
        return batch


def _list_clients(jobs: Iterable[AnalysisJob]) -> Iterator[str]:
    """Yield whose the photos are; the batch lane belongs to nobody in particular."""
    return (job.client for job in jobs if job.lane is Lane.INTERACTIVE)
