"""Workers: threads of this process for commands, separate processes for the server."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from mmap import mmap

    from vultus.domain import Analysis
    from vultus.models.pipeline import AnalysisRequest
    from vultus.models.pipelines import PipelineRegistry


class WorkerEndedError(Exception):
    """The worker ended, and the photos of its batch were not analysed."""


class WorkerStoppedError(WorkerEndedError):
    """The worker was stopped, because its batch took too long.

    Args:
        detail: What happened.
        position: Of the photo, in the batch, whose decoding took too long; None if something else did.
    """

    def __init__(self, detail: str, position: int | None = None) -> None:
        super().__init__(detail)
        self.position = position


class Worker(Protocol):
    """Analyses one batch of photos at a time."""

    async def analyze_batch(self, space_id: str, requests: Sequence[AnalysisRequest]) -> list[Analysis | Exception]:
        """Return an analysis, or the error that prevented it, for every photo, in order.

        Args:
            space_id: Embedding space whose networks analyse the photos.
            requests: The photos.

        Raises:
            WorkerStoppedError: It took too long.
            WorkerEndedError: The worker ended; it must be restarted before its next batch.
        """
        ...

    def watch_idle(self, on_end: Callable[[], None]) -> None:
        """Call back once if the worker ends before its next batch."""
        ...

    async def restart(self) -> None:
        """Replace a worker that ended.

        Raises:
            WorkerEndedError: It could not be replaced.
        """
        ...

    async def close(self) -> None:
        """End the worker after its current batch."""
        ...


class WorkerGroup(Protocol):
    """A group of workers and the shared count of photos in flight."""

    @property
    def workers(self) -> Sequence[Worker]:
        """The workers; each runs one batch at a time."""
        ...

    @property
    def in_flight(self) -> bytearray | mmap:
        """One byte, the number of photos in flight, 255 at most: the only photo in flight may use every core."""
        ...


class ThreadWorkerGroup:
    """Worker threads, which neither fork nor copy data: for commands and for tests that inspect the pool.

    Args:
        pipelines: Analyse the photos.
        workers: Number of threads.
    """

    def __init__(self, pipelines: PipelineRegistry, workers: int) -> None:
        self.in_flight = bytearray(1)
        self.workers = [ThreadWorker(pipelines) for _ in range(workers)]


class ThreadWorker:
    """A worker thread. Graphs are not compiled for all cores: a command ends before that would save time."""

    def __init__(self, pipelines: PipelineRegistry) -> None:
        self._pipelines = pipelines
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="analysis")

    async def analyze_batch(self, space_id: str, requests: Sequence[AnalysisRequest]) -> list[Analysis | Exception]:
        """Analyse a batch in the thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, run_batch, self._pipelines, space_id, requests)

    def watch_idle(self, on_end: Callable[[], None]) -> None:
        """Do nothing: a thread ends only with its process."""

    async def restart(self) -> None:
        """Do nothing: a thread ends only with its process."""

    async def close(self) -> None:
        """End the thread."""
        await asyncio.to_thread(self._thread.shutdown)


def run_batch(
    pipelines: PipelineRegistry, space_id: str, requests: Sequence[AnalysisRequest]
) -> list[Analysis | Exception]:
    """Return an analysis or an error for every photo; a defect is the result of all of them; blocks."""
    try:
        return pipelines.get_pipeline_for_space(space_id).analyze_photos(requests)
    except Exception as error:  # noqa: BLE001  a defect; every caller needs a result
        return [error for _ in requests]
