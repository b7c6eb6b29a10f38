"""Events are in the audit record and in the outbox, or in neither; who follows the outbox misses none."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from tests.callers import CALLER

from vultus.db.repositories.outbox import MAX_WAIT_S
from vultus.domain.events import CollectionCreated, KeyRevoked, PersonErased
from vultus.errors import OverloadedError
from vultus.services.people.erasure import Eraser
from vultus.settings import JobSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray, OutboxEntry


async def list_new_events(database: Database, after: int = 0, limit: int = 9) -> tuple[OutboxEntry, ...]:
    async with database.transaction() as work:
        return await work.outbox.list_events(after, limit)


async def test_an_event_has_the_same_ids_and_detail_in_both(database: Database) -> None:
    collection_id, person_id = uuid4(), uuid4()
    async with database.transaction() as work:
        await work.record(CALLER, PersonErased(collection_id=collection_id, person_id=person_id, faces=2, consents=1))
        await work.record(CALLER, KeyRevoked(object_id=person_id))

    erased, revoked = await list_new_events(database)
    async with database.transaction(read_only=True) as work:
        entries = await work.audit.list_entries(after=None, limit=9)

    assert (erased.action, erased.collection_id, erased.person_id) == ("person.erased", collection_id, person_id)
    assert (erased.object_id, erased.detail) == (None, {"faces": 2, "consents": 1})
    assert erased.number < revoked.number
    for event, entry in zip((erased, revoked), entries, strict=True):
        fields = ("action", "collection_id", "person_id", "object_id", "detail")
        assert [getattr(event, name) for name in fields] == [getattr(entry, name) for name in fields]
        assert event.created_at == entry.at


async def test_an_event_of_a_transaction_that_failed_did_not_happen(database: Database) -> None:
    with pytest.raises(ValueError, match="failed"):
        async with database.transaction() as work:
            await work.record(CALLER, KeyRevoked(object_id=uuid4()))
            raise ValueError("failed")

    assert await list_new_events(database) == ()
    async with database.transaction(read_only=True) as work:
        assert await work.audit.list_entries(after=None, limit=9) == ()


async def test_events_are_listed_in_pages(database: Database) -> None:
    async with database.transaction() as work:
        for _ in range(3):
            await work.record(CALLER, KeyRevoked(object_id=uuid4()))

    first, second = await list_new_events(database, limit=2)
    (third,) = await list_new_events(database, second.number)

    assert first.number < second.number < third.number
    assert await list_new_events(database, third.number) == ()


async def test_an_event_committed_late_is_not_missed(database: Database) -> None:
    """One number is drawn before another and committed after it: whoever reads waits for it."""
    async with database.transaction() as late:
        await late.record(CALLER, CollectionCreated(collection_id=uuid4()))
        async with database.transaction() as work:  # writers do not wait for each other
            await work.record(CALLER, KeyRevoked(object_id=uuid4()))
        following = asyncio.create_task(list_new_events(database))
        await asyncio.sleep(0.3)
        assert not following.done()

    assert [event.action for event in await following] == ["collection.created", "key.revoked"]


async def test_a_follower_stops_other_writers_only_briefly(database: Database) -> None:
    """Who records an event waits behind a follower who waits for another writer; so the follower gives up."""

    async def record() -> None:
        async with database.transaction() as work:
            await work.record(CALLER, KeyRevoked(object_id=uuid4()))

    async with database.transaction() as late:
        await late.record(CALLER, CollectionCreated(collection_id=uuid4()))
        following = asyncio.create_task(list_new_events(database))
        await asyncio.sleep(0.3)
        async with asyncio.timeout(MAX_WAIT_S + 2):
            with pytest.raises(OverloadedError):
                await following
            await record()

    assert [event.action for event in await list_new_events(database)] == ["collection.created", "key.revoked"]


async def test_old_events_leave_the_outbox_and_stay_in_the_audit_record(database: Database) -> None:
    async with database.transaction() as work:
        await work.record(CALLER, KeyRevoked(object_id=uuid4()))
        await work.outbox.delete_old_events(datetime.now(UTC) - timedelta(minutes=1))
    assert len(await list_new_events(database)) == 1

    async with database.transaction() as work:
        await work.outbox.delete_old_events(datetime.now(UTC) + timedelta(minutes=1))
    assert await list_new_events(database) == ()
    async with database.transaction(read_only=True) as work:
        assert len(await work.audit.list_entries(after=None, limit=9)) == 1


async def test_the_sweep_deletes_old_events_and_tombstones(
    database: Database, collection: Collection, enrol: Callable[..., Awaitable[Any]], towards: Callable[..., FloatArray]
) -> None:
    async with database.transaction() as work:
        for name in ("ada", "eve"):
            one = await enrol(work, collection, name, towards(0))
            await work.persons.delete_person(collection.id, one.person.id)
        await work.record(CALLER, KeyRevoked(object_id=uuid4()))

    async def sweep(hours: float) -> tuple[int, int]:
        await Eraser(database, JobSettings(outbox_hours=hours)).sweep_expired()
        async with database.transaction() as work:
            tombstones, _ = await work.codes.list_erased_numbers(collection.id, collection.space_id, 0)
            return len(await work.outbox.list_events(0, 9)), len(tombstones)

    assert await sweep(1) == (1, 2)
    assert await sweep(1e-9) == (0, 1), "the last tombstone stays"
