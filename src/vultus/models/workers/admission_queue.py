"""Photos in line for the workers: bounded, in order of arrival, left by whoever hangs up, taken several at a time."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vultus.errors import OverloadedError

if TYPE_CHECKING:
    import asyncio  # noqa: TC004  annotations are not evaluated

    from vultus.domain import Analysis  # noqa: TC004
    from vultus.models.pipeline import Asked, FacePipeline  # noqa: TC004

SMOOTHING = 0.1
"""Weight of the newest photo in the time a photo takes."""


@dataclass(slots=True, eq=False)
class Job:
    """A photo on its way to a worker.

    Attributes:
        asked: The photo and what is wanted of it.
        pipeline: Describes it.
        answer: What its caller waits for.
        alone: Whether it must not share a batch: a worker ended while it had this photo among others.
        joined_at: When it joined the line, seconds.
    """

    asked: Asked
    pipeline: FacePipeline
    answer: asyncio.Future[Analysis]
    alone: bool = False
    joined_at: float = field(default_factory=time.perf_counter)


class Line:
    """Jobs that wait, and the count of those that run.

    Args:
        workers: How many batches run at the same time.
        max_queue: Jobs that may wait while every worker is busy.
        max_batch: Most jobs of a batch.
    """

    def __init__(self, *, workers: int, max_queue: int, max_batch: int) -> None:
        self.running = 0
        self._workers = workers
        self._places = workers + max_queue
        self._max_batch = max_batch
        self._waiting: deque[Job] = deque()
        self._photo_s = 0.0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    @property
    def taken(self) -> int:
        """Places taken, by jobs that wait and jobs that run."""
        return len(self._waiting) + self.running

    def check(self, *, kept: int = 0) -> None:
        """Return if there is a place, beside those that are kept for others.

        Raises:
            OverloadedError: There is none; `retry_after_s` says when those in line now will have been served.
        """
        if self.taken + kept >= self._places:
            wait_s = max(1, math.ceil(self.taken * self._photo_s / self._workers))
            raise OverloadedError(f"All {self._places} places for photos are taken.", retry_after_s=wait_s)

    def join(self, job: Job) -> None:
        """Take the last place, or the first for a job that comes back."""
        if job.alone:
            self._waiting.appendleft(job)
        else:
            self._waiting.append(job)

    def leave(self, job: Job) -> None:
        """Give up the place of a job that still waits, if it does."""
        if job in self._waiting:
            self._waiting.remove(job)

    def take(self) -> list[Job]:
        """Return the next batch, at least one job, and count its jobs as running.

        As many as leave the other workers their share of the line, all for one pipeline: what one worker hoards,
        another that becomes free could have begun.
        """
        most = max(1, min(self._max_batch, len(self._waiting) // self._workers))
        batch = [self._waiting.popleft()]
        while len(batch) < most and self._waiting and not batch[0].alone and self._fits(batch[0]):
            batch.append(self._waiting.popleft())
        self.running += len(batch)
        return batch

    def done(self, batch: list[Job], took_s: float) -> None:
        """Count a batch as ended and learn from how long it took."""
        self.running -= len(batch)
        photo_s = took_s / len(batch)
        self._photo_s += SMOOTHING * (photo_s - self._photo_s) if self._photo_s else photo_s

    def clear(self) -> list[Job]:
        """Send everybody who waits away, and return them."""
        left = list(self._waiting)
        self._waiting.clear()
        return left

    def _fits(self, first: Job) -> bool:
        return self._waiting[0].pipeline is first.pipeline and not self._waiting[0].alone
