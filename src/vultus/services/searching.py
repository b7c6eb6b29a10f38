"""Who is closest? In SQL among few faces, through the candidate index among many; the same answer either way."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vultus.domain import Fusion
from vultus.index.codes import one_thread
from vultus.services.collections import calibration_of
from vultus.services.decision import threshold_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from vultus.db.database import Work
    from vultus.db.repositories.faces import SearchResult
    from vultus.domain import Collection, FloatArray, NumberArray
    from vultus.index.candidates import CandidateIndex, Hunt
    from vultus.models.pipeline import FacePipeline
    from vultus.services.indexing import Indexes

Result = TypeVar("Result")

WIDENED = 4
"""How many times more faces are proposed when those so far belong to too few persons."""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is searched, where, and how exact the answer must be.

    Attributes:
        probes: (k, d) float32, each row of length 1.
        limit: Candidates a probe.
        needed: Given the gallery's size, the cosine at which somebody counts as found, and the margin that the next
            person must be behind: what is below both decides nothing.
    """

    collection_id: UUID
    contract_id: str
    probes: FloatArray
    limit: int
    fusion: Fusion
    needed: Callable[[int], tuple[float, float]]


def query_of(home: Collection, pipeline: FacePipeline, probes: FloatArray, limit: int) -> Query:
    """Return the search of a collection whose answer its policy decides by.

    Args:
        home: Its policy as it is under the pipeline's contract.
        pipeline: Made the probes.
        probes: (k, d) float32, each row of length 1.
        limit: Candidates a probe.
    """
    policy, calibration = home.policy, calibration_of(home, pipeline)
    margin = policy.margin if policy.margin is not None else calibration.margin
    return Query(
        collection_id=home.id,
        contract_id=pipeline.contract.id,
        probes=probes,
        limit=limit,
        fusion=policy.fusion,
        needed=lambda size: (threshold_for(policy, calibration, size).cosine, margin),
    )


class Searcher:
    """Finds the closest persons.

    Args:
        indexes: Those there are; a collection without one is searched in SQL.
        candidates: Faces proposed for a probe before anything is known.
    """

    def __init__(self, indexes: Indexes, *, candidates: int) -> None:
        self._indexes = indexes
        self._candidates = candidates
        # One: a scan is as fast as the memory is, and the networks have the other cores.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search", initializer=one_thread)

    async def search(self, work: Work, query: Query) -> tuple[SearchResult, ...]:
        """Return one result a probe, in their order, as `Faces.search` does.

        With an index, the persons that a decision needs are exact but for its risk; who else is listed is so nearly.
        For a mean of a person's faces the persons with the closest faces are compared.
        """
        found = await self.by_index_if_any(work, query)
        if found is None:
            return await self.exactly(work, query)
        self._indexes.watch.offer(query)
        return found

    async def exactly(self, work: Work, query: Query) -> tuple[SearchResult, ...]:
        """Compare every face, in SQL."""
        return await work.faces.search(
            query.collection_id, query.contract_id, query.probes, query.limit, query.fusion
        )

    async def by_index_if_any(self, work: Work, query: Query) -> tuple[SearchResult, ...] | None:
        """Search by the collection's index; None if it has none."""
        index = self._indexes.of(query.collection_id, query.contract_id)
        return None if index is None else await self._by_index(work, query, index)

    async def _by_index(self, work: Work, query: Query, index: CandidateIndex) -> tuple[SearchResult, ...]:
        """Compare what an index proposes, and what is newer than it."""
        # In this order: what is newer than this is added by the database, and what is not is in the index by now.
        after, size = index.last, len(index)
        hunts = [index.hunt(probe) for probe in query.probes]
        proposed: list[NumberArray] = []
        found: list[SearchResult] = []
        count = self._candidates
        while True:
            proposed = await self._run(lambda count=count: [hunt.closest(count) for hunt in hunts])  # type: ignore[misc]
            found = await self._rescore(work, query, range(len(hunts)), proposed, after)
            if count >= size or all(len(one.candidates) >= query.limit for one in found):
                break
            count *= WIDENED
        floors = [_floors(one, query, size) for one in found]
        most = WIDENED * self._candidates
        left = await self._run(
            lambda: [_left(*each, *floor, most) for *each, floor in zip(hunts, proposed, floors, strict=True)]
        )
        again = [at for at, numbers in enumerate(left) if numbers is not None]
        if again:
            more = [np.union1d(proposed[at], left[at]) for at in again]
            for at, one in zip(again, await self._rescore(work, query, again, more, after), strict=True):
                found[at] = one
        return tuple(replace(one, gallery_size=size + one.gallery_size) for one in found)

    async def _rescore(
        self, work: Work, query: Query, which: Sequence[int], proposed: Sequence[NumberArray], after: int
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


def _floors(found: SearchResult, query: Query, size: int) -> tuple[float, float]:
    """Return the cosines above which nobody should, and nobody may, be missing.

    Of a person found: everybody better and, within the margin, the next. Of a person not found: everybody who would be
    found; it is well to know who is closest, but not at any price.
    """
    threshold, margin = query.needed(size + found.gallery_size)
    best, *others = [candidate.similarity for candidate in found.candidates[:2]] or [-1.0]
    if best < threshold:
        return best, threshold
    floor = max(best - margin, *others)
    return floor, floor


def _left(hunt: Hunt, proposed: NumberArray, wished: float, needed: float, most: int) -> NumberArray | None:
    """Return the faces that may be above a cosine, or None if all of them were proposed already."""
    open_ = hunt.above(wished)
    if len(open_) > most and needed > wished:
        open_ = hunt.above(needed)
    return None if np.isin(open_, proposed, kind="sort").all() else open_
