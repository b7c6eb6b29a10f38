"""The candidate engine of this process: scans the indexes of the registry in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vultus.domain import NumberArray
from vultus.index.candidates import CandidateIndex, ProbeSearch
from vultus.index.codes import set_single_thread
from vultus.services.search.engine import Watermark

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.domain import FloatArray
    from vultus.services.search.engine import IndexKey, SimilarityFloor
    from vultus.services.search.index_sync import IndexRegistry

MAX_SCAN_BYTES = 256 * 2**20
"""Memory of all scans that are kept for the next call of their searches; a scan beyond it is repeated."""

Result = TypeVar("Result")
SearchKey = tuple[tuple[object, ...], bytes]


@dataclass(slots=True, eq=False)
class _Scan:
    """A scan of an index.

    Attributes:
        index: What is scanned.
        last_number: Every face up to this number was there to be scanned.
        searches: One per probe.
        proposed: What they proposed last, one array per probe.
    """

    index: CandidateIndex
    last_number: int
    searches: list[ProbeSearch]
    proposed: Sequence[NumberArray] = ()

    @property
    def size_bytes(self) -> int:
        return sum(search.size_bytes for search in self.searches)

    def has_proposed(self, numbers: Sequence[NumberArray]) -> bool:
        """Return whether these numbers are what it left out of its next answer."""
        return len(numbers) == len(self.proposed) and all(map(np.array_equal, numbers, self.proposed))


class LocalCandidateEngine:
    """The indexes of a registry behind the port.

    A search that widens, or goes on to `above`, continues its scan; one that is not kept is repeated, with the same
    answer. What is kept refers to rows that the index may have replaced, and leaves with its search.
    """

    def __init__(self, indexes: IndexRegistry) -> None:
        self._indexes = indexes
        self._scans: dict[SearchKey, _Scan] = {}
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
        scan = self._take_scan(key, probes) or self._start_scan(key, probes)
        if scan is None:
            return None
        proposed = await self._run_in_thread(lambda: [search.nearest(count) for search in scan.searches])
        scan.proposed = proposed
        self._keep_scan(_build_search_key(key, probes), scan)
        return proposed

    async def above(
        self,
        key: IndexKey,
        probes: FloatArray,
        floors: Sequence[Sequence[SimilarityFloor]],
        exclude: Sequence[NumberArray],
    ) -> list[NumberArray] | None:
        """Return the numbers of all templates that may reach a floor, without those to exclude."""
        scan = self._take_scan(key, probes)
        if scan is None or not scan.has_proposed(exclude):
            scan = self._start_scan(key, probes)
        if scan is None:
            return None
        return await self._run_in_thread(lambda: list(map(_find_above, scan.searches, floors, exclude)))

    def end_search(self, key: IndexKey, probes: FloatArray) -> None:
        """Drop the scan of a search."""
        self._scans.pop(_build_search_key(key, probes), None)

    def _start_scan(self, key: IndexKey, probes: FloatArray) -> _Scan | None:
        index = self._indexes.find_index(*key)
        if index is None:
            return None
        last_number = index.last_number  # first: what is added from now on may be scanned or not
        return _Scan(index, last_number, [index.start_search(probe) for probe in probes])

    def _take_scan(self, key: IndexKey, probes: FloatArray) -> _Scan | None:
        """Return the scan of a search that has been kept, unless the index holds more by now: it may be another's."""
        scan = self._scans.pop(_build_search_key(key, probes), None)
        if scan is None or scan.index is not self._indexes.find_index(*key):
            return None
        return scan if scan.last_number == scan.index.last_number else None

    def _keep_scan(self, search_key: SearchKey, scan: _Scan) -> None:
        """Keep a scan for the next call of its search, instead of the oldest ones if they are too large together."""
        self._scans[search_key] = scan
        while sum(kept.size_bytes for kept in self._scans.values()) > MAX_SCAN_BYTES:
            del self._scans[next(iter(self._scans))]

    async def _run_in_thread(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def _build_search_key(key: IndexKey, probes: FloatArray) -> SearchKey:
    return key, probes.tobytes()


def _find_above(search: ProbeSearch, floors: Sequence[SimilarityFloor], exclude: NumberArray) -> NumberArray:
    above = search.above_similarity(*((floor.cosine, floor.risk) for floor in floors))
    # Before they are counted: a scan that is continued has left them out already.
    found = [np.setdiff1d(numbers, exclude) for numbers in above]
    admitted = [numbers for floor, numbers in zip(floors, found, strict=True) if len(numbers) <= floor.max_candidates]
    return np.unique(np.concatenate(admitted)) if admitted else exclude[:0]
