"""Searching by the candidate index gives the results of an exact search, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text
from tests.galleries import people

from vultus.db.database import Database
from vultus.db.templates.ranking import MEAN_SHORTLIST_SIZE
from vultus.domain import Collection, FloatArray, Fusion
from vultus.index.candidates import CandidateIndex, ProbeSearch
from vultus.services.search.index_sync import IndexRegistry
from vultus.services.search.local_engine import LocalCandidateEngine
from vultus.services.search.request import SearchQuery
from vultus.services.search.search import Searcher
from vultus.settings import IndexSettings

PERSONS = 1_000
THRESHOLD = 0.95
SETTINGS = IndexSettings.model_construct(
    **IndexSettings().model_dump() | {"exact_limit": 500, "watch_share": 0.0, "candidates": 40}
)


@dataclass
class Large:
    """A collection with more faces than are searched in SQL, and what searches it."""

    database: Database
    collection: Collection
    vectors: FloatArray
    persons: list[UUID]
    indexes: IndexRegistry
    searcher: Searcher

    def query(self, probes: FloatArray, limit: int = 3, fusion: Fusion = Fusion.BEST) -> SearchQuery:
        return SearchQuery(
            self.collection.id, self.collection.space_id, probes, limit, fusion, lambda _: (THRESHOLD, 0.01)
        )

    async def search(self, probes: FloatArray, limit: int = 3, fusion: Fusion = Fusion.BEST) -> Any:
        return await self.searcher.search(self.query(probes, limit, fusion))

    async def search_both(self, probes: FloatArray, limit: int = 3, fusion: Fusion = Fusion.BEST) -> tuple[Any, Any]:
        query, queries = self.query(probes, limit, fusion), self.database.hot_queries
        found = await self.searcher.search_index_or_none(queries, query)
        assert found is not None, "there is no index"
        return found, await self.searcher.search_exact(queries, query)

    async def update_indexes(self) -> None:
        async with self.database.transaction() as work:
            # PostgreSQL counts rows asynchronously; a test cannot wait for that.
            await work._session.execute(text("SELECT pg_stat_force_next_flush()"))
        await self.indexes.update_indexes()


@pytest.fixture
async def large(database: Database, collection: Collection) -> Large:
    vectors = people(PERSONS)
    granted = datetime(2026, 1, 2, tzinfo=UTC)
    async with database.transaction() as work:
        ids = await work.bulk.add_persons(collection.id, [(f"p{at}", None) for at in range(PERSONS)])
        consents = await work.bulk.add_consents(
            collection.id, ids, purpose="entry", recorded_by="x", evidence_ref=None, granted_at=granted, expires_at=None
        )
        for photo in range(2):
            await work.templates.import_templates(
                collection.id,
                collection.space_id,
                persons=ids,
                consents=consents,
                expires_at=None,
                vectors=vectors[:, photo],
                sources=np.concatenate([ids, np.full((PERSONS, 16), photo, np.uint8)], axis=1),
            )
    persons = [UUID(bytes=one.tobytes()) for one in ids]
    indexes = IndexRegistry(database, SETTINGS)
    searcher = Searcher(database, LocalCandidateEngine(indexes), indexes.recall_monitor, SETTINGS)
    made = Large(database, collection, vectors, persons, indexes, searcher)
    await made.update_indexes()
    return made


def probe_of(vectors: FloatArray, noise: float = 0.02, seed: int = 3) -> FloatArray:
    """Return another photo of each person, same shape."""
    rng = np.random.default_rng(seed)
    probes = vectors + noise * rng.standard_normal(vectors.shape) / np.sqrt(vectors.shape[-1]) * 11
    return np.asarray(probes / np.linalg.norm(probes, axis=-1, keepdims=True), np.float32)


async def test_results_equal_those_of_an_exact_search(large: Large) -> None:
    """Same persons, faces, cosines and gallery size for mates; for non-mates, nobody above the threshold."""
    assert large.indexes.get_sizes() == {(large.collection.id, large.collection.space_id): 2 * PERSONS}
    found, exact = await large.search_both(probe_of(large.vectors[:100, 0]))
    known = 0
    for result, reference in zip(found, exact, strict=True):
        assert result.gallery_size == reference.gallery_size == 2 * PERSONS
        if reference.candidates[0].similarity >= THRESHOLD:
            known += 1
            assert result.candidates[0] == reference.candidates[0]
            assert (result.candidates[0].similarity - result.candidates[1].similarity < 0.01) == (
                reference.candidates[0].similarity - reference.candidates[1].similarity < 0.01
            )
    assert known > 80
    strangers = people(50, seed=99)[:, 0]
    for result, reference in zip(*await large.search_both(strangers), strict=True):
        assert [c for c in reference.candidates if c.similarity >= THRESHOLD] == [
            c for c in result.candidates if c.similarity >= THRESHOLD
        ]


async def test_a_collection_set_to_exact_does_not_use_its_index(large: Large) -> None:
    """From the next request on, before the index is removed."""
    query = replace(large.query(large.vectors[:2, 0]), exact=True)
    assert await large.searcher.search_index_or_none(large.database.hot_queries, query) is None
    assert len(await large.searcher.search(query)) == 2


async def test_a_mean_is_searched_too(large: Large) -> None:
    """With the fusion `mean` a person is compared by the mean of all their faces."""
    found, exact = await large.search_both(probe_of(large.vectors[:20, 0]), fusion=Fusion.MEAN)
    assert [one.candidates[0] for one in found] == [one.candidates[0] for one in exact]


async def test_a_mean_is_searched_among_as_many_persons_as_in_sql(
    large: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best mean may rank low by the closest face: everybody has two, so twice as many faces are requested."""
    counts, closest = [], ProbeSearch.nearest

    def counted(self: ProbeSearch, count: int) -> Any:
        counts.append(count)
        return closest(self, count)

    monkeypatch.setattr(ProbeSearch, "nearest", counted)
    await large.search(large.vectors[:1, 0], limit=7, fusion=Fusion.MEAN)
    assert counts == [2 * (7 + MEAN_SHORTLIST_SIZE)]


