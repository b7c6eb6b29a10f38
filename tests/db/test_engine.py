"""The port to candidate engines: searches are right with any engine that keeps to it, and with some that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from tests.db.test_indexing import SETTINGS, THRESHOLD, probe_of
from tests.galleries import people

from vultus.db.database import Database
from vultus.domain import Collection, FloatArray, Fusion, NumberArray
from vultus.services.search.engine import CandidateEngine, IndexKey, SimilarityFloor, Watermark
from vultus.services.search.recall_monitor import RecallMonitor
from vultus.services.search.request import SearchQuery
from vultus.services.search.search import MAX_UNMATCHED_CANDIDATES, PREFERRED_RISK, Searcher

PERSONS = 60
VECTORS = people(PERSONS, seed=31)


@dataclass
class NumpyEngine:
    """An exact engine that holds vectors.

    Attributes:
        numbers: (n,) numbers of the templates.
        vectors: (n, d), in the same order.
        forgets_after: Calls after which it no longer holds the collection.
    """

    numbers: NumberArray
    vectors: FloatArray
    forgets_after: int = 1_000
    calls: list[tuple[str, list[int]]] = field(default_factory=list)
    ended: int = 0

    async def watermark(self, key: IndexKey) -> Watermark | None:
        return Watermark(int(self.numbers.max(initial=0)), len(self.numbers)) if self._holds("watermark", []) else None

    async def nearest(self, key: IndexKey, probes: FloatArray, count: int) -> list[NumberArray] | None:
        found = [self.numbers[np.argsort(-self.vectors @ probe)[:count]] for probe in probes]
        return found if self._holds("nearest", found) else None

    async def above(
        self,
        key: IndexKey,
        probes: FloatArray,
        floors: Sequence[Sequence[SimilarityFloor]],
        exclude: Sequence[NumberArray],
    ) -> list[NumberArray] | None:
        found = []
        for probe, some, excluded in zip(probes, floors, exclude, strict=True):
            lowest = min(floor.cosine for floor in some) - 1e-3
            found.append(np.setdiff1d(self.numbers[self.vectors @ probe >= lowest], excluded))
        return found if self._holds("above", found) else None

    def end_search(self, key: IndexKey, probes: FloatArray) -> None:
        self.ended += 1

    def _holds(self, call: str, found: list[NumberArray]) -> bool:
        self.calls.append((call, [len(numbers) for numbers in found]))
        return len(self.calls) <= self.forgets_after


@pytest.fixture
async def engine(database: Database, collection: Collection, enrol: Any) -> NumpyEngine:
    """An engine that holds all templates of the collection."""
    async with database.transaction() as work:
        for at, photos in enumerate(VECTORS):
            await enrol(work, collection, f"p{at}", *photos)
        rows = list(await work._session.execute(text("SELECT number FROM faces ORDER BY number")))
    return NumpyEngine(np.array([row.number for row in rows]), VECTORS.reshape(len(rows), -1))


def make_searcher(database: Database, engine: CandidateEngine, share: float = 0.0) -> Searcher:
    settings = SETTINGS.model_copy(update={"candidates": 3})
    return Searcher(database, engine, RecallMonitor(share, 0.0), settings)


def query(collection: Collection, probes: FloatArray, limit: int = 2) -> SearchQuery:
    return SearchQuery(collection.id, collection.space_id, probes, limit, Fusion.BEST, lambda _: (THRESHOLD, 0.01))


async def list_persons(searcher: Searcher, database: Database, asked: SearchQuery) -> tuple[list[Any], list[Any]]:
    """Return the best person and the gallery's size per probe, as searched and as an exact search finds them."""
    both = await searcher.search(asked), await searcher.search_exact(database.hot_queries, asked)
    found, exact = ([(one.candidates[0], one.gallery_size) for one in results] for results in both)
    return found, exact


async def test_a_search_by_another_engine_equals_an_exact_one(
    database: Database, collection: Collection, engine: NumpyEngine
) -> None:
    asked = query(collection, probe_of(VECTORS[:20, 0]))

    found, exact = await list_persons(make_searcher(database, engine), database, asked)

    assert found == exact
    assert [name for name, _ in engine.calls] == ["watermark", "nearest", "above"]
    assert engine.ended == 1


