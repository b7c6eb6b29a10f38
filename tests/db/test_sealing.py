"""A collection that is sealed while it is in use: refused, or done in the background, and searched all the while."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import text
from tests.db import test_indexing
from tests.db.test_indexing import Large, probe_of
from tests.galleries import people

from vultus.db.database import Database
from vultus.domain import HnswGraph, Storage
from vultus.errors import ConflictError, KeyRingError
from vultus.services.jobs import PartialFailureError
from vultus.services.people import sealing
from vultus.services.people.sealing import CollectionSealer
from vultus.services.search.index_sync import IndexRegistry
from vultus.services.search.local_engine import LocalCandidateEngine
from vultus.services.search.search import Searcher
from vultus.services.storage import apply_storage, check_graph

if TYPE_CHECKING:
    from vultus.domain import Collection, DecisionPolicy
    from vultus.sealing.custody import Custody

large = test_indexing.large


async def seal(database: Database, collection: Collection) -> Collection:
    """Change a collection's policy as a request does."""
    async with database.transaction() as work:
        await work.lock_collection(collection.id)
        policy = replace(collection.policy, storage=Storage.SEALED)
        changed = await work.collections.update_collection(collection.id, policy=policy)
        await apply_storage(work, collection, changed)
    return changed


async def count_open(database: Database) -> int:
    async with database.transaction(read_only=True) as work:
        return int((await work._session.execute(text("SELECT count(embedding) + count(code) FROM faces"))).scalar_one())


async def test_searches_answer_alike_while_a_large_collection_is_sealed(
    large: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the index that was there, through one that is made of both kinds, and through one of sealed ones."""
    monkeypatch.setattr(sealing, "BATCH_SIZE", 700)
    probes = probe_of(large.vectors[:40, 0])

    async def search() -> Any:
        found, exact = await large.search_both(probes)
        for result, reference in zip(found, exact, strict=True):
            assert result.candidates[0] == reference.candidates[0]
        return [[(one.person_id, one.face_id, one.external_id) for one in result.candidates[:1]] for result in exact]

    before = await search()
    changed = await seal(large.database, large.collection)
    assert await search() == before
    sealer = CollectionSealer(large.database)
    async with large.database.transaction() as work:
        count, last = await work.templates.seal_open_templates(changed.id, 0, 700)
        await work.sealings.record_progress(changed.id, count, last)
    assert await search() == before
    for state in ("half", "sealed"):
        if state == "sealed":
            assert await sealer.run() == 1_300
        large.indexes = IndexRegistry(large.database, test_indexing.SETTINGS)
        engine = LocalCandidateEngine(large.indexes)
        large.searcher = Searcher(large.database, engine, large.indexes.recall_monitor, test_indexing.SETTINGS)
        await large.update_indexes()
        assert large.indexes.get_sizes() == {(changed.id, changed.space_id): 2_000}
        assert await search() == before

    assert await count_open(large.database) == 0
    assert await sealer.run() == 0
    async with large.database.transaction(read_only=True) as work:
        assert await work.codes.find_quantizer(changed.id, changed.space_id) is None


async def test_an_index_follows_faces_that_are_enrolled_sealed(large: Large, custody: Custody) -> None:
    changed = await seal(large.database, large.collection)
    await CollectionSealer(large.database).run()
    await large.update_indexes()
    vectors = people(20, seed=5)[:, 0]
    async with large.database.transaction() as work:
        ids = await work.bulk.add_persons(changed.id, [(f"new{at}", None) for at in range(20)], with_keys=True)
        granted = datetime(2026, 1, 2, tzinfo=UTC)
        consents = await work.bulk.add_consents(
            changed.id, ids, purpose="entry", recorded_by="x", evidence_ref=None, granted_at=granted, expires_at=None
        )
        await work.templates.import_templates(
            changed.id,
            changed.space_id,
            persons=ids,
            consents=consents,
            expires_at=None,
            vectors=vectors,
            sources=np.concatenate([ids, ids], axis=1),
        )
    names = [f"new{at}" for at in range(20)]
    for expected in (2_000, 2_020):  # compared as newer than the index, then found by it
        assert large.indexes.get_sizes() == {(changed.id, changed.space_id): expected}
        found, _ = await large.search_both(vectors)
        assert [one.candidates[0].external_id for one in found] == names
        await large.update_indexes()
    assert len(custody.person_keys.list_keys()) == 1_020


async def test_a_lost_key_keeps_no_other_collection_from_being_sealed(
    database: Database, collection: Collection, policy: DecisionPolicy, enrol: Any, towards: Any, custody: Custody
) -> None:
    """One whose key sealed no template, as where only crops were kept, gets another; and no other is given up."""
    async with database.transaction() as work:
        other = await work.collections.add_collection("other", "contract", policy)
        people = [await enrol(work, one, "ada", towards(0), towards(1)) for one in (collection, other)]
        await work.person_keys.ensure_keys([one.person.id for one in people])
    for one in (collection, other):
        await seal(database, one)
    async with database.transaction() as work:
        await work.templates.seal_open_templates(collection.id, 0, 1)
    custody.person_keys.destroy_keys(custody.person_keys.list_keys())

    with pytest.raises(PartialFailureError, match="1 collections"):
        await CollectionSealer(database).run()

    assert await count_open(database) == 1
    assert [person_id for _, person_id in custody.person_keys.list_keys()] == [people[1].person.id]


@pytest.mark.parametrize("graph", [False, True], ids=["open again", "with a graph"])
async def test_what_would_write_vectors_in_plain_is_refused(
    database: Database, collection: Collection, *, graph: bool
) -> None:
    sealed = replace(collection, policy=replace(collection.policy, storage=Storage.SEALED))
    async with database.transaction() as work:
        if graph:
            with pytest.raises(ConflictError, match="HNSW graph"):
                check_graph(replace(sealed, graph=HnswGraph.__new__(HnswGraph)))
        else:
            with pytest.raises(ConflictError, match="stays so"):
                await apply_storage(work, sealed, collection)


async def test_a_collection_is_not_sealed_without_keys(database: Database, collection: Collection) -> None:
    database._seal.custody = None
    with pytest.raises(KeyRingError):
        await seal(database, collection)
    async with database.transaction(read_only=True) as work:
        assert (await work.collections.get_collection(collection.id)).policy.storage is Storage.OPEN
