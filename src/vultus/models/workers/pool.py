"""Photos analysed beside the event loop: a bounded line, batches for free workers, an answer for everyone."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from vultus.errors import UnavailableError, WorkerLostError
from vultus.models.pipeline import Asked
from vultus.models.workers.admission_queue import Job, Line
from vultus.models.workers.worker import Threads, WorkerEndedError
from vultus.utils import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from vultus.domain import Analysis
    from vultus.models.pipeline import FacePipeline
    from vultus.models.workers.worker import Crew, Worker
    from vultus.settings import InferenceSettings

log = logging.getLogger(__name__)

POLL_S = 0.01

KEPT_S = 0.2
"""For how long a place is kept for a photo that is not here yet: less than those in line take, so that places kept for
slow senders never leave the workers without photos."""

_place: ContextVar[object] = ContextVar("_place", default=None)

STAGES = ("decode", "detect", "align", "liveness", "embed")
CLOSING = "The server is shutting down."
LOST = (
    "The process that analysed the photo ended. Another one takes its place; if the same photo ends that one too, the "
    "photo is the cause: do not send it again."
)


class AnalysisPool:
    """Hands photos to workers; refuses at once when full. Lives in one event loop.

    Args:
        settings: How many photos run, how many may wait, how many are taken together.
        crew: The workers; threads of this process unless given.
    """

    def __init__(self, settings: InferenceSettings, crew: Crew | None = None) -> None:
        self._crew = crew or Threads(settings.workers)
        self._free = list(self._crew.workers)
        self._workers = len(self._free)
        self._line = Line(workers=self._workers, max_queue=settings.max_queue, max_batch=settings.max_batch)
        self._batches: set[asyncio.Task[None]] = set()
        self._kept: dict[object, float] = {}
        self._closing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def waiting(self) -> int:
        """Photos in the pool, running ones included."""
        return self._line.taken

    @property
    def idle(self) -> bool:
        """Whether a photo would be analysed at once."""
        return self._line.taken < self._workers

    async def room(self, patience_s: float) -> None:
        """Let requests go first: return when a photo would be analysed at once, or when patience is over."""
        until = time.monotonic() + patience_s
        while True:
            await asyncio.sleep(POLL_S)
            if self.idle or time.monotonic() > until:
                return

    def check_workers(self) -> None:
        """Return if there is anybody to analyse photos.

        Raises:
            UnavailableError: The pool is closing, or every worker ended and none could be had in its place.
        """
        if self._closing:
            raise UnavailableError(CLOSING)
        if not self._workers:
            raise UnavailableError("No process is left that analyses photos; the server must be started again.")

    def check_room(self) -> None:
        """Return if a photo would be taken now.

        Raises:
            OverloadedError: Every place is taken; `retry_after_s` says when those in line now will have been served.
            UnavailableError: As from `check_workers`.
        """
        self.check_workers()
        now = time.monotonic()
        with metrics.of(metrics.REFUSED, "photos").count_exceptions():
            self._line.check(kept=sum(until > now for until in self._kept.values()))

    @contextmanager
    def place(self) -> Iterator[None]:
        """Keep a place, for a moment, for the photo of a request that is being read within the block.

        Otherwise all requests that come while one is read would be let in, and most of them refused when they are read.

        Raises:
            OverloadedError: As from `check_room`.
            UnavailableError: As from `check_workers`.
        """
        self.check_room()
        place = object()
        token = _place.set(place)
        self._kept[place] = time.monotonic() + KEPT_S
        try:
            yield
        finally:
            self._kept.pop(place, None)
            _place.reset(token)

    async def analyze(
        self,
        photo: bytes,
        pipeline: FacePipeline,
        *,
        embed: bool = True,
        crops: bool = False,
        liveness: bool = False,
    ) -> Analysis:
        """Return every face of a photo, left to right, as a pipeline describes it.

        A caller who is cancelled while waiting leaves the line: the networks do not run for nobody.

        Raises:
            OverloadedError: Every place is taken; nothing was queued.
            UnavailableError: The pool is closing.
            WorkerLostError: The process that analysed the photo ended.
            ImageError: The bytes are no usable image.
            UnsupportedImageError: The format is not read.
            ImageTooLargeError: More bytes or pixels than the limits.
        """
        self._kept.pop(_place.get(), None)
        self.check_room()
        job = Job(Asked(photo, embed, crops, liveness), pipeline, asyncio.get_running_loop().create_future())
        self._line.join(job)
        self._hand_out()
        try:
            return await job.answer
        finally:
            self._line.leave(job)
            self._report()

    async def close(self) -> None:
        """Let running photos finish and answer everyone who still waits with `UnavailableError`."""
        self._closing = True
        self._turn_away(CLOSING)
        await asyncio.gather(*self._batches)
        await asyncio.gather(*(worker.close() for worker in self._crew.workers))

    def _hand_out(self) -> None:
        """Give every free worker a batch."""
        while self._free and len(self._line):
            # The one that was busy last: its memory is warm, and only it makes what a lone photo needs of all cores.
            task = asyncio.create_task(self._run(self._free.pop(), self._line.take()))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)
        self._report()

    async def _run(self, worker: Worker, batch: list[Job]) -> None:
        started = time.perf_counter()
        metrics.BATCH_PHOTOS.observe(len(batch))
        try:
            answers = await worker.describe(batch[0].pipeline, [job.asked for job in batch])
        except WorkerEndedError as error:
            log.error("%s It had %d photos.", error, len(batch))
            self._line.done(batch, time.perf_counter() - started)
            self._lost(batch)
            await self._replace(worker)
            return
        self._line.done(batch, time.perf_counter() - started)
        self._free.append(worker)
        self._hand_out()  # first: the callers' next steps take longer than the worker should wait for
        for job, answer in zip(batch, answers, strict=True):
            _tell(job, answer)

    def _lost(self, batch: list[Job]) -> None:
        """Answer the photo that was with a worker when it ended; one of several gets another try, by itself."""
        for job in reversed(batch):
            if len(batch) == 1 or self._closing:
                _tell(job, WorkerLostError(LOST))
            elif not job.answer.done():
                job.alone = True
                self._line.join(job)

    async def _replace(self, worker: Worker) -> None:
        metrics.WORKERS_LOST.inc()
        try:
            if not self._closing:
                await worker.replace()
        except WorkerEndedError as error:
            log.error("%s There is one worker less.", error)
            self._workers -= 1
            if not self._workers:
                self._turn_away("No process is left that analyses photos.")
            self._hand_out()
            return
        self._free.append(worker)
        self._hand_out()

    def _turn_away(self, detail: str) -> None:
        for job in self._line.clear():
            _tell(job, UnavailableError(detail))

    def _report(self) -> None:
        """Let workers and metrics see how many photos there are."""
        self._crew.crowd[0] = min(255, self._line.taken)
        metrics.PHOTOS_WAITING.set(len(self._line))
        metrics.WORKERS_BUSY.set(self._workers - len(self._free))


def _tell(job: Job, answer: Analysis | Exception) -> None:
    """Answer a caller who is still there."""
    if job.answer.done():
        return
    if isinstance(answer, Exception):
        job.answer.set_exception(answer)
        return
    took_ms = (time.perf_counter() - job.joined_at) * 1e3
    # A worker decodes what strangers send: what it calls a stage must not become a header or a metric by itself.
    stages = {name: float(answer.timings_ms[name]) for name in STAGES if name in answer.timings_ms}
    timings = {"queue": max(0.0, took_ms - sum(stages.values())), **stages}
    job.answer.set_result(replace(answer, timings_ms=timings))
