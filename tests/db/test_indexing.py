"""Searching through the candidate index says what an exact search says, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text
from tests.galleries import people

from vultus.db.database import Database
from vultus.db.repositories.ranking import SHORTLIST
from vultus.domain import Collection, FloatArray, Fusion
from vultus.index.candidates import Hunt
from vultus.index.coding import Coder
from vultus.services.search.index_sync import Indexes
from vultus.services.search.request import Query
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
    home: Collection
    vectors: FloatArray
    persons: list[UUID]
    indexes: Indexes
    searcher: Searcher

    def query(self, probes: FloatArray, limit: int = 3, fusion: Fusion = Fusion.BEST) -> Query:
        return Query(self.home.id, self.home.contract_id, probes, limit, fusion, lambda _: (THRESHOLD, 0.01))

    async def search(self, probes: FloatArray, limit: int = 3, fusion: Fusion = Fusion.BEST) -> Any:
        async with self.database.work(read_only=True) as work:
            return await self.searcher.search(work, self.query(probes, limit, fusion))

    async def both(self, probes: FloatArray, limit: int = 3, fusion: Fusion = Fusion.BEST) -> tuple[Any, Any]:
        query = self.query(probes, limit, fusion)
        async with self.database.work(read_only=True) as work:
            found = await self.searcher.inexactly_if_so(work, query)
            assert found is not None, "there is no index"
            return found, await self.searcher.exactly(work, query)

    async def follow(self) -> None:
        async with self.database.work() as work:
            # PostgreSQL counts rows behind a writer's back; a test cannot wait for that.
            await work._session.execute(text("SELECT pg_stat_force_next_flush()"))
        await self.indexes.follow()


@pytest.fixture
async def large(database: Database, home: Collection) -> Large:
    vectors = people(PERSONS)
    granted = datetime(2026, 1, 2, tzinfo=UTC)
    async with database.work() as work:
        ids = await work.bulk.add_persons(home.id, [(f"p{at}", None) for at in range(PERSONS)])
        consents = await work.bulk.add_consents(
            home.id, ids, purpose="entry", recorded_by="x", evidence_ref=None, granted_at=granted, expires_at=None
        )
        for photo in range(2):
            await work.bulk.add_faces(
                home.id,
                home.contract_id,
                persons=ids,
                consents=consents,
                expires_at=None,
                vectors=vectors[:, photo],
                sources=np.concatenate([ids, np.full((PERSONS, 16), photo, np.uint8)], axis=1),
            )
    persons = [UUID(bytes=one.tobytes()) for one in ids]
    indexes = Indexes(database, SETTINGS)
    made = Large(database, home, vectors, persons, indexes, Searcher(indexes, SETTINGS))
    await made.follow()
    return made


def probe_of(vectors: FloatArray, noise: float = 0.02, seed: int = 3) -> FloatArray:
    """Return another photo of each."""
    rng = np.random.default_rng(seed)
    probes = vectors + noise * rng.standard_normal(vectors.shape) / np.sqrt(vectors.shape[-1]) * 11
    return np.asarray(probes / np.linalg.norm(probes, axis=-1, keepdims=True), np.float32)


async def test_it_says_what_an_exact_search_says(large: Large) -> None:
    """Same persons, faces, cosines and gallery size for known faces; for strangers, nobody above the threshold."""
    assert large.indexes.sizes() == {(large.home.id, large.home.contract_id): 2 * PERSONS}
    ours, exact = await large.both(probe_of(large.vectors[:100, 0]))
    known = 0
    for mine, truth in zip(ours, exact, strict=True):
        assert mine.gallery_size == truth.gallery_size == 2 * PERSONS
        if truth.candidates[0].similarity >= THRESHOLD:
            known += 1
            assert mine.candidates[0] == truth.candidates[0]
            assert (mine.candidates[0].similarity - mine.candidates[1].similarity < 0.01) == (
                truth.candidates[0].similarity - truth.candidates[1].similarity < 0.01
            )
    assert known > 80
    strangers = people(50, seed=99)[:, 0]
    for mine, truth in zip(*await large.both(strangers), strict=True):
        assert [c for c in truth.candidates if c.similarity >= THRESHOLD] == [
            c for c in mine.candidates if c.similarity >= THRESHOLD
        ]


async def test_a_collection_set_to_exact_does_not_use_its_index(large: Large) -> None:
    """From the next request on, before the index is dropped."""
    asked = replace(large.query(large.vectors[:2, 0]), exact=True)
    async with large.database.work(read_only=True) as work:
        assert await large.searcher.inexactly_if_so(work, asked) is None
        assert len(await large.searcher.search(work, asked)) == 2


async def test_a_mean_is_searched_too(large: Large) -> None:
    """With the fusion `mean` a person is compared by the mean of all their faces."""
    ours, exact = await large.both(probe_of(large.vectors[:20, 0]), fusion=Fusion.MEAN)
    assert [one.candidates[0] for one in ours] == [one.candidates[0] for one in exact]


async def test_a_mean_is_looked_for_among_as_many_persons_as_in_sql(
    large: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one with the best mean may be far down by the closest face: everybody has two, so twice as many are asked."""
    asked, closest = [], Hunt.closest

    def counted(self: Hunt, count: int) -> Any:
        asked.append(count)
        return closest(self, count)

    monkeypatch.setattr(Hunt, "closest", counted)
    await large.search(large.vectors[:1, 0], limit=7, fusion=Fusion.MEAN)
    assert asked == [2 * (7 + SHORTLIST)]


