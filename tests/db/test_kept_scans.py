"""Scans of an index that are kept and continued: the answers do not depend on them, nor does memory grow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.db.test_indexing import PERSONS, Large, large, probe_of

from vultus.domain import FloatArray
from vultus.index.codes import CodeStore
from vultus.services.search.engine import IndexKey, SimilarityFloor
from vultus.services.search.local_engine import LocalCandidateEngine

__all__ = ["large"]


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
