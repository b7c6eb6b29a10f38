"""Searching by the candidate index gives the results of an exact search, whatever happens meanwhile."""

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
from vultus.db.repositories.codes import CodeRepository
from vultus.db.templates.ranking import MEAN_SHORTLIST_SIZE
from vultus.domain import Collection, FloatArray, Fusion
from vultus.errors import OverloadedError
from vultus.index.candidates import CandidateIndex, ProbeSearch
from vultus.index.codes import CodeStore
from vultus.index.coding import Quantizer
from vultus.services.jobs import JobSupervisor, PartialFailureError
from vultus.services.search.engine import IndexKey, SimilarityFloor
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


async def test_new_faces_are_found_and_deleted_ones_are_not_before_the_index_is_updated(
    large: Large, enrol: Callable[..., Awaitable[Any]]
) -> None:
    """An index that lags behind changes no result."""
    (newcomer,) = people(1, seed=5)[:, 0]
    later = datetime.now(UTC) + timedelta(seconds=1.5)
    async with large.database.transaction() as work:
        added = await enrol(work, large.collection, "new", newcomer)
        await work.persons.delete_person(large.collection.id, large.persons[3])
        await enrol(work, large.collection, "soon gone", large.vectors[4, 0], expires_at=later)
    new, erased, shared = await large.search(np.stack([newcomer, large.vectors[3, 0], large.vectors[4, 0]]))
    assert new.candidates[0].person_id == added.person.id
    assert new.gallery_size == 2 * PERSONS + 2, "those gone are still counted, as the index does not know of them"
    assert large.persons[3] not in {candidate.person_id for candidate in erased.candidates}
    assert {"soon gone", "p4"} == {candidate.external_id for candidate in shared.candidates[:2]}
    await large.update_indexes()
    assert large.indexes.get_sizes() == {(large.collection.id, large.collection.space_id): 2 * PERSONS}
    await asyncio.sleep(1.5)
    new, erased, shared = await large.search(np.stack([newcomer, large.vectors[3, 0], large.vectors[4, 0]]))
    assert new.candidates[0].person_id == added.person.id
    assert large.persons[3] not in {candidate.person_id for candidate in erased.candidates}
    assert "soon gone" not in {candidate.external_id for candidate in shared.candidates}


