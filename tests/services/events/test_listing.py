"""Who may see which events, and that a stream shows each once, ends with its key, and is not opened without bound."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from tests.callers import CALLER

from vultus.db.repositories import outbox
from vultus.domain import ApiKey, Collection, EventFilter, Permission, Principal
from vultus.domain.events import CollectionChanged
from vultus.domain.sightings import Appeared, Sighting, SourceLost
from vultus.errors import (
    DatabaseUnavailableError,
    EventsExpiredError,
    ForbiddenError,
    NotFoundError,
    OverloadedError,
    StreamLimitError,
)
from vultus.services.access import AccessService
from vultus.services.events import listing, sighting_log
from vultus.services.events.follower import OutboxFollower
from vultus.services.events.listing import EventService, EventStream
from vultus.services.events.sighting_log import OutboxSightingLog
from vultus.settings import EventSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vultus.db.database import Database
    from vultus.domain import OutboxEntry
    from vultus.services.collections import CollectionService

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
READER = frozenset({Permission.READ})


@pytest.fixture
async def follower(database: Database) -> AsyncIterator[OutboxFollower]:
    follower = OutboxFollower(database)

    async def follow() -> None:
        while True:
            await follower.follow()

    following = asyncio.create_task(follow())
    yield follower
    following.cancel()
    await asyncio.wait([following])


@pytest.fixture
def events(database: Database, follower: OutboxFollower) -> EventService:
    return EventService(database, follower, EventSettings(max_streams=3, max_streams_per_key=2))


@pytest.fixture
def sightings(database: Database, follower: OutboxFollower) -> OutboxSightingLog:
    return OutboxSightingLog(database, follower)


def lose(collection: Collection, origin_id: UUID | None = None) -> SourceLost:
    return SourceLost(collection_id=collection.id, origin_id=origin_id or uuid4(), at=NOW)


async def make_reader(database: Database, *permissions: Permission, among: list[str] | None = None) -> Principal:
    key, _ = await AccessService(database).create_key(CALLER, "reader", {*READER, *permissions}, collections=among)
    return Principal.from_key(key)


async def list_actions(events: EventService, principal: Principal, **options: Any) -> list[str]:
    page = await events.list_events(principal, limit=99, **options)
    return [entry.action for entry in page.entries]


async def test_a_key_sees_the_events_of_its_collections(
    database: Database, collections: CollectionService, events: EventService, sightings: OutboxSightingLog
) -> None:
    first, second = [await collections.create_collection(CALLER, name) for name in ("home", "away")]
    source = uuid4()
    for one, origin in ((first, source), (second, uuid4())):
        await sightings.record(CALLER, lose(one, origin))
    reader, bound = await make_reader(database), await make_reader(database, among=["home"])
    auditor = await make_reader(database, Permission.AUDIT)

    everything = ["collection.created", "collection.created", "source_lost", "source_lost"]
    assert await list_actions(events, reader) == everything
    assert await list_actions(events, auditor) == [*everything, *["key.created"] * 3]
    assert await list_actions(events, bound) == ["collection.created", "source_lost"]
    assert await list_actions(events, reader, collection="away") == ["collection.created", "source_lost"]
    for only in (EventFilter(origin_id=source), EventFilter(actions=frozenset({"source_lost"}))):
        assert await list_actions(events, bound, only=only) == ["source_lost"]
    assert await list_actions(events, reader, only=EventFilter(until=NOW)) == []
    with pytest.raises(NotFoundError):
        await list_actions(events, bound, collection="away")
    with pytest.raises(ForbiddenError):
        await list_actions(events, Principal("nobody", frozenset()))


async def test_pages_follow_each_other_and_the_last_says_where_to_go_on(
    collection: Collection, events: EventService, sightings: OutboxSightingLog
) -> None:
    lost = EventFilter(actions=frozenset({"source_lost"}))
    for _ in range(3):
        await sightings.record(CALLER, lose(collection))

    first = await events.list_events(CALLER, limit=2, only=lost)
    second = await events.list_events(CALLER, after=first.position, limit=2, only=lost)
    assert ([len(first.entries), len(second.entries)], first.is_last, second.is_last) == ([2, 1], False, True)
    await sightings.record(CALLER, lose(collection))
    third = await events.list_events(CALLER, after=second.position, limit=2, only=lost)

    assert len({entry.id for page in (first, second, third) for entry in page.entries}) == 4
    with pytest.raises(EventsExpiredError, match="restored"):
        await events.list_events(CALLER, after=third.position + 1000, limit=2)


async def read(stream: EventStream, count: int) -> list[OutboxEntry]:
    async with asyncio.timeout(5):
        return [await anext(aiter(stream)) for _ in range(count)]


async def test_a_stream_goes_on_where_another_ended(
    database: Database, collection: Collection, events: EventService, sightings: OutboxSightingLog
) -> None:
    origin = uuid4()
    only = EventFilter(origin_id=origin)
    stream = await events.open_stream(CALLER, only=only)
    for _ in range(3):
        await sightings.record(CALLER, lose(collection, origin))
        await sightings.record(CALLER, lose(collection))
    first = await read(stream, 3)
    stream.close()
    other = OutboxSightingLog(database, OutboxFollower(database))  # of another server: nothing wakes this one
    await other.record(CALLER, lose(collection, origin))

    again = await events.open_stream(CALLER, after=first[1].number, only=only)
    entries = await read(again, 2)

    assert entries[0] == first[2]
    assert entries[1].number > first[2].number


async def test_a_stream_ends_with_its_key(
    database: Database,
    collection: Collection,
    events: EventService,
    sightings: OutboxSightingLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "KEY_CHECK_S", 0.05)
    reader = await make_reader(database)
    assert isinstance(reader.key, ApiKey)
    stream = await events.open_stream(reader)
    await sightings.record(CALLER, lose(collection))
    await read(stream, 1)

    await AccessService(database).revoke_key(CALLER, reader.key.id)
    await sightings.record(CALLER, lose(collection))

    async with asyncio.timeout(5):
        assert [entry async for entry in stream] == []


async def test_a_stream_ends_with_the_secret_that_it_was_opened_with(
    database: Database,
    collection: Collection,
    events: EventService,
    sightings: OutboxSightingLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A secret that leaked is of no use after its rotation, also to whoever has opened a stream with it."""
    monkeypatch.setattr(listing, "KEY_CHECK_S", 0.05)
    access = AccessService(database)
    key, leaked = await access.create_key(CALLER, "reader", READER)
    stream = await events.open_stream(Principal.from_key(await access.authenticate(leaked)))
    await sightings.record(CALLER, lose(collection))
    await read(stream, 1)

    _, secret = await access.rotate_key(CALLER, key.id, overlap_s=0)
    other = await events.open_stream(Principal.from_key(await access.authenticate(secret)))
    await sightings.record(CALLER, lose(collection))

    async with asyncio.timeout(5):
        assert [entry async for entry in stream] == []
    await read(other, 1)


