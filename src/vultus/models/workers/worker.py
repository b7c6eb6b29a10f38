"""Who analyses photos: threads of this process for a command, processes of their own for the server."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

    from vultus.domain import Analysis
    from vultus.models.pipeline import Asked, FacePipeline


class WorkerEndedError(Exception):
    """The worker is gone, with the photos it had."""


class Worker(Protocol):
    """Analyses one batch at a time."""

    async def describe(self, pipeline: FacePipeline, asked: Sequence[Asked]) -> list[Analysis | Exception]:
        """Return an analysis, or why there is none, for every photo.

        Raises:
            WorkerEndedError: It died; it must be replaced before it is asked again.
        """
        ...

    async def replace(self) -> None:
        """Put another in the place of one that died.

        Raises:
            WorkerEndedError: There is none to be had.
        """
        ...

    async def close(self) -> None:
        """End, after what runs."""
        ...


class Crew(Protocol):
    """Workers, and what they see of how busy the pool is."""

    @property
    def workers(self) -> Sequence[Worker]:
        """One for every batch that runs at the same time."""
        ...

    @property
    def crowd(self) -> bytearray | mmap:
        """One byte, the number of photos in the pool as far as it fits: a photo alone may use every core."""
        ...


class Threads:
    """Workers that are threads: no start, no copies, for commands and for tests that look inside.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int) -> None:
        self.crowd = bytearray(1)
        self.workers = [ThreadWorker() for _ in range(workers)]


class ThreadWorker:
    """A thread. Networks for all cores are not made: a command ends before they would have paid for themselves."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="analysis")

    async def describe(self, pipeline: FacePipeline, asked: Sequence[Asked]) -> list[Analysis | Exception]:
        """Describe in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, describe_batch, pipeline, asked)

    async def replace(self) -> None:
        """Never needed: a thread ends with its process."""

    async def close(self) -> None:
        """End the thread."""
        await asyncio.to_thread(self._thread.shutdown)


def describe_batch(pipeline: FacePipeline, asked: Sequence[Asked]) -> list[Analysis | Exception]:
    """Describe photos, or say of each that it failed with all others; blocks."""
    try:
        return pipeline.describe_all(asked)
    except Exception as error:  # noqa: BLE001  a defect; everybody must be answered
        return [error for _ in asked]
