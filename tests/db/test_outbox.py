"""Events are in the audit record and in the outbox, or in neither; who follows the outbox misses none."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from tests.callers import CALLER

from vultus.db.repositories import outbox
from vultus.domain.events import CollectionCreated, KeyRevoked, PersonErased
from vultus.domain.sightings import Left
from vultus.errors import EventsExpiredError, OverloadedError
from vultus.services.people.erasure import Eraser
from vultus.settings import JobSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray, OutboxEntry


async def list_new_events(database: Database, after: int = 0, limit: int = 9) -> tuple[OutboxEntry, ...]:
    async with database.hot_queries() as queries:
        settled = await queries.outbox.settle()
    async with database.transaction(read_only=True) as work:
        return await work.outbox.list_events(after, settled, limit)


def see(collection: Collection, person_id: UUID | None) -> Left:
    at = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    return Left(
        collection_id=collection.id,
        person_id=person_id,
        origin_kind="source",
        origin_id=uuid4(),
        track_id=uuid4(),
        since=at,
        at=at,
        track_ids=(uuid4(),),
    )


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


async def test_who_waits_for_a_slow_writer_keeps_no_other_waiting(database: Database) -> None:
    async with database.transaction() as late:
        await late.record(CALLER, CollectionCreated(collection_id=uuid4()))
        following = asyncio.create_task(list_new_events(database))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(0.5), database.transaction() as work:
            await work.record(CALLER, KeyRevoked(object_id=uuid4()))
        with pytest.raises(OverloadedError):
            await following

    assert [event.action for event in await list_new_events(database)] == ["collection.created", "key.revoked"]


async def test_a_number_that_was_drawn_in_vain_is_not_where_anybody_reads_on(database: Database) -> None:
    """Rolled back, it is not on disk: after a crash the next event may have it."""
    async with database.transaction() as work:
        await work.record(CALLER, KeyRevoked(object_id=uuid4()))
    with contextlib.suppress(ZeroDivisionError):
        async with database.transaction() as work:
            await work.record(CALLER, KeyRevoked(object_id=uuid4()))
            raise ZeroDivisionError

    async with database.hot_queries() as queries:
        newest, settled = await queries.outbox.find_newest_number(), await queries.outbox.settle()

    (event,) = await list_new_events(database)
    assert (newest, settled) == (event.number + 1, event.number)


async def test_followers_miss_nothing_of_writers_that_overlap(database: Database) -> None:
    """Twenty writers with transactions of different lengths, some of which fail; one reader that never looks back."""
    written: list[UUID] = []

    async def write(at: int) -> None:
        for step in range(5):
            event = KeyRevoked(object_id=uuid4())
            with contextlib.suppress(ZeroDivisionError):
                async with database.transaction() as work:
                    await work.record(CALLER, event)
                    await asyncio.sleep(0.002 * ((at * 7 + step * 3) % 5))
                    if (at + step) % 6 == 0:
                        raise ZeroDivisionError
                written.append(event.object_id)

    writing = asyncio.gather(*(write(at) for at in range(20)))
    seen: list[OutboxEntry] = []
    while not writing.done() or len(seen) < len(written):
        seen += await list_new_events(database, seen[-1].number if seen else 0, limit=7)
    await writing

    assert sorted(entry.object_id for entry in seen if entry.object_id) == sorted(written)
    assert [entry.number for entry in seen] == sorted({entry.number for entry in seen})


async def test_a_sighting_goes_with_its_person_and_is_not_in_the_audit_record(
    database: Database, collection: Collection, enrol: Callable[..., Awaitable[Any]], towards: Callable[..., FloatArray]
) -> None:
    async with database.transaction() as work:
        ada = (await enrol(work, collection, "ada", towards(0))).person.id
        for event_id, sighting in ((uuid4(), see(collection, ada)), (uuid4(), see(collection, None))):
            await work.record_sighting(sighting, event_id)
            await work.record_sighting(sighting, event_id)  # a writer that lost its connection during the commit

    seen = await list_new_events(database)
    assert [(entry.action, entry.person_id) for entry in seen] == [("left", ada), ("left", None)]
    async with database.transaction() as work:
        assert await work.audit.list_entries(after=None, limit=9) == ()
        await work.persons.delete_person(collection.id, ada)

    (rest,) = await list_new_events(database)
    assert rest.id == seen[1].id


async def test_a_sighting_of_somebody_who_is_erased_meanwhile_does_not_name_them(
    database: Database, collection: Collection, enrol: Callable[..., Awaitable[Any]], towards: Callable[..., FloatArray]
) -> None:
    async with database.transaction() as work:
        ada = (await enrol(work, collection, "ada", towards(0))).person.id

    async def record() -> None:
        async with database.transaction() as work:
            await work.record_sighting(see(collection, ada))

    async with database.transaction() as work:
        await work.persons.delete_person(collection.id, ada)
        recording = asyncio.create_task(record())
        await asyncio.sleep(0.3)
        assert not recording.done()
    await recording

    assert [entry.person_id for entry in await list_new_events(database)] == [None]


async def test_with_a_collection_go_its_sightings_also_of_nobody_known(
    database: Database, collection: Collection
) -> None:
    async with database.transaction() as work:
        await work.record_sighting(see(collection, None))
    async with database.transaction() as work:
        await work.collections.delete_collection(collection.id)

    assert await list_new_events(database) == ()


async def test_a_collection_that_is_deleted_while_sightings_are_recorded_takes_them_along(
    database: Database, collection: Collection, enrol: Callable[..., Awaitable[Any]], towards: Callable[..., FloatArray]
) -> None:
    async with database.transaction() as work:
        ada = (await enrol(work, collection, "ada", towards(0))).person.id

    async def delete() -> None:
        async with database.transaction() as work:
            await work.collections.delete_collection(collection.id)

    async with database.transaction() as work:
        await work.record_sighting(see(collection, None))
        deleting = asyncio.create_task(delete())
        await asyncio.sleep(0.3)
        assert not deleting.done()
        await work.record_sighting(see(collection, ada))
    await deleting

    assert await list_new_events(database) == ()


async def test_nothing_is_recorded_of_a_collection_that_is_deleted_meanwhile(
    database: Database, collection: Collection
) -> None:
    async def record() -> None:
        async with database.transaction() as work:
            await work.record_sighting(see(collection, None))

    async with database.transaction() as work:
        await work.collections.delete_collection(collection.id)
        recording = asyncio.create_task(record())
        await asyncio.sleep(0.3)
        assert not recording.done()
    await recording

    assert await list_new_events(database) == ()


async def test_a_reader_that_was_away_for_too_long_is_told(database: Database, collection: Collection) -> None:
    async with database.transaction() as work:
        await work.record(CALLER, KeyRevoked(object_id=uuid4()))
        await work.record_sighting(see(collection, None))
        await work.record(CALLER, KeyRevoked(object_id=uuid4()))
    first, sighting, last = await list_new_events(database)
    async with database.transaction() as work:
        now = datetime.now(UTC)
        await work.outbox.delete_old_events(now - timedelta(hours=1), now + timedelta(hours=1))

    assert await list_new_events(database, sighting.number) == (last,)
    assert await list_new_events(database) == (first, last)
    with pytest.raises(EventsExpiredError):
        await list_new_events(database, first.number)


async def test_old_events_go_in_parts_the_oldest_first(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "DELETION_SIZE", 2)
    for _ in range(3):
        async with database.transaction() as work:
            await work.record(CALLER, KeyRevoked(object_id=uuid4()))
    *_, last = await list_new_events(database)
    soon = [datetime.now(UTC) + timedelta(minutes=1)] * 2

    async with database.transaction() as work:
        assert not (await work.outbox.delete_old_events(*soon)).is_last
    assert await list_new_events(database) == (last,)
    async with database.transaction() as work:
        assert (await work.outbox.delete_old_events(*soon)).is_last
    async with database.hot_queries() as queries:
        assert await queries.outbox.settle() == last.number  # where everybody has read to


async def test_old_events_leave_the_outbox_and_stay_in_the_audit_record(database: Database) -> None:
    async with database.transaction() as work:
        await work.record(CALLER, KeyRevoked(object_id=uuid4()))
        await work.outbox.delete_old_events(*[datetime.now(UTC) - timedelta(minutes=1)] * 2)
    assert len(await list_new_events(database)) == 1

    async with database.transaction() as work:
        await work.outbox.delete_old_events(*[datetime.now(UTC) + timedelta(minutes=1)] * 2)
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
        return len(await list_new_events(database)), len(tombstones)

    assert await sweep(1) == (1, 2)
    assert await sweep(1e-9) == (0, 1), "the last tombstone stays"