async def test_few_persons_with_many_faces_are_all_listed(
    large: Large, enrol: Callable[..., Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proposals that all belong to one person are widened until enough persons are listed, by the index itself."""
    (vector,) = people(1, seed=21)[:, 0]
    async with large.database.transaction() as work:
        await enrol(work, large.collection, "often", *probe_of(np.repeat(vector[None], 60, axis=0), noise=0.005))
    await large.update_indexes()
    (exact,) = await large.searcher.search_exact(large.database.hot_queries, large.query(vector[None]))
    monkeypatch.setattr(large.searcher, "search_exact", None)
    (found,) = await large.search(vector[None])
    assert [candidate.person_id for candidate in found.candidates] == [c.person_id for c in exact.candidates]
    assert len(found.candidates) == 3


async def test_an_index_that_loses_persons_is_degraded(large: Large, caplog: pytest.LogCaptureFixture) -> None:
    """The exact repetition detects its losses; from then on SQL searches, and nobody is lost any more."""
    index = large.indexes.find_index(large.collection.id, large.collection.space_id)
    assert index is not None
    probes = large.vectors[:10, 0]
    await large.searcher.check_recall(large.query(probes))
    statistics = large.indexes.recall_monitor.statistics[large.collection.id, large.collection.space_id, None]
    assert (statistics.probes, statistics.disagreed, statistics.recall, statistics.degraded) == (10, 0, 1.0, False)
    index.retain_faces(np.array([index.last_number]))
    await large.searcher.check_recall(large.query(probes))
    assert (statistics.probes, statistics.disagreed, statistics.degraded) == (20, 10, True)
    assert 0.4 < statistics.recall < 0.6
    assert "is searched exactly from now on" in caplog.text
    assert await large.searcher.search_index_or_none(large.database.hot_queries, large.query(probes)) is None
    found = await large.search(probes)
    assert [one.candidates[0].person_id for one in found] == large.persons[:10]


async def test_a_space_without_backfilled_faces_needs_no_index_and_blocks_no_other(large: Large) -> None:
    """PostgreSQL counts the faces of both spaces together; the new one has none to compute a centre from."""
    async with large.database.transaction() as work:
        await work.collections.update_collection(large.collection.id, second_contract_id="another")
    await large.update_indexes()
    assert large.indexes.get_sizes() == {(large.collection.id, large.collection.space_id): 2 * PERSONS}


async def test_a_search_that_would_compare_most_of_the_gallery_is_left_to_sql(large: Large) -> None:
    """For nearly everybody, the index returns nothing, and SQL returns everybody."""
    probes = large.vectors[:1, 0]
    queries = large.database.hot_queries
    assert await large.searcher.search_index_or_none(queries, large.query(probes, limit=10)) is not None
    assert await large.searcher.search_index_or_none(queries, large.query(probes, limit=600)) is None
    (found,) = await large.search(probes, limit=600)
    assert len(found.candidates) == 600


async def test_no_connection_is_held_while_an_index_is_scanned(large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the first scan nor for the second, whatever the collection's fusion."""
    held = []
    connections = large.database._hot_connections
    for name in ("nearest", "above_similarity"):
        scan = getattr(ProbeSearch, name)

        def watched(self: ProbeSearch, *values: Any, scan: Any = scan) -> Any:
            held.append(connections.count_used())
            return scan(self, *values)

        monkeypatch.setattr(ProbeSearch, name, watched)
    await large.search(probe_of(large.vectors[:3, 0]))

    assert held == [0] * 6


@pytest.mark.parametrize("lead", [0.02, 0.09], ids=["close", "just within the margin"])
async def test_the_runner_up_is_found_within_the_margin_though_the_index_did_not_propose_them(
    large: Large, enrol: Callable[..., Awaitable[Any]], monkeypatch: pytest.MonkeyPatch, lead: float
) -> None:
    """Or an ambiguous probe would be a match."""
    margin = 0.1
    (probe,) = people(1, seed=31)[:, 0]
    aside = np.eye(128, dtype=np.float32)[1] - probe[1] * probe
    aside /= np.linalg.norm(aside)
    twin = (1 - lead) * probe + np.sqrt(1 - (1 - lead) ** 2) * aside
    async with large.database.transaction() as work:
        await enrol(work, large.collection, "best", probe)
        await enrol(work, large.collection, "runner-up", twin)
    await large.update_indexes()
    last = find_index(large).last_number
    nearest = ProbeSearch.nearest

    def overlook(self: ProbeSearch, count: int) -> Any:
        proposed = nearest(self, count)
        self._proposed = self._proposed[self._codes.numbers.take(self._proposed) != last]
        return proposed[proposed != last]

    monkeypatch.setattr(ProbeSearch, "nearest", overlook)
    query = replace(large.query(probe[None]), get_floor=lambda _: (THRESHOLD, margin))
    found = await large.searcher.search_index_or_none(large.database.hot_queries, query)

    assert found is not None
    assert [candidate.external_id for candidate in found[0].candidates[:2]] == ["best", "runner-up"]
    assert found[0].candidates[1].similarity == pytest.approx(1 - lead, abs=1e-3)


def find_index(large: Large) -> CandidateIndex:
    index = large.indexes.find_index(large.collection.id, large.collection.space_id)
    assert index is not None
    return index
