"""Who is closest? In SQL among few faces, through the candidate index among many; the same answer either way.

Along a graph, if the collection is set so: then not quite the same.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vultus.db.repositories.ranking import SHORTLIST
from vultus.domain import Fusion
from vultus.errors import VultusError
from vultus.index.codes import one_thread
from vultus.utils import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from vultus.db.database import Database, Look
    from vultus.domain import Candidate, NumberArray, SearchResult
    from vultus.index.candidates import CandidateIndex, Hunt
    from vultus.services.search.index_sync import Indexes
    from vultus.services.search.request import Query
    from vultus.settings import IndexSettings

log = logging.getLogger(__name__)

Result = TypeVar("Result")

WIDENED = 4
"""How many times more faces are proposed when those so far belong to too few persons."""

WISHED_RISK = 1e-3
"""That the person next to the best one is missing, who could only have turned a match into an ambiguous one."""

MOST_COMPARED = 0.1
"""Share of a gallery beyond which comparing all of it takes no longer than comparing what is proposed."""

LEAST_SPARED = 5_000

MOST_FOR_STRANGERS = 1_000
"""Faces compared in order to know who is closest to somebody who is not found: it decides nothing."""


class Searcher:
    """Finds the closest persons.

    Args:
        indexes: Those there are; a collection without one is searched in SQL.
        settings: How many faces are proposed before anything is known, and at what risk the rest is left out.
    """

    def __init__(self, indexes: Indexes, settings: IndexSettings) -> None:
        self._indexes = indexes
        self._settings = settings
        # One: a scan is as fast as the memory is, and the networks have the other cores.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search", initializer=one_thread)

    async def search(self, work: Look, query: Query) -> tuple[SearchResult, ...]:
        """Return one result a probe, in their order, as `Faces.search` does.

        With an index, the persons that a decision needs are exact but for its risk; who else is listed is so nearly.
        For a mean of a person's faces the persons with the closest faces are compared. Along a graph nothing is exact
        but what is found.
        """
        found = await self.inexactly_if_so(work, query)
        metrics.of(metrics.SEARCHES, "sql" if found is None else "graph" if query.graph else "index").inc(
            len(query.probes)
        )
        if found is None:
            return await self.exactly(work, query)
        self._indexes.watch.offer(query)
        return found

    async def repeat_forever(self, database: Database) -> None:
        """Repeat, exactly, a share of the searches by index or graph; for ever."""
        while True:
            query = await self._indexes.watch.next()
            try:
                await self.repeat(query, database)
            except VultusError as error:
                log.debug("a search was not repeated: %s", error.code)
            except Exception as error:
                log.error("a search was not repeated", exc_info=error)

    async def repeat(self, query: Query, database: Database) -> None:
        """Search both ways in one view of the database, and have counted where they differ."""
        async with database.work(read_only=True) as work:
            exact = await self.exactly(work, query)
            ours = await self.inexactly_if_so(work, query)
        if ours is not None:
            self._indexes.watch.count(query, ours, exact)

    async def exactly(self, work: Look, query: Query) -> tuple[SearchResult, ...]:
        """Compare every face, in SQL."""
        return await work.faces.search(query.collection_id, query.contract_id, query.probes, query.limit, query.fusion)

    async def inexactly_if_so(self, work: Look, query: Query) -> tuple[SearchResult, ...] | None:
        """Search along the collection's graph or by its index; None if SQL should do it."""
        if query.graph is not None:
            if self._indexes.watch.doubted(query.key):
                return None
            return await work.faces.search_along(
                query.collection_id, query.graph, query.probes, query.limit, query.fusion
            )
        if query.exact:
            return None
        index = self._indexes.of(query.collection_id, query.contract_id)
        return None if index is None else await self._by_index(work, query, index)

    async def _by_index(self, work: Look, query: Query, index: CandidateIndex) -> tuple[SearchResult, ...] | None:
        """Compare what an index proposes, and what is newer than it; None if it proposes so much that SQL is faster."""
        # In this order: what is newer than this is added by the database, and what is not is in the index by now.
        after, size = index.last, len(index)
        hunts = [index.hunt(probe) for probe in query.probes]
        count = self._settings.candidates
        if query.fusion is Fusion.MEAN:  # persons are shortlisted by their faces, of which some have several here
            count = max(count, 2 * (query.limit + SHORTLIST))
        while True:
            proposed = await self._run(partial(_closest, hunts, count))
            found = await self._rescore(work, query, range(len(hunts)), proposed, after)
            if count >= size or all(len(one.candidates) >= query.limit for one in found):
                break
            count *= WIDENED
            if count > MOST_COMPARED * size:
                return None
        floors = [_floors(one, query, size) for one in found]
        left = await self._run(partial(_left, hunts, floors, self._settings.risk))
        if any(len(numbers) > max(LEAST_SPARED, MOST_COMPARED * size) for numbers in left.values()):
            return None
        if left:
            more = await self._rescore(work, query, list(left), list(left.values()), after)
            for at, one in zip(left, more, strict=True):
                found[at] = _merged(found[at], one, query.limit)
        return tuple(replace(one, gallery_size=size + one.gallery_size) for one in found)

    async def _rescore(
        self, work: Look, query: Query, which: Sequence[int], proposed: Sequence[NumberArray], after: int
    ) -> list[SearchResult]:
        """Return the results of some probes among proposed and newer faces; their size is that of the newer ones."""
        return list(
            await work.faces.rescore(
                query.collection_id,
                query.contract_id,
                query.probes[list(which)],
                proposed,
                after,
                query.limit,
                query.fusion,
            )
        )

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


@dataclass(frozen=True, slots=True)
class _Floors:
    """Cosines above which faces are compared.

    Attributes:
        needed: Nobody above it may be missing.
        wished: Of those above it one in a thousand may be,
        most: or all of them, if they are more than this.
    """

    needed: float
    wished: float
    most: float


def _floors(found: SearchResult, query: Query, size: int) -> _Floors:
    """Return how far to go, given what was found.

    Of a person found, nobody better may be missing, and the next one, within the margin, should not. Of a person not
    found, nobody who would be found may be missing; it is well to know who is closest, but not at any price.
    """
    threshold, margin = query.needed(size + found.gallery_size)
    best, *others = [candidate.similarity for candidate in found.candidates[:2]] or [-1.0]
    if best < threshold:
        return _Floors(threshold, best, MOST_FOR_STRANGERS)
    return _Floors(best, max([best - margin, *others]), np.inf)


def _closest(hunts: Sequence[Hunt], count: int) -> list[NumberArray]:
    return [hunt.closest(count) for hunt in hunts]


def _left(hunts: Sequence[Hunt], floors: Sequence[_Floors], risk: float) -> dict[int, NumberArray]:
    """Return, by probe, the faces above its floors that were not proposed yet; probes without any are absent."""
    left = {}
    for at, (hunt, floor) in enumerate(zip(hunts, floors, strict=True)):
        numbers, wished = hunt.above((floor.needed, risk), (floor.wished, WISHED_RISK))
        if len(wished) <= floor.most:
            numbers = np.union1d(numbers, wished)
        if len(numbers):
            left[at] = numbers
    return left


def _merged(one: SearchResult, other: SearchResult, limit: int) -> SearchResult:
    """Return the best of two results for the same probe, each person once."""
    best: dict[UUID, Candidate] = {}
    for candidate in sorted((*one.candidates, *other.candidates), key=lambda each: -each.similarity):
        best.setdefault(candidate.person_id, candidate)
    ranked = sorted(best.values(), key=lambda each: (-each.similarity, each.person_id))
    return replace(one, candidates=tuple(ranked[:limit]))
