"""What a backfill computed is stored only while it is wanted, and only by the worker whose turn it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from tests.callers import CALLER
from tests.packs import FIRST, PACKS, SECOND
from tests.services.conftest import count_rows

from vultus.errors import NotFoundError
from vultus.services.migration.backfill import LEASE_S, BackfillFailure, record_outcome
from vultus.services.migration.migration import MigrationService
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray, SpaceRegistry

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]


@pytest.fixture
async def migrations(database: Database, spaces: SpaceRegistry, collection: Collection) -> MigrationService:
    """The service, with a migration of the collection under way."""
    service = MigrationService(database, spaces)
    await service.start(CALLER, collection.name, pack=PACKS[SECOND], shadow_share=0.0)
    return service


@pytest.fixture
async def face_id(database: Database, collection: Collection, enrol: Enrol, towards: Towards) -> UUID:
    """A face without a template in the second embedding space."""
    async with database.transaction() as work:
        return UUID(str((await enrol(work, collection, "ada", towards(0))).faces[0].id))


async def test_a_worker_whose_lease_another_has_taken_stores_nothing(
    database: Database, migrations: MigrationService, collection: Collection, face_id: UUID, towards: Towards
) -> None:
    late, other = new_id(), new_id()
    async with database.transaction() as work:
        assert await work.migrations.acquire_lease(collection.id, other, LEASE_S)

    for outcome in (towards(1), BackfillFailure("no_face")):
        assert not await record_outcome(database, collection.id, face_id, SECOND, outcome, worker=late)
    assert (await count_rows(database, "faces"), await count_rows(database, "carry_failures")) == (1, 0)

    assert await record_outcome(database, collection.id, face_id, SECOND, towards(1), worker=other)


async def test_a_later_success_replaces_a_failure(
    database: Database, migrations: MigrationService, collection: Collection, face_id: UUID, towards: Towards
) -> None:
    assert not await record_outcome(database, collection.id, face_id, SECOND, BackfillFailure("no_face"))
    assert await count_rows(database, "carry_failures") == 1

    assert await record_outcome(database, collection.id, face_id, SECOND, towards(1))

    assert (await count_rows(database, "faces"), await count_rows(database, "carry_failures")) == (2, 0)


@pytest.mark.parametrize("outcome", ["vector", "failure"])
async def test_the_outcome_in_a_space_that_the_collection_has_left_is_dropped(
    database: Database,
    migrations: MigrationService,
    collection: Collection,
    face_id: UUID,
    towards: Towards,
    outcome: str,
) -> None:
    """The migration was finished, and another one began, while the network ran."""
    late = towards(1) if outcome == "vector" else BackfillFailure("no_face")
    async with database.transaction() as work:
        await work.migrations.delete_migration(collection.id, SECOND)
        await work.migrations.add_migration(collection.id, "third", 0.0)
        await work.collections.update_collection(collection.id, second_contract_id="third")

    assert not await record_outcome(database, collection.id, face_id, SECOND, late)

    assert (await count_rows(database, "faces"), await count_rows(database, "carry_failures")) == (1, 0)


async def test_the_outcome_of_a_migration_that_has_ended_or_a_face_that_was_erased_is_dropped(
    database: Database, migrations: MigrationService, collection: Collection, face_id: UUID, towards: Towards
) -> None:
    async with database.transaction() as work:
        (person,) = await work.persons.list_persons(collection.id, after=None, limit=9)
        await work.faces.delete_face(collection.id, person.id, face_id)
    assert not await record_outcome(database, collection.id, face_id, SECOND, towards(1))
    with pytest.raises(NotFoundError):
        await record_outcome(database, collection.id, face_id, SECOND, BackfillFailure("no_face"))

    await migrations.finish(CALLER, "home", allow_unmigrated=True)

    with pytest.raises(NotFoundError, match="not changing"):
        await record_outcome(database, collection.id, face_id, FIRST, towards(1))
    assert await count_rows(database, "faces") == 0
