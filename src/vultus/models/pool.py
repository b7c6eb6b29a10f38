"""Photos analysed beside the event loop: a few threads, a bounded queue, an answer for everyone."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from vultus.errors import OverloadedError, UnavailableError

if TYPE_CHECKING:
    from types import TracebackType

    from vultus.domain import Analysis
    from vultus.models.pipeline import FacePipeline
    from vultus.settings import InferenceSettings


POLL_S = 0.01


class AnalysisPool:
    """Runs pipelines in threads; refuses at once when full.

    The networks leave Python's lock while they run, so threads use the cores.

    Args:
        settings: How many photos run and how many may wait.
    """

    def __init__(self, settings: InferenceSettings) -> None:
        self._workers = settings.workers
        self._places = settings.workers + settings.max_queue
        self._taken = 0
        self._lock = threading.Lock()
        self._closing = False
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="analysis")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def waiting(self) -> int:
        """Photos in the pool, running ones included."""
        return self._taken

    @property
    def idle(self) -> bool:
        """Whether a photo would be analysed at once."""
        return self._taken < self._workers

    async def room(self, patience_s: float) -> None:
        """Let requests go first: return when a photo would be analysed at once, or when patience is over."""
        until = time.monotonic() + patience_s
        while True:
            await asyncio.sleep(POLL_S)
            if self.idle or time.monotonic() > until:
                return

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

        A caller who is cancelled while waiting leaves the queue: the networks do not run for nobody.

        Raises:
            OverloadedError: Every place is taken; nothing was queued.
            UnavailableError: The pool is closing.
            ImageError: The bytes are no usable image.
            UnsupportedImageError: The format is not read.
            ImageTooLargeError: More bytes or pixels than the limits.
        """
        if self._closing:
            raise UnavailableError("The server is shutting down.")
        with self._lock:
            if self._taken >= self._places:
                raise OverloadedError(f"All {self._places} places for photos are taken.")
            self._taken += 1
        job = _Job(photo, pipeline, {"embed": embed, "crops": crops, "liveness": liveness})
        future = self._threads.submit(self._run, job)
        future.add_done_callback(lambda done: self._leave(job, done))
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        """Let running photos finish and answer everyone who still waits with `UnavailableError`."""
        self._closing = True
        await asyncio.to_thread(self._threads.shutdown)

    def _run(self, job: _Job) -> Analysis:
        waited_ms = (time.perf_counter() - job.queued_at) * 1e3
        if self._closing:
            raise UnavailableError("The server is shutting down.")
        analysis = job.pipeline.describe(job.photo, **job.wanted)
        return replace(analysis, timings_ms={"queue": waited_ms, **analysis.timings_ms})

    def _leave(self, job: _Job, _: Future[Analysis]) -> None:
        # A cancelled job stays in the executor's queue until a thread comes by; its photo need not.
        job.photo = b""
        with self._lock:
            self._taken -= 1


class _Job:
    """A photo on its way to a thread."""

    def __init__(self, photo: bytes, pipeline: FacePipeline, wanted: dict[str, bool]) -> None:
        self.photo = photo
        self.pipeline = pipeline
        self.wanted = wanted
        self.queued_at = time.perf_counter()
