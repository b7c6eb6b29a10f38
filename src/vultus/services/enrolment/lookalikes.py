"""Search for enrolled persons who look like new faces: before the collection is locked, completed under its lock.

A search takes as long as the collection is large, and every other writer of the collection waits for the lock. Template
numbers ascend in commit order, so that what was enrolled after the search are the templates with greater numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import Candidate, Collection, FloatArray, Fusion, SearchResult
from vultus.domain.decision import compute_lookalike_threshold
from vultus.services.collections import CollectionChangedError, get_calibration
from vultus.services.search.request import SearchQuery, get_search_method
from vultus.utils import timing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import SpaceRegistry
    from vultus.services.search.search import Searcher

NOTHING_PROPOSED = np.empty(0, np.int64)
ROUNDING_TOLERANCE = 1e-5
"""More than two ways of computing a cosine in SQL differ by."""


@dataclass(frozen=True, slots=True)
class Lookalike:
    """An enrolled person whose similarity to a new face reaches the threshold."""

    candidate: Candidate
    threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class LookalikeSearch:
    """The nearest persons to new faces, as found without the collection's lock.

    Attributes:
        collection: The collection as it was searched.
        probes: (k, d) float32, each row of length 1.
        found: One result per probe.
        last_number: Every template up to this number was searched.
    """

    collection: Collection
    probes: FloatArray
    found: tuple[SearchResult, ...]
    last_number: int


class LookalikeFinder:
    """Finds enrolled persons who look like new faces."""

    def __init__(self, database: Database, spaces: SpaceRegistry, searcher: Searcher) -> None:
        self._database = database
        self._spaces = spaces
        self._searcher = searcher

    async def search(self, collection: Collection, probes: FloatArray) -> LookalikeSearch:
        """Search for (k, d) probes in the collection's active embedding space.

        Raises:
            NotFoundError: The collection has been deleted.
        """
        with timing.measure_stage("search"):
            async with self._database.transaction(read_only=True) as work:
                last_number = await work.codes.get_last_template_number(collection.id)
            found = await self._searcher.search(self._build_query(collection, probes))
        return LookalikeSearch(collection, probes, found, last_number)

    async def complete_search(
        self, work: UnitOfWork, collection: Collection, searched: LookalikeSearch, person_id: UUID | None
    ) -> list[Lookalike | None]:
        """Return, per probe, the nearest person if it is a lookalike as of now: compares with what was enrolled since.

        Args:
            work: A transaction that holds the collection's lock.
            collection: The collection in its current state.
            searched: What was found before.
            person_id: The person whose faces the probes are; no lookalike of themselves.

        Raises:
            CollectionChangedError: The search must be repeated, outside of this transaction: since it, what decides who
                is a lookalike was changed, or a lookalike's face erased. Both are rare.
        """
        if not _is_searched_alike(searched.collection, collection):
            raise CollectionChangedError(collection)
        newer = await work.templates.rescore_proposals(
            collection.id,
            collection.space_id,
            searched.probes,
            [NOTHING_PROPOSED] * len(searched.probes),
            searched.last_number,
            limit=1,
        )
        results = list(map(_merge_results, searched.found, newer))
        lookalikes = self._select_lookalikes(collection, results, person_id)
        if await self._is_any_erased(work, collection, searched.probes, lookalikes):
            raise CollectionChangedError(collection)
        return lookalikes

    def _select_lookalikes(
        self, collection: Collection, results: Sequence[tuple[Sequence[Candidate], int]], person_id: UUID | None
    ) -> list[Lookalike | None]:
        """Return the best candidate of each (candidates, gallery size), if it is a lookalike."""
        calibration = get_calibration(collection, self._spaces.get_space(collection.space_id))
        lookalikes: list[Lookalike | None] = []
        for candidates, size in results:
            threshold = compute_lookalike_threshold(collection.policy, calibration, size)
            best = max(candidates, key=lambda candidate: candidate.similarity, default=None)
            is_lookalike = best is not None and best.similarity >= threshold and best.person_id != person_id
            lookalikes.append(Lookalike(best, threshold) if best and is_lookalike else None)
        return lookalikes

    async def _is_any_erased(
        self, work: UnitOfWork, collection: Collection, probes: FloatArray, lookalikes: Sequence[Lookalike | None]
    ) -> bool:
        """Return whether a lookalike no longer has a live template that makes them one."""
        for probe, lookalike in zip(probes, lookalikes, strict=True):
            if lookalike is None:
                continue
            closest = await work.templates.find_person_similarity(
                collection.id, lookalike.candidate.person_id, collection.space_id, probe
            )
            if closest is None or closest[0] < lookalike.threshold - ROUNDING_TOLERANCE:
                return True
        return False

    def _build_query(self, collection: Collection, probes: FloatArray) -> SearchQuery:
        calibration = get_calibration(collection, self._spaces.get_space(collection.space_id))
        return SearchQuery(
            collection_id=collection.id,
            space_id=collection.space_id,
            probes=probes,
            limit=1,
            fusion=Fusion.BEST,
            get_floor=lambda size: (compute_lookalike_threshold(collection.policy, calibration, size), 0.0),
            **get_search_method(collection, collection.space_id),
        )


def _is_searched_alike(before: Collection, current: Collection) -> bool:
    """Return whether a search of both finds the same lookalikes; a name, for example, decides nothing."""
    return (before.space_id, before.policy, before.calibrations, before.search, before.graph) == (
        current.space_id,
        current.policy,
        current.calibrations,
        current.search,
        current.graph,
    )


def _merge_results(found: SearchResult, newer: SearchResult) -> tuple[tuple[Candidate, ...], int]:
    return (*found.candidates, *newer.candidates), found.gallery_size + newer.gallery_size
