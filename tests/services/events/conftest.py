"""What a server has for webhooks, on a real database, with receivers on the loopback interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from tests.callers import CALLER
from tests.receivers import Message, Receiver

from vultus.domain import Band, Collection, Principal
from vultus.domain.sightings import Recognised, Unknown
from vultus.domain.webhooks import Delivery, DeliveryState, Webhook, WebhookGrant
from vultus.errors import OverloadedError
from vultus.services.events import dispatcher as dispatching
from vultus.services.events.dispatcher import WebhookDispatcher
from vultus.services.events.follower import OutboxFollower
from vultus.services.events.sending import WebhookSender
from vultus.services.events.sighting_log import OutboxSightingLog
from vultus.services.events.webhooks import WebhookService
from vultus.services.secret_vault import SecretVault
from vultus.settings import WebhookSettings

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import FloatArray
    from vultus.sealing.custody import Custody

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
SETTINGS = WebhookSettings(allowed_networks=("127.0.0.0/8",), timeout_s=1, first_retry_s=0.05)
Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]


class House:
    """What a server has for webhooks."""

    def __init__(self, database: Database, custody: Custody, settings: WebhookSettings = SETTINGS) -> None:
        self.database = database
        self.follower = OutboxFollower(database)
        self.sightings = OutboxSightingLog(database, self.follower)
        self.sender = WebhookSender(settings)
        vault = SecretVault(custody.keys)
        self.webhooks = WebhookService(database, self.follower, self.sender, vault)
        self.dispatcher = WebhookDispatcher(database, self.follower, self.sender, vault, settings)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the jobs until the block ends; as the supervisor, try again what fails."""

        async def repeat(action: Callable[[], Awaitable[object]]) -> None:
            while True:
                with suppress(OverloadedError):
                    await action()

        jobs = [asyncio.create_task(repeat(one)) for one in (self.follower.follow, self.dispatcher.dispatch)]
        try:
            yield
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            await self.dispatcher.close()

    async def create(self, receiver: Receiver, *, by: Principal = CALLER, **settings: Any) -> Webhook:
        collections = settings.pop("collections", None)
        actions = settings.pop("actions", None)
        grant = WebhookGrant(
            name="door", url=receiver.url, actions=None if actions is None else frozenset(actions), **settings
        )
        webhook, receiver.secret = await self.webhooks.create_webhook(by, grant, collections=collections)
        return webhook

    async def see(self, collection: Collection, origin_id: UUID, person_id: UUID | None = None) -> None:
        ids = {"collection_id": collection.id, "origin_id": origin_id, "track_id": uuid4()}
        if person_id is None:
            await self.sightings.record(CALLER, Unknown(origin_kind="source", at=NOW, **ids))
        else:
            await self.sightings.record(
                CALLER, Recognised(origin_kind="source", at=NOW, person_id=person_id, band=Band.CLEAR, **ids)
            )

    async def wait_until_disabled(self, webhook: Webhook) -> Webhook:
        async with asyncio.timeout(10):
            while True:
                found = await self.webhooks.get_webhook(CALLER, webhook.id)
                if found.disabled_at is not None:
                    return found
                await asyncio.sleep(0.02)

    async def list_deliveries(self, webhook: Webhook, state: DeliveryState | None = None) -> tuple[Delivery, ...]:
        return await self.webhooks.list_deliveries(CALLER, webhook.id, after=0, limit=999, state=state)


@pytest.fixture(autouse=True)
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "LEASE_MARGIN_S", 0.5)


@pytest.fixture
async def house(database: Database, custody: Custody) -> AsyncIterator[House]:
    house = House(database, custody)
    yield house
    await house.sender.close()


def list_types(messages: list[Message]) -> list[str]:
    return [message.body["type"] for message in messages]


def list_ids(messages: list[Message], origin_id: UUID) -> list[str]:
    return [message.id for message in messages if message.body["data"]["origin_id"] == str(origin_id)]