async def test_what_is_new_is_found_and_what_is_gone_is_not_before_the_index_knows(
    large: Large, enrol: Callable[..., Awaitable[Any]]
) -> None:
    """An index that lags behind changes no answer."""
    (newcomer,) = people(1, seed=5)[:, 0]
    later = datetime.now(UTC) + timedelta(seconds=1.5)
    async with large.database.work() as work:
        added = await enrol(work, large.home, "new", newcomer)
        await work.persons.delete(large.home.id, large.persons[3])
        await enrol(work, large.home, "soon gone", large.vectors[4, 0], expires_at=later)
    new, erased, both = await large.search(np.stack([newcomer, large.vectors[3, 0], large.vectors[4, 0]]))
    assert new.candidates[0].person_id == added.person.id
    assert new.gallery_size == 2 * PERSONS + 2, "those gone are still counted, as the index does not know of them"
    assert large.persons[3] not in {candidate.person_id for candidate in erased.candidates}
    assert {"soon gone", "p4"} == {candidate.external_id for candidate in both.candidates[:2]}
    await large.follow()
    assert large.indexes.sizes() == {(large.home.id, large.home.contract_id): 2 * PERSONS}
    await asyncio.sleep(1.5)
    new, erased, both = await large.search(np.stack([newcomer, large.vectors[3, 0], large.vectors[4, 0]]))
    assert new.candidates[0].person_id == added.person.id
    assert large.persons[3] not in {candidate.person_id for candidate in erased.candidates}
    assert "soon gone" not in {candidate.external_id for candidate in both.candidates}


