"""Admission queue: bounded, first in first out, cancellable, drained in batches."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from vultus.errors import OverloadedError

if TYPE_CHECKING:
    import asyncio  # noqa: TC004  annotations are not evaluated

    from vultus.domain import Analysis  # noqa: TC004
    from vultus.models.pipeline import AnalysisRequest, FacePipeline  # noqa: TC004

SMOOTHING_FACTOR = 0.1
"""Weight of the newest batch in the moving average of the time per photo."""

RESERVATION_TTL_S = 0.2
"""For how long a slot is reserved for a photo that is still being received: less than the queued photos take, so that
slots reserved for slow senders never leave the workers idle."""


@dataclass(slots=True, eq=False)
class AnalysisJob:
    """A photo to be analysed by a worker.

    Attributes:
        request: The photo and the analyses requested.
        pipeline: Analyses it.
        result: Future that resolves to its analysis.
        must_run_alone: Whether it must not share a batch: a worker ended while analysing it together with others.
        enqueued_at: When it was enqueued, seconds of `time.perf_counter`.
    """

    request: AnalysisRequest
    pipeline: FacePipeline
    result: asyncio.Future[Analysis]
    must_run_alone: bool = False
    enqueued_at: float = field(default_factory=time.perf_counter)


class SlotReservation:
    """A slot of the admission queue, reserved for a photo that is still being received.

    Any edge may reserve one as soon as it knows that a photo will come, whatever contains it (a form, a JSON body, a
    message of a socket), and passes it on in the `Photo`, whose analysis releases it when it takes its place in the
    queue. It expires after `RESERVATION_TTL_S`. As a context manager it is released at the end of the block, in case
    no photo came.
    """

    def __init__(self, reservations: set[SlotReservation]) -> None:
        self.expires_at = time.monotonic() + RESERVATION_TTL_S
        self._reservations = reservations
        reservations.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the slot; one that is released or expired stays so."""
        self._reservations.discard(self)


class AdmissionQueue:
    """Waiting jobs, the count of running ones, and the reserved slots.

    Args:
        workers: How many batches run concurrently.
        max_queue: Most jobs that wait while every worker is busy.
        max_batch: Most jobs per batch.
    """

    def __init__(self, *, workers: int, max_queue: int, max_batch: int) -> None:
        self.running = 0
        self._workers = workers
        self._capacity = workers + max_queue
        self._max_batch = max_batch
        self._waiting: deque[AnalysisJob] = deque()
        self._reservations: set[SlotReservation] = set()
        self._mean_photo_s = 0.0

    def __len__(self) -> int:
        """Return the number of waiting jobs."""
        return len(self._waiting)

    @property
    def occupied_slots(self) -> int:
        """Slots occupied by waiting and running jobs."""
        return len(self._waiting) + self.running

    def reserve_slot(self) -> SlotReservation:
        """Reserve a slot for a photo that is still being received.

        Raises:
            OverloadedError: As from `ensure_capacity`.
        """
        self.ensure_capacity()
        return SlotReservation(self._reservations)

    def ensure_capacity(self) -> None:
        """Raise unless there is a free slot beyond the reserved ones.

        Raises:
            OverloadedError: There is none; `retry_after_s` estimates when the jobs queued now will have completed.
        """
        now = time.monotonic()
        reserved = sum(reservation.expires_at > now for reservation in self._reservations)
        if self.occupied_slots + reserved >= self._capacity:
            wait_s = max(1, math.ceil(self.occupied_slots * self._mean_photo_s / self._workers))
            raise OverloadedError(f"All {self._capacity} places for photos are taken.", retry_after_s=wait_s)

    def enqueue(self, job: AnalysisJob) -> None:
        """Append a job; a job that is retried goes to the front."""
        if job.must_run_alone:
            self._waiting.appendleft(job)
        else:
            self._waiting.append(job)

    def cancel(self, job: AnalysisJob) -> None:
        """Remove a job from the queue if it is still waiting."""
        if job in self._waiting:
            self._waiting.remove(job)

    def next_batch(self) -> list[AnalysisJob]:
        """Return the next batch of at least one job, all of one pipeline, and count its jobs as running.

        A batch is at most each worker's share of the queue: a larger one would delay photos that another free worker
        could start.
        """
        max_size = max(1, min(self._max_batch, len(self._waiting) // self._workers))
        batch = [self._waiting.popleft()]
        while (
            len(batch) < max_size
            and self._waiting
            and not batch[0].must_run_alone
            and self._is_next_compatible(batch[0])
        ):
            batch.append(self._waiting.popleft())
        self.running += len(batch)
        return batch

    def complete(self, batch: list[AnalysisJob], duration_s: float) -> None:
        """Count a batch as completed and update the average time per photo."""
        self.running -= len(batch)
        photo_s = duration_s / len(batch)
        self._mean_photo_s += SMOOTHING_FACTOR * (photo_s - self._mean_photo_s) if self._mean_photo_s else photo_s

    def remove_all(self) -> list[AnalysisJob]:
        """Remove and return all waiting jobs."""
        cancelled = list(self._waiting)
        self._waiting.clear()
        return cancelled

    def _is_next_compatible(self, first: AnalysisJob) -> bool:
        return self._waiting[0].pipeline is first.pipeline and not self._waiting[0].must_run_alone