async def test_a_slow_reader_gets_nothing_that_was_read_long_ago(
    database: Database,
    collection: Collection,
    events: EventService,
    sightings: OutboxSightingLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "KEY_CHECK_S", 0.05)
    reader = await make_reader(database)
    assert isinstance(reader.key, ApiKey)
    position = (await events.list_events(reader, limit=9)).position
    for _ in range(3):
        await sightings.record(CALLER, lose(collection))
    stream = await events.open_stream(reader, after=position)  # all three are read together
    await read(stream, 1)
    await asyncio.sleep(0.1)
    await read(stream, 1)  # read again, and nothing is missed
    await AccessService(database).revoke_key(CALLER, reader.key.id)
    await asyncio.sleep(0.1)

    async with asyncio.timeout(5):
        assert [entry async for entry in stream] == []


async def test_streams_are_bounded_also_if_they_are_opened_together(
    events: EventService, collection: Collection
) -> None:
    opened = await asyncio.gather(*(events.open_stream(CALLER) for _ in range(4)), return_exceptions=True)

    streams = [one for one in opened if isinstance(one, EventStream)]
    assert [len(streams), *(type(one).__name__ for one in opened[3:])] == [3, "OverloadedError"]
    for _ in range(2):
        streams[0].close()  # that nothing was read of it does not matter
    await events.open_stream(CALLER)
    with pytest.raises(OverloadedError):
        await events.open_stream(CALLER)


