"""A share of the searches by index or graph is repeated exactly; what loses people is not believed any more."""

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
    from vultus.services.search.request import Key, Query

log = logging.getLogger(__name__)

WAITING = 4
"""Searches held in memory for their repetition; further ones are not repeated."""

REMEMBERED = 10_000
"""Probes of a collection that its share of losses is taken of."""

LEAST_LOST = 2
"""One loss is within the risk that an index is allowed."""

TIE = 1e-6
"""Persons whose cosines differ by less share a rank."""


@dataclass(slots=True)
class Watched:
    """What the repetitions of a collection's searches said.

    Attributes:
        probes: Searched for again.
        disagreed: Of them, those whose closest person is another one in an exact search.
        wanted: Persons above the threshold that exact searches listed.
        found: Of them, those that the index listed.
        doubted: Whether the index is not to be searched any more.
    """

    probes: int = 0
    disagreed: int = 0
    wanted: int = 0
    found: int = 0
    doubted: bool = False
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    @property
    def recall(self) -> float:
        """Return the share of the persons above the threshold that the index listed."""
        return self.found / self.wanted if self.wanted else 1.0


class Watch:
    """Repeats searches behind the caller's back.

    Args:
        share: Of the searches, 0..1.
        limit: Share of the probes whose person above the threshold was lost, beyond which an index is doubted.
    """

    def __init__(self, share: float, limit: float) -> None:
        self._share = share
        self._limit = limit
        self._waiting: asyncio.Queue[Query] = asyncio.Queue(WAITING)
        self.seen: dict[Key, Watched] = {}

    def doubted(self, key: Key) -> bool:
        """Say whether an index or a graph has lost too many."""
        return key in self.seen and self.seen[key].doubted

    def forget(self, key: Key) -> None:
        """Begin anew with an index."""
        seen = self.seen.pop(key, None)
        if seen is not None and seen.doubted:
            metrics.INDEX_DOUBTED.dec()

    def keep(self, collections: Set[UUID]) -> None:
        """Forget what was seen of other collections."""
        for key in [key for key in self.seen if key[0] not in collections]:
            self.forget(key)

    def offer(self, query: Query) -> None:
        """Have a search repeated, if chance and room allow; returns at once."""
        if random.random() < self._share:  # noqa: S311  a sample, not a secret
            with contextlib.suppress(asyncio.QueueFull):
                self._waiting.put_nowait(query)

    async def next(self) -> Query:
        """Wait for a search to repeat."""
        return await self._waiting.get()

    def count(self, query: Query, ours: Sequence[SearchResult], exact: Sequence[SearchResult]) -> None:
        """Count what a search by index or graph and an exact one say about the same probes."""
        seen = self.seen.setdefault(query.key, Watched())
        for mine, truth in zip(ours, exact, strict=True):
            threshold, _ = query.needed(truth.gallery_size)
            best = truth.candidates[0].similarity if truth.candidates else -1.0
            mine_best = mine.candidates[0].similarity if mine.candidates else -1.0
            disagreed = best - mine_best > TIE
            listed = {candidate.person_id for candidate in mine.candidates}
            wanted = [candidate for candidate in truth.candidates if candidate.similarity >= threshold]
            hits = sum(candidate.person_id in listed for candidate in wanted)
            seen.probes += 1
            seen.disagreed += disagreed
            seen.wanted += len(wanted)
            seen.found += hits
            metrics.WATCH_PROBES.inc()
            metrics.WATCH_DISAGREED.inc(disagreed)
            metrics.WATCH_WANTED.inc(len(wanted))
            metrics.WATCH_FOUND.inc(hits)
            if query.fusion is Fusion.MEAN:
                continue  # who is shortlisted differs between the two: no loss of the index
            seen.recent.append(disagreed and best >= threshold)
        lost = sum(seen.recent)
        if not seen.doubted and lost >= LEAST_LOST and lost > self._allowed(query, len(seen.recent)):
            seen.doubted = True
            metrics.INDEX_DOUBTED.inc()
            log.error(
                "%s lost %d of the last %d persons it was checked for; the collection is searched exactly from now on",
                "an HNSW graph" if query.graph else "a candidate index",
                lost,
                len(seen.recent),
                extra={"collection": str(query.collection_id)},
            )

    def _allowed(self, query: Query, probes: int) -> float:
        """Return how many of some probes may be lost: of a graph what was measured on it, and what chance adds."""
        if query.graph is None:
            return self._limit * probes
        expected = max(self._limit, query.graph.loss.high) * probes
        return expected + 3 * math.sqrt(expected)  # three standard deviations of a Poisson number
