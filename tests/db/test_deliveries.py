"""What there is to deliver is found, and what only waits for its turn is not taken for work."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from vultus.domain import Band
from vultus.domain.sightings import Recognised, Unknown
from vultus.domain.webhooks import WebhookGrant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray


async def see(database: Database, collection: Collection, *origin_ids: UUID) -> None:
    """Record a sighting per origin, and make the deliveries of them."""
    at = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    async with database.transaction() as work:
        for origin_id in origin_ids:
            ids = {"collection_id": collection.id, "origin_id": origin_id, "track_id": uuid4()}
            await work.record_sighting(Unknown(origin_kind="source", at=at, **ids))
    async with database.transaction() as work:
        await work.deliveries.make_deliveries(await work.outbox.settle())


async def has_deliveries(database: Database) -> bool:
    async with database.hot_queries() as queries:
        return await queries.pending_work.has_deliveries(await queries.outbox.settle())


async def test_what_waits_behind_another_delivery_of_its_origin_is_no_work(
    database: Database, collection: Collection
) -> None:
    first, second = uuid4(), uuid4()
    async with database.transaction() as work:
        grant = WebhookGrant(name="door", url="https://example.org/", actions=frozenset({"unknown"}))
        await work.webhooks.add_webhook(uuid4(), None, grant, b"sealed", 0)
    await see(database, collection, first, first)
    assert await has_deliveries(database)

    async with database.transaction() as work:
        (claimed,), _ = await work.deliveries.claim_deliveries(9, lease_s=60)
    assert not await has_deliveries(database)

    async with database.transaction() as work:
        await work.deliveries.record_failure(claimed.webhook.id, claimed.entry.number, 500, "HTTP 500", 60)
    assert not await has_deliveries(database)

    await see(database, collection, second)
    assert await has_deliveries(database)


async def test_deliveries_are_made_while_sightings_are_erased(
    database: Database, collection: Collection, enrol: Callable[..., Awaitable[Any]], towards: Callable[..., FloatArray]
) -> None:
    """What goes with a person is waited for, and what does not is delivered."""
    at, other = datetime(2026, 11, 24, 9, 30, tzinfo=UTC), uuid4()
    async with database.transaction() as work:
        ada = (await enrol(work, collection, "ada", towards(0))).person.id
        grant = WebhookGrant(name="door", url="https://example.org/", actions=frozenset({"recognised", "unknown"}))
        await work.webhooks.add_webhook(uuid4(), None, grant, b"sealed", 0)
        ids: dict[str, Any] = {"collection_id": collection.id, "origin_kind": "source", "at": at}
        await work.record_sighting(
            Recognised(person_id=ada, origin_id=uuid4(), track_id=uuid4(), band=Band.CLEAR, **ids)
        )
        await work.record_sighting(Unknown(origin_id=other, track_id=uuid4(), **ids))
    async with database.hot_queries() as queries:
        settled = await queries.outbox.settle()

    async def make() -> None:
        async with database.transaction() as work:
            await work.deliveries.make_deliveries(settled)

    async with database.transaction() as work:
        await work.persons.delete_person(collection.id, ada)
        making = asyncio.create_task(make())
        await asyncio.sleep(0.3)
    await making

    async with database.transaction() as work:
        claimed, _ = await work.deliveries.claim_deliveries(9, lease_s=60)
    assert [one.entry.object_id for one in claimed] == [other]