@pytest.fixture
def numbers_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return a list that gets the query and number of rows whenever an index reads numbers of erased or all faces."""
    calls: list[tuple[str, int]] = []
    list_erased, list_all = CodeRepository.list_erased_numbers, CodeRepository.list_template_numbers

    async def count_erased(self: CodeRepository, *arguments: Any) -> Any:
        found = await list_erased(self, *arguments)
        calls.append(("erased", len(found[1])))
        return found

    async def count_all(self: CodeRepository, *arguments: Any) -> Any:
        found = await list_all(self, *arguments)
        calls.append(("all", len(found)))
        return found

    monkeypatch.setattr(CodeRepository, "list_erased_numbers", count_erased)
    monkeypatch.setattr(CodeRepository, "list_template_numbers", count_all)
    return calls


async def erase_persons(large: Large, *persons: UUID) -> None:
    for person in persons:
        async with large.database.transaction() as work:
            await work.persons.delete_person(large.collection.id, person)


async def test_an_erasure_reads_as_many_numbers_as_were_erased(
    large: Large, numbers_read: list[tuple[str, int]]
) -> None:
    """Two persons with two faces each: four numbers, once; their codes are overwritten."""
    (first, *_), key = large.persons, (large.collection.id, large.collection.space_id)
    index = large.indexes.find_index(*key)
    assert index is not None
    await large.update_indexes()
    assert numbers_read == []
    await erase_persons(large, first, large.persons[7])
    await large.update_indexes()
    await large.update_indexes()
    assert numbers_read == [("erased", 4)]
    assert large.indexes.get_sizes()[key] == 2 * PERSONS - 4
    stored = index._codes.segments[0][: index._codes.count]
    codes = index.quantizer.encode_vectors(large.vectors[[0, 7]].reshape(4, -1))[:, : stored.shape[1]]
    assert not (stored[:, None] == codes).all(axis=2).any()


async def test_two_servers_follow_erasures_independently(large: Large, numbers_read: list[tuple[str, int]]) -> None:
    """Each remembers how far it has come, and one that starts later does not read what was erased before."""
    key = (large.collection.id, large.collection.space_id)
    await erase_persons(large, large.persons[0])
    other = IndexRegistry(large.database, SETTINGS)
    await other.update_indexes()
    assert numbers_read == []
    await erase_persons(large, large.persons[1], large.persons[2])
    await other.update_indexes()
    assert numbers_read == [("erased", 4)]
    assert large.indexes.get_sizes()[key] == 2 * PERSONS
    await large.indexes.update_indexes()
    assert numbers_read == [("erased", 4), ("erased", 6)]
    assert other.get_sizes()[key] == large.indexes.get_sizes()[key] == 2 * PERSONS - 6


async def test_an_index_that_missed_deleted_tombstones_reads_all_numbers_once(
    large: Large, numbers_read: list[tuple[str, int]]
) -> None:
    """A server that was cut off from the database for longer than tombstones are kept."""
    key = (large.collection.id, large.collection.space_id)
    await erase_persons(large, *large.persons[:3])
    async with large.database.transaction() as work:
        await work.codes.delete_old_tombstones(datetime.now(UTC) + timedelta(minutes=1))
    await large.update_indexes()
    assert numbers_read == [("erased", 2), ("all", 2 * PERSONS - 6)]
    assert large.indexes.get_sizes()[key] == 2 * PERSONS - 6
    await erase_persons(large, large.persons[3])
    await large.update_indexes()
    assert numbers_read[2:] == [("erased", 2)]
    assert large.indexes.get_sizes()[key] == 2 * PERSONS - 8


async def test_the_next_start_loads_codes_instead_of_computing_them(
    large: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes are read from their column and give the same index."""
    monkeypatch.setattr(Quantizer, "encode_vectors", None)
    reloaded = IndexRegistry(large.database, SETTINGS)
    await reloaded.update_indexes()
    assert reloaded.get_sizes() == large.indexes.get_sizes()
    monkeypatch.undo()
    key = (large.collection.id, large.collection.space_id)
    reloaded_index, first_index = reloaded.find_index(*key), large.indexes.find_index(*key)
    assert reloaded_index is not None
    assert first_index is not None
    assert reloaded_index.last_number == first_index.last_number
    assert set(reloaded_index.start_search(large.vectors[9, 0]).nearest(50)) == set(
        first_index.start_search(large.vectors[9, 0]).nearest(50)
    )


async def test_a_face_committed_late_is_neither_waited_for_nor_skipped(
    large: Large, enrol: Callable[..., Awaitable[Any]]
) -> None:
    """Its number is drawn and not committed: the index does not advance past it, whatever others commit meanwhile."""
    (late, other) = people(2, seed=11)[:, 0]
    index = large.indexes.find_index(large.collection.id, large.collection.space_id)
    assert index is not None
    before = index.last_number
    async with large.database.transaction() as work:
        elsewhere = await work.collections.add_collection("elsewhere", "contract", large.collection.policy)
    async with large.database.transaction() as work:
        await enrol(work, large.collection, "late", late)
        async with large.database.transaction() as meanwhile:  # draws a greater number and commits it first
            await enrol(meanwhile, elsewhere, "elsewhere", other)
        async with asyncio.timeout(5):
            await large.update_indexes()
        assert index.last_number == before
    (found,) = await large.search(late[None])
    assert found.candidates[0].external_id == "late", "before the index is updated"
    async with large.database.transaction() as work:
        await enrol(work, large.collection, "other", other)
    await large.update_indexes()
    assert len(index) == 2 * PERSONS + 2
    found = await large.search(np.stack([late, other]))
    assert [one.candidates[0].external_id for one in found] == ["late", "other"]


