"""Jobs run again and again, whatever becomes of a single run, and say how they are doing."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

import pytest

from vultus.errors import UnavailableError
from vultus.services import jobs
from vultus.services.jobs import JobStatus, JobSupervisor
from vultus.utils import metrics


class Job:
    """Runs that end as they are told to: with a number, or with an exception."""

    def __init__(self, *outcomes: int | Exception) -> None:
        self.outcomes = list(outcomes)
        self.has_run_all = asyncio.Event()

    async def __call__(self) -> int:
        if not self.outcomes:
            self.has_run_all.set()
            await asyncio.Event().wait()
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def test_a_job_runs_at_its_interval_and_says_when_it_last_succeeded() -> None:
    supervisor, job, before = JobSupervisor(), Job(0, 3), datetime.now(UTC)

    async with supervisor.run("sweep", job, interval_s=0.01) as status:
        await job.has_run_all.wait()

        assert supervisor.list_statuses() == (status,)
        assert (status.name, status.interval_s, status.consecutive_failures) == ("sweep", 0.01, 0)
        assert status.last_success_at is not None
        assert status.last_success_at >= before
        assert not status.is_overdue

    assert supervisor.list_statuses() == ()


async def test_a_run_that_fails_is_counted_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    supervisor, job = JobSupervisor(), Job(UnavailableError("not now"), RuntimeError("defect"))

    async with supervisor.run("failing", job, interval_s=0.001) as status:
        await job.has_run_all.wait()

        assert (status.consecutive_failures, status.last_success_at) == (2, None)

    levels = [(record.levelname, record.exc_info is not None) for record in caplog.records]
    assert levels == [("WARNING", False), ("ERROR", True)]
    assert metrics.JOB_RUNS.labels("failing", "failed")._value.get() == 2


async def test_a_success_ends_a_series_of_failures() -> None:
    supervisor, job = JobSupervisor(), Job(RuntimeError("defect"), 0)

    async with supervisor.run("mended", job, interval_s=0.001) as status:
        await job.has_run_all.wait()

        assert status.consecutive_failures == 0
        assert status.last_success_at is not None


async def test_a_job_that_waits_for_work_does_not_spin_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    supervisor, job = JobSupervisor(), Job(RuntimeError("defect"), 1)
    monkeypatch.setattr("vultus.services.jobs.asyncio.sleep", pause)

    async with supervisor.run("queue", job, interval_s=None):
        await job.has_run_all.wait()

    assert pauses == [jobs.RETRY_DELAY_S, 0]


async def test_what_was_done_is_logged_only_if_something_was(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    supervisor, job = JobSupervisor(), Job(0, 7)

    async with supervisor.run("sweep", job, interval_s=0.001):
        await job.has_run_all.wait()

    assert [getattr(record, "count", None) for record in caplog.records] == [7]


async def test_a_name_is_given_once() -> None:
    supervisor = JobSupervisor()

    async with supervisor.run("sweep", Job(), interval_s=1):
        with pytest.raises(ValueError, match="sweep"):
            async with supervisor.run("sweep", Job(), interval_s=1):
                raise AssertionError


@pytest.mark.parametrize(
    ("interval_s", "silent_s", "is_overdue"),
    [(1.0, 299, False), (1.0, 301, True), (60.0, 599, False), (60.0, 601, True), (None, 10**6, False)],
)
def test_a_job_is_overdue_after_ten_intervals_and_five_minutes(
    monkeypatch: pytest.MonkeyPatch, interval_s: float | None, silent_s: float, is_overdue: bool
) -> None:
    status = JobStatus("job", interval_s)
    later = time.monotonic() + silent_s
    monkeypatch.setattr(time, "monotonic", lambda: later)

    assert status.is_overdue is is_overdue
