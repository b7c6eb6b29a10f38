"""Services on a real database, without HTTP and without networks: of a pack they need only what describes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import text
from tests.callers import CALLER
from tests.db.conftest import enrol, towards
from tests.packs import PACKS, describe_pipeline

from vultus.domain import Collection, SpaceRegistry
from vultus.models.pipelines import PipelineRegistry
from vultus.services.collections import CollectionService
from vultus.services.people.consents import ConsentGrant

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.db.database import Database

__all__ = ["enrol", "towards"]

DIMENSION = 8
GRANT = ConsentGrant("Tests", "tests@example.org")


@pytest.fixture(scope="session")
def spaces() -> SpaceRegistry:
    return PipelineRegistry(*(describe_pipeline(space_id, DIMENSION) for space_id in PACKS)).spaces


@pytest.fixture
def collections(database: Database, spaces: SpaceRegistry, tmp_path: Path) -> CollectionService:
    return CollectionService(database, spaces, has_liveness=True)


@pytest.fixture
async def collection(collections: CollectionService) -> Collection:
    """The collection `home`, in the first embedding space."""
    return await collections.create_collection(CALLER, "home")


async def count_rows(database: Database, table: str) -> int:
    async with database.transaction(read_only=True) as work:
        return int((await work._session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def list_actions(database: Database, person_id: UUID | None = None) -> list[str]:
    """Return the actions of the audit record, oldest first; those about a person if given."""
    where = "" if person_id is None else f"WHERE person_id = '{person_id}'"
    async with database.transaction(read_only=True) as work:
        return list((await work._session.execute(text(f"SELECT action FROM audit {where} ORDER BY id"))).scalars())


async def expire(database: Database, consent: Any, at: datetime | None = None) -> None:
    """Move the end of a consent into the past."""
    async with database.transaction() as work:
        await work.consents.update_consent(
            consent.collection_id, consent.id, expires_at=at or datetime(2026, 1, 3, tzinfo=UTC)
        )


async def wait_for_lock_waiter(database: Database) -> None:
    """Return once another transaction waits for a lock."""
    waiting = (
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        " WHERE NOT granted AND datname = current_database()"
    )
    for _ in range(1000):
        async with database.transaction(read_only=True) as work:
            if (await work._session.execute(text(waiting))).scalar_one():
                return
            await work._session.execute(text("SELECT pg_sleep(0.01)"))
    raise AssertionError("nobody waits for a lock")