async def test_an_acknowledged_face_is_found_at_once_while_others_enrol_and_the_index_follows(
    large: Large, enrol: Callable[..., Awaitable[Any]]
) -> None:
    """Whichever of three writers commits last and wherever the index is at that moment."""
    vectors = people(45, seed=17)[:, 0]

    async def follow() -> None:
        while True:
            await large.indexes.update_indexes()

    async def write(which: range) -> None:
        for at in which:
            async with large.database.transaction() as work:
                await work.lock_collection(large.collection.id)
                await enrol(work, large.collection, f"new {at}", vectors[at])
            (found,) = await large.search(vectors[at][None])
            assert found.candidates[0].external_id == f"new {at}"

    following = asyncio.create_task(follow())
    await asyncio.gather(*(write(range(start, 45, 3)) for start in range(3)))
    following.cancel()
    await asyncio.wait([following])
    await large.update_indexes()
    assert large.indexes.get_sizes() == {(large.collection.id, large.collection.space_id): 2 * PERSONS + 45}


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


async def test_the_index_of_a_shrunk_or_deleted_collection_is_removed(large: Large) -> None:
    """Below half the limit SQL is faster; a deleted collection has nothing to search."""
    async with large.database.transaction() as work:
        for person in large.persons[: PERSONS - 100]:
            await work.persons.delete_person(large.collection.id, person)
    async with asyncio.timeout(30):  # PostgreSQL counts live rows some time after a commit
        while large.indexes.get_sizes():
            await large.update_indexes()
    (found,) = await large.search(large.vectors[-1:, 0])
    assert found.candidates[0].person_id == large.persons[-1]
    assert found.gallery_size == 200


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


def build_engine(large: Large) -> tuple[LocalCandidateEngine, IndexKey, FloatArray]:
    """Return an engine, the key of its index and three probes."""
    key = large.collection.id, large.collection.space_id
    return LocalCandidateEngine(large.indexes), key, probe_of(large.vectors[:3, 0])


async def list_above(engine: LocalCandidateEngine, key: IndexKey, probes: FloatArray, proposed: Any) -> Any:
    floors = [(SimilarityFloor(0.85, 1e-5),)] * len(probes)
    return [set(numbers) for numbers in await engine.above(key, probes, floors, proposed) or ()]


@pytest.mark.parametrize("floor", [0.93, 0.5])
async def test_answers_of_the_engine_do_not_depend_on_what_it_keeps(large: Large, floor: float) -> None:
    """What a floor counts is the same whether the scan of `nearest` is continued or repeated: not what is excluded."""
    engine, key, probes = build_engine(large)
    proposed = await engine.nearest(key, probes, 40)
    assert proposed is not None
    everything = [(SimilarityFloor(floor, 1e-5),)] * 3
    engine.end_search(key, probes)
    found = await engine.above(key, probes, everything, proposed)
    assert found is not None
    bounded = [(SimilarityFloor(floor, 1e-5, max_candidates=len(numbers)),) for numbers in found]

    repeated = await engine.above(key, probes, bounded, proposed)
    assert await engine.nearest(key, probes, 40) is not None
    continued = await engine.above(key, probes, bounded, proposed)

    assert repeated is not None
    assert continued is not None
    for some, again, all_above, known in zip(continued, repeated, found, proposed, strict=True):
        assert set(some) == set(again) == set(all_above)
        assert not set(some) & set(known)
    assert engine._scans == {}
    assert await engine.nearest((large.collection.id, "another"), probes, 40) is None
    assert await engine.above((large.collection.id, "another"), probes, bounded, proposed) is None


async def test_a_scan_that_proposed_something_else_is_not_continued(large: Large) -> None:
    """Another search for the same probes has widened; what it was given must not be missing from this one."""
    engine, key, probes = build_engine(large)
    narrow = await engine.nearest(key, probes, 40)
    expected = await list_above(engine, key, probes, narrow)
    await engine.nearest(key, probes, 400)

    assert await list_above(engine, key, probes, narrow) == expected


