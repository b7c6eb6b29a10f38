"""Nearest-person search: in SQL among few faces, through the candidate index among many, with the same decisions.

Through an HNSW graph, if the collection has one enabled: then results are approximate.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vultus.db.database import HotQueries, UnitOfWork
from vultus.db.templates.ranking import MEAN_SHORTLIST_SIZE
from vultus.domain import Fusion
from vultus.errors import SERVER_FAULT_KINDS, VultusError
from vultus.services.search.engine import SimilarityFloor
from vultus.utils import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import Candidate, NumberArray, SearchResult
    from vultus.services.search.engine import CandidateEngine
    from vultus.services.search.recall_monitor import RecallMonitor
    from vultus.services.search.request import SearchQuery
    from vultus.settings import IndexSettings

log = logging.getLogger(__name__)

QueryOpener = Callable[[], AbstractAsyncContextManager[HotQueries]]

WIDENING_FACTOR = 4
"""Factor by which the number of index candidates grows while they belong to too few persons."""

PREFERRED_RISK = 1e-3
"""Risk that the runner-up is missing, who could only have turned a match into an ambiguous one."""

MAX_COMPARED_SHARE = 0.1
"""Share of a gallery beyond which comparing all of it takes no longer than comparing the index candidates."""

MIN_COMPARED_LIMIT = 5_000
"""Index candidates that are always compared, however small the gallery."""

MAX_UNMATCHED_CANDIDATES = 1_000
"""Faces compared to find the nearest person of an unmatched probe, who does not affect the decision."""


class Searcher:
    """Finds the nearest persons. A connection is taken per statement: none is held while an index is scanned.

    Args:
        database: Compares faces exactly.
        engine: Proposes candidates; a collection that it does not hold is searched in SQL.
        recall_monitor: Receives searches to repeat exactly, and knows what must not be searched.
        settings: Initial number of index candidates, and the risk of missing a deciding face.
    """

    def __init__(
        self, database: Database, engine: CandidateEngine, recall_monitor: RecallMonitor, settings: IndexSettings
    ) -> None:
        self._database = database
        self._engine = engine
        self._recall_monitor = recall_monitor
        self._settings = settings

    async def search(self, query: SearchQuery) -> tuple[SearchResult, ...]:
        """Return one result per probe, in probe order.

        With an index, the persons that affect the decision are exact up to its risk, further ones approximate. With
        mean fusion, only the persons with the nearest faces are compared. Through a graph the cosines are exact, but
        persons may be missing.

        Raises:
            NotFoundError: The collection has been deleted; a search in SQL returns nobody and no time of change then.
        """
        queries: QueryOpener = self._database.hot_queries
        if query.graph is not None:  # whose parameters a transaction holds
            queries = partial(self._database.transaction, read_only=True)
        found = await self.search_index_or_none(queries, query)
        metrics.get_labelled(metrics.SEARCHES, "sql" if found is None else "graph" if query.graph else "index").inc(
            len(query.probes)
        )
        if found is None:
            return await self.search_exact(queries, query)
        self._recall_monitor.offer_query(query)
        return found

    async def check_next_recall(self) -> None:
        """Wait for a search that is to be repeated exactly, and repeat it; one that cannot be is left out.

        Raises:
            VultusError: The server is at fault, and not the search.
        """
        query = await self._recall_monitor.get_next_query()
        try:
            await self.check_recall(query)
        except VultusError as error:
            if error.kind in SERVER_FAULT_KINDS:
                raise
            log.debug("a search was not repeated: %s", error.code)

    async def check_recall(self, query: SearchQuery) -> None:
        """Search exactly and approximately in one snapshot, and update the recall statistics.

        The snapshot is what holds a connection during the scans here: of one search at a time, in the background.
        """
        async with self._database.transaction(read_only=True) as work:

            def use_snapshot() -> AbstractAsyncContextManager[HotQueries]:
                return nullcontext(work)

            exact = await self.search_exact(use_snapshot, query)
            approximate = await self.search_index_or_none(use_snapshot, query)
        if approximate is not None:
            self._recall_monitor.update_statistics(query, approximate, exact)

    async def search_exact(self, queries: QueryOpener, query: SearchQuery) -> tuple[SearchResult, ...]:
        """Return the results of comparing every face, in SQL."""
        async with queries() as work:
            return await work.templates.search_exact(
                query.collection_id, query.space_id, query.probes, query.limit, query.fusion
            )

    async def search_index_or_none(self, queries: QueryOpener, query: SearchQuery) -> tuple[SearchResult, ...] | None:
        """Return the results of a search through the graph or the index; None if SQL should search instead."""
        if query.exact or self._recall_monitor.is_degraded(query.key):
            return None
        if query.graph is None:
            try:
                return await self._search_index(queries, query)
            finally:
                self._engine.end_search((query.collection_id, query.space_id), query.probes)
        async with queries() as work:
            if not isinstance(work, UnitOfWork):
                raise TypeError("a graph is searched in a transaction, which holds its parameters")
            return await work.templates.search_graph(
                query.collection_id, query.graph, query.probes, query.limit, query.fusion
            )

    async def _search_index(self, queries: QueryOpener, query: SearchQuery) -> tuple[SearchResult, ...] | None:
        """Rescore index candidates and faces not yet indexed; None if they are so many that SQL is faster."""
        key, probes = (query.collection_id, query.space_id), query.probes
        # First: SQL compares the faces after this number, and all others are in the index by now.
        watermark = await self._engine.watermark(key)
        if watermark is None:
            return None
        after, size = watermark.last_number, watermark.faces
        count = self._settings.candidates
        if query.fusion is Fusion.MEAN:  # persons are shortlisted by face, and some have several
            count = max(count, 2 * (query.limit + MEAN_SHORTLIST_SIZE))
        while True:
            proposed = await self._engine.nearest(key, probes, count)
            if proposed is None:
                return None
            found = await self._rescore_candidates(queries, query, range(len(probes)), proposed, after)
            if count >= size or all(len(one.candidates) >= query.limit for one in found):
                break
            count *= WIDENING_FACTOR
            if count > MAX_COMPARED_SHARE * size:
                return None
        floors = [self._compute_floors(one, query, size) for one in found]
        above = await self._engine.above(key, probes, floors, proposed)
        if above is None or any(len(numbers) > max(MIN_COMPARED_LIMIT, MAX_COMPARED_SHARE * size) for numbers in above):
            return None
        remaining = {position: numbers for position, numbers in enumerate(above) if len(numbers)}
        if remaining:
            more = await self._rescore_candidates(queries, query, list(remaining), list(remaining.values()), after)
            for position, result in zip(remaining, more, strict=True):
                found[position] = _merge_results(found[position], result, query.limit)
        return tuple(replace(one, gallery_size=size + one.gallery_size) for one in found)

    async def _rescore_candidates(
        self,
        queries: QueryOpener,
        query: SearchQuery,
        which: Sequence[int],
        proposed: Sequence[NumberArray],
        after: int,
    ) -> list[SearchResult]:
        """Return the results of the probes `which` among index candidates and faces not yet indexed.

        Their `gallery_size` counts only the latter.
        """
        async with queries() as work:
            found = await work.templates.rescore_proposals(
                query.collection_id,
                query.space_id,
                query.probes[list(which)],
                proposed,
                after,
                query.limit,
                query.fusion,
            )
        return list(found)

    def _compute_floors(self, found: SearchResult, query: SearchQuery, size: int) -> tuple[SimilarityFloor, ...]:
        """Return the floors of a probe, given its result so far: a required one, and a preferred one at a higher risk.

        Of a matched probe, no better person may be missing: the best cosine is required, and the runner-up within the
        margin preferred. Of an unmatched probe, no match may be missing: the threshold is required, and the nearest
        person preferred, unless too many faces would be compared for that.
        """
        risk = self._settings.risk
        threshold, margin = query.get_floor(size + found.gallery_size)
        best, *others = [candidate.similarity for candidate in found.candidates[:2]] or [-1.0]
        if best < threshold:
            return SimilarityFloor(threshold, risk), SimilarityFloor(best, PREFERRED_RISK, MAX_UNMATCHED_CANDIDATES)
        return SimilarityFloor(best, risk), SimilarityFloor(max([best - margin, *others]), PREFERRED_RISK)


def _merge_results(first: SearchResult, second: SearchResult, limit: int) -> SearchResult:
    """Return the best of two results for one probe, each person once, best first."""
    best: dict[UUID, Candidate] = {}
    for candidate in sorted((*first.candidates, *second.candidates), key=lambda each: -each.similarity):
        best.setdefault(candidate.person_id, candidate)
    ranked = sorted(best.values(), key=lambda each: (-each.similarity, each.person_id))
    return replace(first, candidates=tuple(ranked[:limit]))
