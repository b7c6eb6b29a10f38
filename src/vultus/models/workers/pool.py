"""Analysis of photos outside the event loop: an admission queue, batches for free workers, a result per caller."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

from vultus.domain import EMBEDDINGS, Lane
from vultus.errors import ImageTooSlowError, OverloadedError, UnavailableError, WorkerLostError
from vultus.models.pipeline import AnalysisRequest
from vultus.models.workers.admission_queue import AdmissionQueue, AnalysisJob
from vultus.models.workers.worker import WorkerEndedError, WorkerStoppedError
from vultus.utils import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from prometheus_client.context_managers import ExceptionCounter

    from vultus.domain import Analysis, Want
    from vultus.models.workers.admission_queue import SlotReservation
    from vultus.models.workers.worker import Worker, WorkerGroup
    from vultus.settings import InferenceSettings

log = logging.getLogger(__name__)

STAGES = ("decode", "detect", "align", "liveness", "embed")
CLOSING_DETAIL = "The server is shutting down."
WORKER_LOST_DETAIL = (
    "The process that analysed the photo ended, and so did another one with it, or it took far too long. The photo may "
    "be the cause: do not send it again."
)
DECODING_DETAIL = (
    "Decoding the photo takes too long; it was stopped. Save it anew as an ordinary JPEG, or make it smaller."
)

MAX_LOSSES = 2
"""Workers that may end with a photo before it counts as the cause."""

RESTART_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Before the attempts to replace a worker: memory that is short now may be there in a moment."""


