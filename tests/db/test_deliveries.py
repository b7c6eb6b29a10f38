"""What there is to deliver is found, and what only waits for its turn is not taken for work."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from vultus.domain.sightings import Unknown
from vultus.domain.webhooks import WebhookGrant

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection


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
        (claimed,) = await work.deliveries.claim_deliveries(9, lease_s=60)
    assert not await has_deliveries(database)

    async with database.transaction() as work:
        await work.deliveries.record_failure(claimed.webhook.id, claimed.entry.number, 500, "HTTP 500", 60)
    assert not await has_deliveries(database)

    await see(database, collection, second)
    assert await has_deliveries(database)