async def test_what_the_first_call_does_not_propose_the_second_does(
    database: Database, collection: Collection, engine: NumpyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `nearest` proposes the farthest templates, `above` still brings everybody above the threshold."""

    async def propose_farthest(_key: IndexKey, probes: FloatArray, count: int) -> list[NumberArray]:
        return [engine.numbers[np.argsort(engine.vectors @ probe)[:count]] for probe in probes]

    monkeypatch.setattr(engine, "nearest", propose_farthest)

    found, exact = await list_persons(
        make_searcher(database, engine), database, query(collection, VECTORS[:20, 0], limit=1)
    )

    assert found == exact


async def test_an_engine_that_is_late_or_holds_erased_faces_changes_no_result(
    database: Database, collection: Collection, engine: NumpyEngine
) -> None:
    """The last five persons are not in it yet, and the first two are still."""
    engine.numbers, engine.vectors = engine.numbers[:-10], engine.vectors[:-10]
    async with database.transaction() as work:
        erased = [one.id for one in await work.persons.list_persons(collection.id, after=None, limit=2)]
        for person_id in erased:
            await work.persons.delete_person(collection.id, person_id)
    asked = query(collection, np.concatenate([VECTORS[:4, 0], VECTORS[-7:, 0]]))

    found, exact = await list_persons(make_searcher(database, engine), database, asked)

    assert [candidate for candidate, _ in found] == [candidate for candidate, _ in exact]
    assert not {candidate.person_id for candidate, _ in found} & set(erased)
    assert {size for _, size in found} == {2 * PERSONS}, "those gone are still counted"


@pytest.mark.parametrize("calls", [0, 1, 2])
async def test_an_engine_that_no_longer_holds_the_collection_leaves_the_search_to_sql(
    database: Database, collection: Collection, engine: NumpyEngine, calls: int
) -> None:
    engine.forgets_after = calls
    asked = query(collection, probe_of(VECTORS[:5, 0]))

    found, exact = await list_persons(make_searcher(database, engine), database, asked)

    assert found == exact
    assert len(engine.calls) == calls + 1
    assert engine.ended == 1


async def test_an_engine_that_loses_persons_is_no_longer_asked(
    database: Database, collection: Collection, engine: NumpyEngine
) -> None:
    searcher, asked = make_searcher(database, engine), query(collection, VECTORS[:10, 0])
    engine.numbers, engine.vectors = engine.numbers[-1:], engine.vectors[-1:]
    await searcher.check_recall(asked)
    engine.calls.clear()

    found, exact = await list_persons(searcher, database, asked)

    assert found == exact
    assert engine.calls == []


@dataclass
class FloorRecorder(NumpyEngine):
    """Records the floors of the last search."""

    floors: list[tuple[SimilarityFloor, ...]] = field(default_factory=list)

    async def above(self, key: Any, probes: Any, floors: Any, exclude: Any) -> list[NumberArray] | None:
        self.floors = [tuple(some) for some in floors]
        return await super().above(key, probes, floors, exclude)


async def test_an_engine_is_asked_for_what_decides_and_for_no_more(
    database: Database, collection: Collection, engine: NumpyEngine
) -> None:
    """Of a match, anybody better and the runner-up within the margin; of no match, all matches, the nearest if few."""
    recorder = FloorRecorder(engine.numbers, engine.vectors)
    stranger = people(1, seed=77)[0, 0]
    sizes = []

    def get_floor(size: int) -> tuple[float, float]:
        sizes.append(size)
        return THRESHOLD, 0.2

    asked = replace(query(collection, np.stack([VECTORS[5, 0], stranger])), get_floor=get_floor)
    mate, other = await make_searcher(database, recorder).search(asked)

    best, nearest = mate.candidates[0].similarity, other.candidates[0].similarity
    risk = SETTINGS.risk
    assert nearest < THRESHOLD < best
    (required, preferred), (threshold, closest) = recorder.floors
    assert (required, threshold) == (SimilarityFloor(best, risk), SimilarityFloor(THRESHOLD, risk))
    assert (preferred.risk, preferred.max_candidates) == (PREFERRED_RISK, np.inf)
    assert preferred.cosine == pytest.approx(max(best - 0.2, mate.candidates[1].similarity), abs=1e-6)
    assert (closest.risk, closest.max_candidates) == (PREFERRED_RISK, MAX_UNMATCHED_CANDIDATES)
    assert closest.cosine <= nearest
    assert set(sizes) == {2 * PERSONS}


async def test_the_threshold_is_that_of_the_whole_gallery_with_what_the_engine_does_not_hold_yet(
    database: Database, collection: Collection, engine: NumpyEngine
) -> None:
    """Of a whole gallery another threshold may hold than of the few newest."""
    recorder = FloorRecorder(engine.numbers[:-6], engine.vectors[:-6])
    asked = replace(query(collection, VECTORS[:1, 0]), get_floor=lambda size: (size / 1000, 0.0))
    stranger = replace(asked, probes=-VECTORS[:1, 0])

    await make_searcher(database, recorder).search(stranger)

    assert recorder.floors[0][0].cosine == 2 * PERSONS / 1000