class AnalysisPool:
    """Dispatches photos to workers; rejects immediately when full. Belongs to one event loop.

    Args:
        settings: Numbers of workers, of waiting photos and of photos per batch.
        group: The workers.
        on_lost: Called when the last worker has ended and cannot be replaced.
    """

    def __init__(
        self, settings: InferenceSettings, group: WorkerGroup, *, on_lost: Callable[[], None] = lambda: None
    ) -> None:
        self._group = group
        self._on_lost = on_lost
        self._free_workers: list[Worker] = []
        self._worker_count = len(group.workers)
        self._queue = AdmissionQueue(
            workers=self._worker_count, max_queue=settings.max_queue, max_batch=settings.max_batch
        )
        self._batch_tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False
        for worker in group.workers:
            self._add_free_worker(worker)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def in_flight(self) -> int:
        """Photos in the pool, waiting or running."""
        return self._queue.running + len(self._queue)

    def ensure_workers(self) -> None:
        """Raise unless there is a worker.

        Raises:
            UnavailableError: The pool is closing, or every worker ended and could not be restarted.
        """
        if self._is_closing:
            raise UnavailableError(CLOSING_DETAIL)
        if not self._worker_count:
            raise UnavailableError("No process is left that analyses photos; the server must be started again.")

    def ensure_capacity(self, client: str | None = None) -> None:
        """Raise unless a photo would be accepted now.

        Args:
            client: Who sends it, if that is known yet.

        Raises:
            OverloadedError: All slots are occupied, or the photo would wait too long while more are wanted than can be
                served; `retry_after_s` estimates when those wanted now will be done.
            UnavailableError: As from `ensure_workers`.
        """
        self.ensure_workers()
        with _count_refusals():
            self._queue.ensure_capacity(client)

    def reserve_slot(self, client: str = "") -> SlotReservation:
        """Reserve a slot for a photo that is still being received.

        Otherwise all requests that arrive while one is read would be accepted, and most rejected once they are read.

        Args:
            client: Who sends it.

        Raises:
            OverloadedError: As from `ensure_capacity`.
            UnavailableError: As from `ensure_workers`.
        """
        self.ensure_workers()
        with _count_refusals():
            return self._queue.reserve_slot(client)

    async def analyze_photo(
        self,
        photo: bytes,
        space_id: str,
        want: Want = EMBEDDINGS,
        lane: Lane = Lane.INTERACTIVE,
        *,
        source: str = "",
        reservation: SlotReservation | None = None,
    ) -> Analysis:
        """Return every face of a photo, left to right, as `FacePipeline.analyze_photo` does.

        A job whose caller is cancelled while it waits is removed from the queue, so that no inference runs without a
        recipient.

        Args:
            photo: A JPEG, PNG, WebP, HEIC or AVIF file.
            space_id: Embedding space whose networks analyse it.
            want: What is wanted of it.
            lane: How urgent it is.
            source: Of a frame in the live lane.
            reservation: The slot reserved for the photo, if any; it is released.

        Raises:
            OverloadedError: All slots are occupied; or the frame was dropped.
            UnavailableError: The pool is closing.
            WorkerLostError: Two processes ended while they analysed the photo, or it took too long.
            ImageError: The bytes are no usable image.
            UnsupportedImageError: The format is not read.
            ImageTooLargeError: More bytes or pixels than the limits.
        """
        self.ensure_workers()
        result = asyncio.get_running_loop().create_future()
        if lane is Lane.LIVE:
            # A camera keeps its orientation, and most frames without a face show none: they are searched once.
            want = replace(want, turned=False)
        client = "" if reservation is None else reservation.client
        job = AnalysisJob(AnalysisRequest(photo, want), space_id, result, lane, source, client)
        with _count_refusals(lane):
            self._queue.enqueue(job, reservation)
        self._start_batches()
        try:
            return await job.result
        finally:
            self._queue.cancel(job)
            self._update_metrics()

    async def close(self) -> None:
        """Wait for running photos; reject waiting ones with `UnavailableError`."""
        self._is_closing = True
        self._reject_waiting(CLOSING_DETAIL)
        await asyncio.gather(*self._batch_tasks)
        await asyncio.gather(*(worker.close() for worker in self._group.workers))

    def _start_batches(self) -> None:
        """Start a batch on every free worker."""
        while self._free_workers and len(self._queue):
            # The worker that was busy last: its caches are warm, and only it compiles the graphs that use all cores.
            self._start_task(self._run_batch(self._free_workers.pop(), self._queue.next_batch()))
        self._update_metrics()

    def _start_task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._batch_tasks.add(task)
        task.add_done_callback(self._batch_tasks.discard)

    def _add_free_worker(self, worker: Worker) -> None:
        self._free_workers.append(worker)
        worker.watch_idle(partial(self._handle_idle_end, worker))

    def _handle_idle_end(self, worker: Worker) -> None:
        """Replace a worker that ended while it was idle, before a photo meets it."""
        if worker in self._free_workers and not self._is_closing:
            log.error("A worker ended while it was idle.")
            self._free_workers.remove(worker)
            self._start_task(self._replace_worker(worker))

    async def _run_batch(self, worker: Worker, batch: list[AnalysisJob]) -> None:
        started = time.perf_counter()
        metrics.BATCH_PHOTOS.observe(len(batch))
        try:
            results = await worker.analyze_batch(batch[0].space_id, [job.request for job in batch])
        except WorkerEndedError as error:
            log.error("%s It had %d photos.", error, len(batch))
            self._queue.complete(batch, time.perf_counter() - started)
            self._handle_lost_batch(batch, error)
            await self._replace_worker(worker)
            return
        self._queue.complete(batch, time.perf_counter() - started)
        self._add_free_worker(worker)
        self._start_batches()  # first, so that the worker does not wait for the callers' next steps
        for job, result in zip(batch, results, strict=True):
            _set_result(job, result)

    def _handle_lost_batch(self, batch: list[AnalysisJob], error: WorkerEndedError) -> None:
        """Try the photos of a worker that ended once more, each alone; not frames, and not one that is to blame."""
        slow = error.position if isinstance(error, WorkerStoppedError) else None
        for position, job in reversed(list(enumerate(batch))):
            job.losses += 1
            is_to_blame = isinstance(error, WorkerStoppedError) and slow is None and len(batch) == 1
            if position == slow:
                _set_result(job, ImageTooSlowError(DECODING_DETAIL))
            elif self._is_closing or job.lane is Lane.LIVE or is_to_blame or job.losses >= MAX_LOSSES:
                _set_result(job, WorkerLostError(WORKER_LOST_DETAIL))
            elif not job.result.done():
                self._queue.enqueue_again(job)

    async def _replace_worker(self, worker: Worker) -> None:
        metrics.WORKERS_LOST.inc()
        for pause_s in RESTART_PAUSES_S:
            if self._is_closing:
                return
            try:
                await asyncio.sleep(pause_s)
                await worker.restart()
            except WorkerEndedError as error:
                log.error("%s The worker is not replaced yet.", error)
                continue
            self._add_free_worker(worker)
            self._start_batches()
            return
        self._worker_count -= 1
        log.error("A worker cannot be replaced; %d are left.", self._worker_count)
        if not self._worker_count:
            self._reject_waiting("No process is left that analyses photos.")
            self._on_lost()
        self._update_metrics()

    def _reject_waiting(self, detail: str) -> None:
        for job in self._queue.remove_all():
            _set_result(job, UnavailableError(detail))

    def _update_metrics(self) -> None:
        """Publish the number of photos to the workers and the metrics."""
        self._group.in_flight[0] = min(255, self.in_flight)
        metrics.PHOTOS_WAITING.set(len(self._queue))
        metrics.WORKERS_BUSY.set(self._worker_count - len(self._free_workers))


def _count_refusals(lane: Lane = Lane.INTERACTIVE) -> ExceptionCounter:
    full = "frames" if lane is Lane.LIVE else "photos"
    refusals: ExceptionCounter = metrics.get_labelled(metrics.REFUSALS, full).count_exceptions(OverloadedError)
    return refusals


def _set_result(job: AnalysisJob, result: Analysis | Exception) -> None:
    """Resolve the future unless it was cancelled."""
    if job.result.done():
        return
    if isinstance(result, Exception):
        job.result.set_exception(result)
        return
    took_ms = (time.perf_counter() - job.enqueued_at) * 1e3
    # A worker decodes untrusted photos: only known stage names may become headers and metrics.
    stages = {name: float(result.timings_ms[name]) for name in STAGES if name in result.timings_ms}
    timings = {"queue": max(0.0, took_ms - sum(stages.values())), **stages}
    job.result.set_result(replace(result, timings_ms=timings))