async def test_one_key_does_not_take_the_streams_of_others(database: Database, events: EventService) -> None:
    greedy, other = await make_reader(database), await make_reader(database)
    streams = [await events.open_stream(greedy) for _ in range(2)]

    with pytest.raises(StreamLimitError):
        await events.open_stream(greedy)
    await events.open_stream(other)
    streams[0].close()
    with pytest.raises(EventsExpiredError):
        await events.open_stream(greedy, after=10**6)  # one that is refused is not counted
    await events.open_stream(greedy)


async def test_sightings_wait_for_the_database_in_their_order(
    database: Database,
    collection: Collection,
    events: EventService,
    sightings: OutboxSightingLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    origin = uuid4()
    seen: list[Sighting] = [
        Appeared(collection_id=collection.id, origin_kind="source", origin_id=origin, track_id=uuid4(), at=NOW)
        for _ in range(5)
    ]

    def fail(*_: Any, **__: Any) -> Any:
        raise DatabaseUnavailableError("away")

    with monkeypatch.context() as away:
        away.setattr(sighting_log, "MAX_WAITING", 3)
        away.setattr(database, "transaction", fail)
        for one in seen[:4]:
            await sightings.record(CALLER, one)  # the first is dropped, and counted
        with pytest.raises(DatabaseUnavailableError):
            await sightings.write_waiting()
    assert await sightings.write_waiting() == 3
    await sightings.record(CALLER, seen[4])

    page = await events.list_events(CALLER, limit=9, only=EventFilter(origin_id=origin))
    tracks = [one.track_id for one in seen if isinstance(one, Appeared)]
    assert [entry.detail["track_id"] for entry in page.entries] == [str(track) for track in tracks[1:]]


async def test_only_who_may_see_live_video_records_sightings(
    collection: Collection, sightings: OutboxSightingLog
) -> None:
    with pytest.raises(ForbiddenError):
        await sightings.record(Principal("reader", READER), lose(collection))
    elsewhere = Principal("bound", frozenset(Permission), frozenset({uuid4()}))
    with pytest.raises(NotFoundError):
        await sightings.record(elsewhere, lose(collection))


async def test_an_open_transaction_delays_events_and_does_not_refuse_the_reader(
    database: Database, collection: Collection, events: EventService, sightings: OutboxSightingLog
) -> None:
    assert await list_actions(events, CALLER) == ["collection.created"]
    async with database.transaction() as work:
        await work.record(CALLER, CollectionChanged(collection_id=collection.id, fields=("name",)))
        await sightings.record(CALLER, lose(collection))
        assert await list_actions(events, CALLER) == ["collection.created"]
        with pytest.raises(EventsExpiredError, match="restored"):
            await list_actions(events, CALLER, after=10**6)

    assert await list_actions(events, CALLER) == ["collection.created", "collection.changed", "source_lost"]


async def test_many_who_ask_during_an_open_transaction_wait_no_longer_than_one(
    database: Database, collection: Collection, events: EventService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAIT_S", 0.2)
    await list_actions(events, CALLER)
    async with database.transaction() as work:
        await work.record(CALLER, CollectionChanged(collection_id=collection.id, fields=("name",)))
        async with asyncio.timeout(2):
            pages = await asyncio.gather(*(list_actions(events, CALLER) for _ in range(30)))

    assert pages == [["collection.created"]] * 30
