"""Recall of indexes and graphs, measured on a sample of searches; one that loses persons is taken out of use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vultus.domain import Fusion
from vultus.utils import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence, Set
    from uuid import UUID

    from vultus.domain import SearchResult
    from vultus.services.search.request import SearchKey, SearchQuery

log = logging.getLogger(__name__)

QUEUE_SIZE = 4
"""Searches held in memory to be repeated; further ones are dropped."""

WINDOW_SIZE = 10_000
"""Latest probes of a collection over which its share of losses is computed."""

MIN_LOSSES = 2
"""Losses below which an index is not degraded: a single one is within its accepted risk."""

TIE_TOLERANCE = 1e-6
"""Persons whose cosines differ by less share a rank."""


@dataclass(slots=True)
class RecallStatistics:
    """Results of the repeated searches of one index or graph.

    Attributes:
        probes: Probes searched for again.
        disagreed: Of these, those with a closer person in the exact search.
        expected: Persons above the threshold that exact searches listed.
        returned: Of these, those that the index or graph listed.
        degraded: Whether the index or graph has been taken out of use.
        recent: Whether each of the latest probes lost its nearest person above the threshold.
    """

    probes: int = 0
    disagreed: int = 0
    expected: int = 0
    returned: int = 0
    degraded: bool = False
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW_SIZE))

    @property
    def recall(self) -> float:
        """Return the share of the expected persons that were returned."""
        return self.returned / self.expected if self.expected else 1.0


class RecallMonitor:
    """Samples searches to be repeated exactly in the background, and keeps the recall statistics.

    Args:
        share: Share of the searches to repeat, 0..1.
        limit: Share of recent probes that may lose their nearest person above the threshold; an index that loses more
            is degraded.
    """

    def __init__(self, share: float, limit: float) -> None:
        self._share = share
        self._limit = limit
        self._queue: asyncio.Queue[SearchQuery] = asyncio.Queue(QUEUE_SIZE)
        self.statistics: dict[SearchKey, RecallStatistics] = {}

    def is_degraded(self, key: SearchKey) -> bool:
        """Return whether an index or graph is degraded."""
        return key in self.statistics and self.statistics[key].degraded

    def remove_statistics(self, key: SearchKey) -> None:
        """Remove the statistics of an index or graph."""
        statistics = self.statistics.pop(key, None)
        if statistics is not None and statistics.degraded:
            metrics.INDEX_DEGRADED.dec()

    def retain_collections(self, collection_ids: Set[UUID]) -> None:
        """Remove the statistics of all other collections."""
        for key in [key for key in self.statistics if key[0] not in collection_ids]:
            self.remove_statistics(key)

    def offer_query(self, query: SearchQuery) -> None:
        """Queue a search for repetition, subject to the sampling rate and queue capacity; return immediately."""
        if random.random() < self._share:  # noqa: S311  a sample, not a secret
            with contextlib.suppress(asyncio.QueueFull):
                self._queue.put_nowait(query)

    async def get_next_query(self) -> SearchQuery:
        """Wait for and return the next search to repeat."""
        return await self._queue.get()

    def update_statistics(
        self, query: SearchQuery, approximate: Sequence[SearchResult], exact: Sequence[SearchResult]
    ) -> None:
        """Compare the results of both searches, one per probe and in probe order, and degrade what loses too many."""
        statistics = self.statistics.setdefault(query.key, RecallStatistics())
        for approximate_result, exact_result in zip(approximate, exact, strict=True):
            threshold, _ = query.get_floor(exact_result.gallery_size)
            exact_best = exact_result.candidates[0].similarity if exact_result.candidates else -1.0
            approximate_best = approximate_result.candidates[0].similarity if approximate_result.candidates else -1.0
            disagreed = exact_best - approximate_best > TIE_TOLERANCE
            listed = {candidate.person_id for candidate in approximate_result.candidates}
            expected = [candidate for candidate in exact_result.candidates if candidate.similarity >= threshold]
            hits = sum(candidate.person_id in listed for candidate in expected)
            statistics.probes += 1
            statistics.disagreed += disagreed
            statistics.expected += len(expected)
            statistics.returned += hits
            metrics.RECALL_PROBES.inc()
            metrics.RECALL_DISAGREEMENTS.inc(disagreed)
            metrics.RECALL_EXPECTED.inc(len(expected))
            metrics.RECALL_RETURNED.inc(hits)
            if query.fusion is Fusion.MEAN:
                continue  # the two shortlist different persons: that is no loss of the index
            statistics.recent.append(disagreed and exact_best >= threshold)
        lost = sum(statistics.recent)
        if (
            not statistics.degraded
            and lost >= MIN_LOSSES
            and lost > self._compute_allowed_losses(query, len(statistics.recent))
        ):
            statistics.degraded = True
            metrics.INDEX_DEGRADED.inc()
            log.error(
                "%s lost %d of the last %d persons it was checked for; the collection is searched exactly from now on",
                "an HNSW graph" if query.graph else "a candidate index",
                lost,
                len(statistics.recent),
                extra={"collection": str(query.collection_id)},
            )

    def _compute_allowed_losses(self, query: SearchQuery, probes: int) -> float:
        """Return how many of `probes` may be lost; for a graph, its measured loss plus three standard deviations."""
        if query.graph is None:
            return self._limit * probes
        expected = max(self._limit, query.graph.loss.high) * probes
        return expected + 3 * math.sqrt(expected)  # Poisson distribution: variance equals mean