async def test_an_index_is_scanned_once_however_far_a_search_widens(
    large: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, key, probes = build_engine(large)
    scans, scan = 0, CodeStore.scan_first_segment

    def count_scans(*values: Any) -> Any:
        nonlocal scans
        scans += 1
        return scan(*values)

    monkeypatch.setattr(CodeStore, "scan_first_segment", count_scans)
    for count in (10, 40, 160):
        proposed = await engine.nearest(key, probes, count)
    await list_above(engine, key, probes, proposed)

    assert scans == len(probes)


async def test_a_kept_scan_is_not_used_once_the_index_holds_more(
    large: Large, enrol: Callable[..., Awaitable[Any]]
) -> None:
    """Another search for the same probe has the watermark of later: what it counts on must be scanned."""
    engine, key, probes = build_engine(large)
    await engine.nearest(key, probes, 5)
    async with large.database.transaction() as work:
        await enrol(work, large.collection, "late", probes[0])
    await large.update_indexes()

    watermark, proposed = await engine.watermark(key), await engine.nearest(key, probes, 5)

    assert watermark is not None
    assert proposed is not None
    assert watermark.last_number in proposed[0]


async def test_kept_scans_are_bounded_by_their_size(large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, key, probes = build_engine(large)
    monkeypatch.setattr("vultus.services.search.local_engine.MAX_SCAN_BYTES", int(2.9 * 2 * PERSONS))
    for probe in probes:
        await engine.nearest(key, probe[None], 40)
    assert list(engine._scans) == [(key, probe.tobytes()) for probe in probes[1:]]

    await engine.nearest(key, probes, 40)  # larger than all that may be kept
    assert engine._scans == {}


async def test_no_scan_is_kept_after_a_search_however_it_ends(large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    """They refer to codes, which may be those of persons erased since."""
    engine = large.searcher._engine
    assert isinstance(engine, LocalCandidateEngine)
    await large.search(large.vectors[:3, 0])
    assert engine._scans == {}
    queries, too_many = large.database.hot_queries, large.query(large.vectors[:1, 0], limit=600)
    assert await large.searcher.search_index_or_none(queries, too_many) is None
    assert engine._scans == {}

    async def fail(*_: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(large.searcher, "_rescore_candidates", fail)
    with pytest.raises(RuntimeError):
        await large.search(large.vectors[:3, 0])
    assert engine._scans == {}


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


async def test_a_run_in_which_one_index_stays_behind_has_failed_and_updated_the_others(
    large: Large, enrol: Callable[..., Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, update_index = find_index(large).last_number, large.indexes._update_index
    statistics = CodeRepository.list_space_statistics

    async def list_statistics(self: CodeRepository) -> Any:
        (size,) = await statistics(self)
        return [replace(size, space_id="broken"), size]

    async def update(key: Any, size: Any) -> None:
        if key[1] == "broken":
            raise RuntimeError("a defect")
        await update_index(key, size)

    monkeypatch.setattr(CodeRepository, "list_space_statistics", list_statistics)
    monkeypatch.setattr(large.indexes, "_update_index", update)
    async with large.database.transaction() as work:
        await enrol(work, large.collection, "late", people(1, seed=9)[0, 0])

    with pytest.raises(PartialFailureError, match="1 candidate indexes"):
        await large.update_indexes()

    assert find_index(large).last_number > before


async def test_what_was_erased_leaves_the_index_though_nothing_can_be_encoded(
    large: Large, enrol: Callable[..., Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database too busy to write to must not keep the codes of erased persons in memory."""

    async def refuse(*_: Any) -> None:
        raise OverloadedError("busy")

    monkeypatch.setattr(large.indexes, "_encode_faces", refuse)
    async with large.database.transaction() as work:
        await enrol(work, large.collection, "late", people(1, seed=9)[0, 0])
        await work.persons.delete_person(large.collection.id, large.persons[0])

    with pytest.raises(PartialFailureError):
        await large.update_indexes()

    assert len(find_index(large)) == 2 * PERSONS - 2


async def test_building_an_index_shows_life_after_every_batch(large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vultus.services.search.index_sync.ENCODE_BATCH_SIZE", 500)
    async with large.database.transaction() as work:
        await work._session.execute(text("UPDATE faces SET code = NULL"))
    signs = 0
    rebuilt = IndexRegistry(large.database, SETTINGS)

    def count() -> None:
        nonlocal signs
        signs += 1

    async with JobSupervisor().run("index-sync", rebuilt.update_indexes, interval_s=60) as status:
        monkeypatch.setattr(type(status), "record_life", lambda _: count())
        async with asyncio.timeout(20):
            while status.last_success_at is None:  # noqa: ASYNC110  no event
                await asyncio.sleep(0.01)

    assert signs >= 2 * PERSONS / 500 + 1 + 1, "encoded, loaded, done"


def find_index(large: Large) -> CandidateIndex:
    index = large.indexes.find_index(large.collection.id, large.collection.space_id)
    assert index is not None
    return index
