"""Webhooks are managed by those who may read what they send; their secrets are sealed, their addresses checked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import text
from tests.callers import CALLER
from tests.receivers import Receiver, receiving
from tests.server.sockets import wait_until
from tests.services.events.conftest import House

from vultus.domain import Collection, Permission, Principal, Role
from vultus.domain.webhooks import WebhookGrant
from vultus.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError, UnavailableError
from vultus.services.access import AccessService
from vultus.services.collections import CollectionService
from vultus.services.events import webhooks as managing

if TYPE_CHECKING:
    from vultus.db.database import Database


async def test_a_webhook_ends_with_its_key(house: House, database: Database, collection: Collection) -> None:
    access = AccessService(database)
    key, _ = await access.create_key(CALLER, "back office", Role.ADMIN)
    with receiving() as receiver:
        webhook = await house.create(receiver, by=Principal.from_key(key), actions=["unknown"])
        await access.revoke_key(CALLER, key.id)
        await house.see(collection, uuid4())
        async with house.running():
            await house.wait_until_disabled(webhook)
            assert receiver.messages == []
            found = await house.webhooks.update_webhook(CALLER, webhook.id, enabled=True)
            await wait_until(lambda: receiver.accepted)

    assert found.key_id is None


async def test_after_a_rotation_both_secrets_verify_for_a_while(house: House, collection: Collection) -> None:
    with receiving() as receiver:
        webhook = await house.create(receiver, actions=["unknown"])
        _, new = await house.webhooks.rotate_secret(CALLER, webhook.id, overlap_s=60)
        async with house.running():
            await house.see(collection, uuid4())
            await wait_until(lambda: receiver.accepted)
            receiver.secret = new
            await house.see(collection, uuid4())
            await wait_until(lambda: len(receiver.accepted) == 2)
            _, last = await house.webhooks.rotate_secret(CALLER, webhook.id, overlap_s=0)
            await house.see(collection, uuid4())
            await wait_until(lambda: len(receiver.accepted) == 3)
            sent = await house.webhooks.send_test(CALLER, webhook.id)

    assert [message.is_signed for message in receiver.messages[:3]] == [True, True, False]
    assert last.startswith("whsec_")
    assert (sent.status, sent.error, receiver.messages[3].body["type"]) == (204, None, "webhook.test")


async def test_a_key_manages_webhooks_for_what_it_may_read(
    house: House, database: Database, collections: CollectionService, collection: Collection
) -> None:
    await collections.create_collection(CALLER, "away")
    configure = {Permission.CONFIGURE, Permission.READ}

    async def make(*permissions: Permission, among: list[str] | None = None) -> Principal:
        key, _ = await AccessService(database).create_key(CALLER, "key", set(permissions), collections=among)
        return Principal.from_key(key)

    bound, blind = await make(*configure, among=["home"]), await make(Permission.CONFIGURE)
    whole, auditor = await make(*configure), await make(*configure, Permission.AUDIT)
    with receiving() as receiver:
        everything = await house.create(receiver)
        own = await house.create(receiver, by=bound)
        assert own.collections == frozenset({collection.id})
        await house.create(receiver, by=auditor, actions=["key.created"])
        for refused, error, settings in (
            (blind, ForbiddenError, {}),
            (whole, ForbiddenError, {"actions": ["key.created"]}),
            (bound, NotFoundError, {"collections": ["away"]}),
        ):
            with pytest.raises(error):
                await house.create(receiver, by=refused, **settings)
        for page, expected in ((CALLER, 3), (bound, 1)):
            assert len(await house.webhooks.list_webhooks(page, after=None, limit=9)) == expected
        with pytest.raises(NotFoundError):
            await house.webhooks.update_webhook(bound, everything.id, enabled=False)
        with pytest.raises(NotFoundError):
            await house.webhooks.delete_webhook(bound, everything.id)
        await house.webhooks.delete_webhook(bound, own.id)
        with pytest.raises(NotFoundError):
            await house.webhooks.get_webhook(CALLER, own.id)


async def test_a_key_has_a_bounded_number_of_webhooks(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managing, "MAX_WEBHOOKS_PER_KEY", 1)
    monkeypatch.setattr(managing, "MAX_WEBHOOKS", 2)
    access = AccessService(database)
    first, second = [Principal.from_key((await access.create_key(CALLER, name, Role.ADMIN))[0]) for name in "ab"]
    with receiving() as receiver:
        await house.create(receiver, by=first)
        with pytest.raises(ConflictError, match="This key has 1"):
            await house.create(receiver, by=first)
        await house.create(receiver, by=second)
        with pytest.raises(ConflictError, match="There are 2"):
            await house.create(receiver)


async def test_tests_are_bounded_and_leave_room_for_deliveries(
    house: House, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managing, "MAX_TESTS", 2)
    with receiving(Receiver(delay_s=0.3)) as receiver:
        webhook = await house.create(receiver, actions=["unknown"])
        tests = [house.webhooks.send_test(CALLER, webhook.id) for _ in range(3)]
        outcomes = await asyncio.gather(*tests, return_exceptions=True)
        again = await house.webhooks.send_test(CALLER, webhook.id)

    assert sorted(type(one).__name__ for one in outcomes) == ["Attempt", "Attempt", "OverloadedError"]
    assert again.error is None


async def test_secrets_are_stored_sealed(house: House, database: Database) -> None:
    with receiving() as receiver:
        await house.create(receiver)
    async with database.transaction(read_only=True) as work:
        stored = str((await work._session.execute(text("SELECT * FROM webhooks"))).one())

    assert receiver.secret.removeprefix("whsec_") not in stored


async def test_a_damaged_secret_is_told_of(house: House, database: Database) -> None:
    with receiving() as receiver:
        webhook = await house.create(receiver)
        async with database.transaction() as work:
            damaged = "set_byte(sealed_secret, 40, 255 - get_byte(sealed_secret, 40))"
            await work._session.execute(text(f"UPDATE webhooks SET sealed_secret = {damaged}"))
        with pytest.raises(UnavailableError, match="rotate"):
            await house.webhooks.send_test(CALLER, webhook.id)
        await house.webhooks.rotate_secret(CALLER, webhook.id, overlap_s=0)
        assert (await house.webhooks.send_test(CALLER, webhook.id)).status == 204


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/hook",
        "https://192.168.1.1/hook",
        "https://[::1]/hook",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://user:secret@example.org/",
        "https://example.org/#part",
        "ftp://example.org/",
        "https://",
        "example.org",
        "https://exa mple.org/",
        "https://example.org:99999/",
        "https://a..example.org/",
        f"https://{'a' * 64}.org/",
    ],
)
async def test_an_address_that_nothing_may_be_sent_to_is_refused(house: House, url: str) -> None:
    with pytest.raises(InvalidInputError, match="url"):
        await house.webhooks.create_webhook(CALLER, WebhookGrant(name="door", url=url))