async def test_the_next_start_loads_codes_instead_of_making_them(large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was coded once is read from its column; the same index comes of it."""
    monkeypatch.setattr(Coder, "encode", None)
    anew = Indexes(large.database, SETTINGS)
    await anew.follow()
    assert anew.sizes() == large.indexes.sizes()
    monkeypatch.undo()
    key = (large.home.id, large.home.contract_id)
    ours, theirs = anew.of(*key), large.indexes.of(*key)
    assert ours is not None
    assert theirs is not None
    assert ours.last == theirs.last
    assert set(ours.hunt(large.vectors[9, 0]).closest(50)) == set(theirs.hunt(large.vectors[9, 0]).closest(50))


async def test_a_face_committed_late_is_not_passed_over(large: Large, enrol: Callable[..., Awaitable[Any]]) -> None:
    """A number drawn before another and committed after it: the index waits for it before going past it."""
    (late, other) = people(2, seed=11)[:, 0]
    async with large.database.work() as work:
        await enrol(work, large.home, "late", late)
        following = asyncio.create_task(large.follow())
        await asyncio.sleep(0.3)
        assert not following.done()
    await following
    async with large.database.work() as work:
        await enrol(work, large.home, "other", other)
    await large.follow()
    index = large.indexes.of(large.home.id, large.home.contract_id)
    assert index is not None
    assert len(index) == 2 * PERSONS + 2
    found = await large.search(np.stack([late, other]))
    assert [one.candidates[0].external_id for one in found] == ["late", "other"]


async def test_few_persons_with_many_faces_are_all_listed(
    large: Large, enrol: Callable[..., Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proposals that all belong to one person are widened until enough persons are listed, by the index itself."""
    (vector,) = people(1, seed=21)[:, 0]
    async with large.database.work() as work:
        await enrol(work, large.home, "often", *probe_of(np.repeat(vector[None], 60, axis=0), noise=0.005))
    await large.follow()
    async with large.database.work(read_only=True) as work:
        (exact,) = await large.searcher.exactly(work, large.query(vector[None]))
        monkeypatch.setattr(large.searcher, "exactly", None)
        (found,) = await large.search(vector[None])
    assert [candidate.person_id for candidate in found.candidates] == [c.person_id for c in exact.candidates]
    assert len(found.candidates) == 3


async def test_an_index_that_loses_people_is_doubted(large: Large, caplog: pytest.LogCaptureFixture) -> None:
    """Repeated exactly, its losses show; from then on SQL searches, and nobody is lost any more."""
    index = large.indexes.of(large.home.id, large.home.contract_id)
    assert index is not None
    probes = large.vectors[:10, 0]
    await large.searcher.repeat(large.query(probes), large.database)
    seen = large.indexes.watch.seen[large.home.id, large.home.contract_id, None]
    assert (seen.probes, seen.disagreed, seen.recall, seen.doubted) == (10, 0, 1.0, False)
    index.retain(np.array([index.last]))
    await large.searcher.repeat(large.query(probes), large.database)
    assert (seen.probes, seen.disagreed, seen.doubted) == (20, 10, True)
    assert 0.4 < seen.recall < 0.6
    assert "is searched exactly from now on" in caplog.text
    assert large.indexes.of(large.home.id, large.home.contract_id) is None
    found = await large.search(probes)
    assert [one.candidates[0].person_id for one in found] == large.persons[:10]


async def test_a_collection_that_shrinks_or_goes_loses_its_index(large: Large) -> None:
    """Below half the limit SQL is faster; a dropped collection has nothing to search."""
    async with large.database.work() as work:
        for person in large.persons[: PERSONS - 100]:
            await work.persons.delete(large.home.id, person)
    await large.follow()
    assert large.indexes.sizes() == {}
    (found,) = await large.search(large.vectors[-1:, 0])
    assert found.candidates[0].person_id == large.persons[-1]
    assert found.gallery_size == 200


async def test_a_network_that_nobody_was_carried_to_yet_needs_no_index_and_stops_no_other(large: Large) -> None:
    """PostgreSQL counts the faces of both contracts together; the new one has none to take a centre from."""
    async with large.database.work() as work:
        await work.collections.change(large.home.id, second_contract_id="another")
    await large.follow()
    assert large.indexes.sizes() == {(large.home.id, large.home.contract_id): 2 * PERSONS}


async def test_a_search_that_would_compare_most_of_the_gallery_is_left_to_sql(large: Large) -> None:
    """Asked for nearly everybody, the index has no answer, and SQL's has everybody."""
    probes = large.vectors[:1, 0]
    async with large.database.work(read_only=True) as work:
        assert await large.searcher.inexactly_if_so(work, large.query(probes, limit=10)) is not None
        assert await large.searcher.inexactly_if_so(work, large.query(probes, limit=600)) is None
    (found,) = await large.search(probes, limit=600)
    assert len(found.candidates) == 600
