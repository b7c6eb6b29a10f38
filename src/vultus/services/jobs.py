"""Background jobs: one supervisor runs them all, and knows when each last succeeded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vultus.errors import VultusError
from vultus.utils import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

log = logging.getLogger(__name__)

RETRY_DELAY_S = 1.0
"""Pause after a failure of a job without an interval, so that a lasting failure fills neither processor nor log."""

OVERDUE_INTERVALS = 10
MIN_OVERDUE_S = 300.0
"""A job is overdue when it has shown no life for ten intervals, and for five minutes at least."""

MAX_FAILURES = 10
"""A job whose last ten runs failed is overdue, whatever its interval."""


class PartialFailureError(Exception):
    """Parts of a run failed, and the job has logged which and why; the other parts are done."""


@dataclass(slots=True)
class JobStatus:
    """How a job is doing.

    Attributes:
        name: Words joined by hyphens.
        interval_s: Pause between two runs; None for a job that waits for work.
        last_success_at: End of the last run that did not fail; None before the first.
        consecutive_failures: Runs that failed since then.
        has_ended: Whether the job runs no more, though it should.
    """

    name: str
    interval_s: float | None
    last_success_at: datetime | None = None
    consecutive_failures: int = 0
    has_ended: bool = False
    _alive_at: float = field(default_factory=time.monotonic)
    _failed_at: float = -math.inf

    @property
    def is_overdue(self) -> bool:
        """Whether the job needs attention: it has ended, its last runs failed, or it has been silent for too long.

        A job without an interval waits for work, for as long as it likes.
        """
        if self.has_ended:
            return True
        if self.interval_s is None:
            # Without work to succeed at, its failures lapse.
            is_recent = time.monotonic() - self._failed_at < MIN_OVERDUE_S
            return self.consecutive_failures >= MAX_FAILURES and is_recent
        if self.consecutive_failures >= MAX_FAILURES:
            return True
        return time.monotonic() - self._alive_at > max(MIN_OVERDUE_S, OVERDUE_INTERVALS * self.interval_s)

    def record_life(self) -> None:
        """Note that a run makes progress."""
        self._alive_at = time.monotonic()

    def record_success(self) -> None:
        """Note that a run succeeded."""
        self.last_success_at = datetime.now(UTC)
        self.consecutive_failures = 0
        self.record_life()
        metrics.JOB_RUNS.labels(self.name, "succeeded").inc()
        metrics.JOB_LAST_SUCCESS.labels(self.name).set(self.last_success_at.timestamp())

    def record_failure(self) -> None:
        """Note that a run failed."""
        self.consecutive_failures += 1
        self._failed_at = time.monotonic()
        metrics.JOB_RUNS.labels(self.name, "failed").inc()


_running: ContextVar[JobStatus | None] = ContextVar("running_job", default=None)


def record_progress() -> None:
    """Note that the job which runs this makes progress: a long run is not a silent one. Elsewhere, do nothing."""
    if (status := _running.get()) is not None:
        status.record_life()


class JobSupervisor:
    """Runs jobs again and again, whatever becomes of a single run."""

    def __init__(self) -> None:
        self._statuses: dict[str, JobStatus] = {}

    def list_statuses(self) -> tuple[JobStatus, ...]:
        """Return the jobs that run, in the order they were started."""
        return tuple(self._statuses.values())

    @asynccontextmanager
    async def run(
        self,
        name: str,
        action: Callable[[], Awaitable[object]],
        *,
        interval_s: float | None,
        begins_at_once: bool = True,
    ) -> AsyncIterator[JobStatus]:
        """Run a job in the background for the length of the block.

        A run that fails is logged and counted, and the next one comes after the usual pause.

        Args:
            name: Of the job; unique.
            action: One run. A number it returns, if it is not zero, is logged as what was done.
            interval_s: Pause between two runs; None if the action itself waits for work.
            begins_at_once: Whether the first run does not wait for a pause: it was made before.

        Raises:
            ValueError: A job of this name runs already.
        """
        if name in self._statuses:
            raise ValueError(f"a job named {name} runs already")
        status = self._statuses[name] = JobStatus(name, interval_s)
        task = asyncio.create_task(self._repeat(status, action, begins_at_once), name=f"job {name}")
        task.add_done_callback(lambda _: setattr(status, "has_ended", True))
        try:
            yield status
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            del self._statuses[name]

    async def _repeat(self, status: JobStatus, action: Callable[[], Awaitable[object]], begins_at_once: bool) -> None:
        _running.set(status)
        if not begins_at_once:
            await asyncio.sleep(status.interval_s or 0.0)
        while True:
            pause_s = status.interval_s or 0.0
            try:
                if done := await action():
                    log.info("job done", extra={"job": status.name, "count": done})
                status.record_success()
            except Exception as error:
                status.record_failure()
                pause_s = pause_s or RETRY_DELAY_S
                if isinstance(error, PartialFailureError):
                    log.warning("a part of the job failed; it runs again", extra={"job": status.name})
                elif isinstance(error, VultusError):
                    log.warning("job failed; it runs again: %s", error.detail, extra={"job": status.name})
                else:
                    log.error("job failed; it runs again", extra={"job": status.name}, exc_info=error)
            await asyncio.sleep(pause_s)
