"""The candidate engine of this process: scans the indexes of the registry in a thread of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vultus.index.codes import set_single_thread
from vultus.services.search.engine import Watermark

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vultus.domain import FloatArray, NumberArray
    from vultus.index.candidates import ProbeSearch
    from vultus.services.search.engine import IndexKey, SimilarityFloor
    from vultus.services.search.index_sync import IndexRegistry

MAX_SCANS, SCAN_TTL_S = 16, 10.0
"""Scans kept for a following call of `above`, and for how long: they refer to rows that the index may have replaced."""

Result = TypeVar("Result")
ScanKey = tuple[tuple[object, ...], bytes, bytes]


class LocalCandidateEngine:
    """The indexes of a registry behind the port.

    `above` continues the scan of the `nearest` that proposed what it is to exclude; one that is not kept is repeated.
    """

    def __init__(self, indexes: IndexRegistry) -> None:
        self._indexes = indexes
        self._scans: dict[ScanKey, list[ProbeSearch]] = {}
        # One thread: a scan is bound by memory bandwidth, and the networks use the other cores.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search", initializer=set_single_thread)

    def close(self) -> None:
        """End the thread that scans indexes, after the scan it is at."""
        self._thread.shutdown()

    async def watermark(self, key: IndexKey) -> Watermark | None:
        """Return what the index of a collection holds."""
        index = self._indexes.find_index(*key)
        return None if index is None else Watermark(index.last_number, len(index))

    async def nearest(self, key: IndexKey, probes: FloatArray, count: int) -> list[NumberArray] | None:
        """Return the numbers of about `count` nearest templates per probe."""
        scans = self._start_scans(key, probes)
        if scans is None:
            return None
        proposed = await self._run_in_thread(lambda: [scan.nearest(count) for scan in scans])
        self._keep_scans(_build_scan_key(key, probes, proposed), scans)
        return proposed

    async def above(
        self,
        key: IndexKey,
        probes: FloatArray,
        floors: Sequence[Sequence[SimilarityFloor]],
        exclude: Sequence[NumberArray],
    ) -> list[NumberArray] | None:
        """Return the numbers of all templates that may reach a floor, without those to exclude."""
        scans = self._scans.pop(_build_scan_key(key, probes, exclude), None) or self._start_scans(key, probes)
        if scans is None:
            return None
        return await self._run_in_thread(lambda: list(map(_find_above, scans, floors, exclude)))

    def _start_scans(self, key: IndexKey, probes: FloatArray) -> list[ProbeSearch] | None:
        index = self._indexes.find_index(*key)
        return None if index is None else [index.start_search(probe) for probe in probes]

    def _keep_scans(self, scan_key: ScanKey, scans: list[ProbeSearch]) -> None:
        self._scans[scan_key] = scans
        if len(self._scans) > MAX_SCANS:
            del self._scans[next(iter(self._scans))]
        asyncio.get_running_loop().call_later(SCAN_TTL_S, self._scans.pop, scan_key, None)

    async def _run_in_thread(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def _build_scan_key(key: IndexKey, probes: FloatArray, proposed: Sequence[NumberArray]) -> ScanKey:
    return key, probes.tobytes(), b"".join(numbers.tobytes() for numbers in proposed)


def _find_above(scan: ProbeSearch, floors: Sequence[SimilarityFloor], exclude: NumberArray) -> NumberArray:
    found = scan.above_similarity(*((floor.cosine, floor.risk) for floor in floors))
    admitted = [numbers for floor, numbers in zip(floors, found, strict=True) if len(numbers) <= floor.max_candidates]
    return np.setdiff1d(np.concatenate(admitted), exclude) if admitted else exclude[:0]
