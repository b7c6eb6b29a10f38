"""A candidate index follows what is enrolled and erased, and loses nobody meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text
from tests.db.test_indexing import PERSONS, SETTINGS, Large, find_index, large
from tests.galleries import people

from vultus.db.repositories.codes import CodeRepository
from vultus.errors import OverloadedError
from vultus.index.coding import Quantizer
from vultus.services.jobs import JobSupervisor, PartialFailureError
from vultus.services.search.index_sync import IndexRegistry

__all__ = ["large"]


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


async def test_the_index_of_a_shrunk_or_deleted_collection_is_removed(large: Large) -> None:
    """Below half the limit SQL is faster; a deleted collection has nothing to search."""
    async with large.database.transaction() as work:
        for person in large.persons[: PERSONS - 100]:
            await work.persons.delete_person(large.collection.id, person)
        # PostgreSQL counts live rows some time after a commit, which can take a minute where there are many of them.
        await work._session.execute(text("SELECT pg_stat_force_next_flush()"))
    async with asyncio.timeout(30):
        while large.indexes.get_sizes():
            await large.update_indexes()
    (found,) = await large.search(large.vectors[-1:, 0])
    assert found.candidates[0].person_id == large.persons[-1]
    assert found.gallery_size == 200


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
