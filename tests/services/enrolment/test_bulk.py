"""Registration of vectors: a whole batch or nothing, whatever happens to the collection meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.callers import CALLER
from tests.packs import FIRST, SECOND
from tests.services.conftest import DIMENSION, GRANT, count_rows, list_actions, wait_for_lock_waiter

from vultus.errors import AlreadyExistsError, ConflictError, EmbeddingSpaceMismatchError
from vultus.services.enrolment.bulk import BulkRegistrar, ImportResult, VectorBatch
from vultus.services.people.consents import ConsentGrant

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, SpaceRegistry
    from vultus.services.collections import CollectionService

VECTORS = np.random.default_rng(0).normal(size=(3, DIMENSION))
IDS = ["A", "B", "C"]


@pytest.fixture
def registrar(database: Database, spaces: SpaceRegistry) -> BulkRegistrar:
    return BulkRegistrar(database, spaces)


def batch(*external_ids: str, **changes: Any) -> VectorBatch:
    count = len(external_ids)
    fields = {"names": [None] * count, "vectors": VECTORS[:count], "consent": GRANT, **changes}
    return VectorBatch("home", FIRST, external_ids, **fields)


async def test_vectors_are_stored_with_length_one_under_a_consent_of_their_own(
    database: Database, collections: CollectionService, collection: Collection, registrar: BulkRegistrar
) -> None:
    await collections.update_collection(CALLER, "home", retention_days=30)
    granted_at = datetime.now(UTC) - timedelta(days=10)

    await registrar.register(CALLER, batch(*IDS, vectors=7 * VECTORS, consent=ConsentGrant("x", "y", granted_at)))

    async with database.transaction(read_only=True) as work:
        persons = await work.persons.list_persons(collection.id, after=None, limit=9)
        consents = [(await work.consents.list_live_consents(collection.id, one.id))[0] for one in persons]
        templates = [await work.templates.list_person_templates(collection.id, one.id) for one in persons]
        stored = np.array([vector for ((_, _, vector),) in templates])
    assert [one.external_id for one in persons] == IDS
    assert {one.expires_at for one in consents} == {granted_at + timedelta(days=30)}
    np.testing.assert_allclose(stored, VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True), atol=1e-3)
    assert (await list_actions(database))[-1] == "vectors.registered"


async def test_one_known_person_refuses_the_whole_batch_and_names_the_rows_of_the_file(
    database: Database, collection: Collection, registrar: BulkRegistrar
) -> None:
    await registrar.register(CALLER, batch("B"))

    with pytest.raises(AlreadyExistsError, match="Row 101,"):
        await registrar.register(CALLER, batch(*IDS, first_row=100))

    assert await count_rows(database, "persons") == 1


async def test_batches_with_the_same_persons_at_once_register_everybody_once(
    database: Database, collection: Collection, registrar: BulkRegistrar
) -> None:
    done = await asyncio.gather(*(registrar.register(CALLER, batch(*IDS, skip_known=True)) for _ in range(3)))

    assert sorted((one.registered, one.known) for one in done) == [(0, 3), (0, 3), (3, 0)]
    assert await count_rows(database, "faces") == 3


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"second_contract_id": SECOND}, ConflictError),
        ({"contract_id": SECOND}, EmbeddingSpaceMismatchError),
    ],
    ids=["begun", "finished"],
)
async def test_a_batch_that_waits_while_a_migration_is_begun_or_finished_is_refused(
    database: Database,
    collection: Collection,
    registrar: BulkRegistrar,
    change: dict[str, str],
    error: type[Exception],
) -> None:
    """Or its faces would never be found again: nothing can carry them over."""
    async with database.transaction() as work:
        await work.lock_collection(collection.id)
        waiting: asyncio.Task[ImportResult] = asyncio.create_task(registrar.register(CALLER, batch(*IDS)))
        await wait_for_lock_waiter(database)
        await work.collections.update_collection(collection.id, **change)

    with pytest.raises(error):
        await waiting
    assert await count_rows(database, "faces") == 0
