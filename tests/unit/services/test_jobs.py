"""Jobs run again and again, whatever becomes of a single run, and say how they are doing."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import pytest

from vultus.errors import NotFoundError, UnavailableError, VultusError
from vultus.services import jobs
from vultus.services.jobs import MAX_FAILURES, JobStatus, JobSupervisor, PartialFailureError, record_progress
from vultus.services.migration.shadow import ShadowComparer
from vultus.services.search.recall_monitor import RecallMonitor
from vultus.services.search.search import Searcher
from vultus.settings import IndexSettings
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


async def test_a_job_whose_first_run_was_made_before_begins_with_a_pause() -> None:
    job = Job(1)

    async with JobSupervisor().run("ledger", job, interval_s=30, begins_at_once=False) as status:
        await asyncio.sleep(0.01)

    assert (job.outcomes, status.last_success_at) == ([1], None)


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


async def test_a_long_run_that_makes_progress_is_not_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MIN_OVERDUE_S", 0.2)
    may_go_on, has_gone_on = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        await may_go_on.wait()
        record_progress()
        has_gone_on.set()
        await asyncio.Event().wait()

    async with JobSupervisor().run("long", run, interval_s=0.001) as status:
        await asyncio.sleep(0.3)
        assert status.is_overdue
        may_go_on.set()
        await has_gone_on.wait()
        assert not status.is_overdue
        assert status.last_success_at is None


async def test_progress_outside_of_a_job_is_nobodys() -> None:
    async with JobSupervisor().run("other", Job(), interval_s=1) as status:
        alive_at = status._alive_at
        record_progress()

        assert status._alive_at == alive_at


async def test_a_run_that_failed_in_part_is_a_failure_without_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    job = Job(PartialFailureError("one of three"))

    async with JobSupervisor().run("parts", job, interval_s=0.001) as status:
        await job.has_run_all.wait()

        assert (status.consecutive_failures, status.last_success_at) == (1, None)
    assert [(record.levelname, record.exc_info is not None) for record in caplog.records] == [("WARNING", False)]


@pytest.mark.parametrize("interval_s", [None, 60.0])
def test_a_job_is_overdue_when_its_last_runs_failed_until_one_succeeds(interval_s: float | None) -> None:
    status = JobStatus("job", interval_s)
    for _ in range(MAX_FAILURES - 1):
        status.record_failure()
    assert not status.is_overdue

    status.record_failure()
    assert status.is_overdue
    status.record_success()
    assert not status.is_overdue


def test_failures_of_a_job_that_waits_for_work_lapse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A night without work must not keep the server degraded for an outage of the evening."""
    status, now = JobStatus("queue", None), time.monotonic()
    for _ in range(MAX_FAILURES):
        status.record_failure()
    assert status.is_overdue

    monkeypatch.setattr(time, "monotonic", lambda: now + jobs.MIN_OVERDUE_S + 60)

    assert not status.is_overdue


async def test_a_job_that_has_ended_is_overdue() -> None:
    """Nothing but the supervisor may end one; what does, a cancelled future for example, must not go unnoticed."""

    async def end() -> None:
        raise asyncio.CancelledError

    async with JobSupervisor().run("queue", end, interval_s=None) as status:
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)

        assert status.is_overdue


@pytest.mark.parametrize(
    ("error", "has_failed"), [(UnavailableError("no database"), True), (NotFoundError("deleted meanwhile"), False)]
)
@pytest.mark.parametrize("job", ["shadow-comparison", "recall-monitor"])
async def test_what_cannot_be_repeated_is_left_out_unless_the_server_is_at_fault(
    monkeypatch: pytest.MonkeyPatch, job: str, error: VultusError, has_failed: bool
) -> None:
    async def fail(*_: object) -> None:
        raise error

    unused: Any = None
    monitor = RecallMonitor(1.0, 0.0)
    monitor._queue.put_nowait(unused)
    searcher = Searcher(unused, unused, monitor, IndexSettings())
    comparer = ShadowComparer(unused, unused, unused, searcher)
    comparer._queue.put_nowait(type("Answered", (), {"photo": b"", "recognition": None}))  # type: ignore[arg-type]
    monkeypatch.setattr(searcher, "check_recall", fail)
    monkeypatch.setattr(comparer, "compare_recognition", fail)
    run = comparer.compare_next if job == "shadow-comparison" else searcher.check_next_recall

    with pytest.raises(UnavailableError) if has_failed else nullcontext():
        await run()
