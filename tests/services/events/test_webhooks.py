"""Webhooks get every event they are for, in order, signed, from one process at a time; and nothing they may not get."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from tests.callers import CALLER
from tests.receivers import Answer, Message, Receiver, receiving
from tests.server.sockets import wait_until

from vultus.domain import Collection, Permission, Principal, Role
from vultus.domain.sightings import Recognised, Unknown
from vultus.domain.webhooks import Delivery, DeliveryState, Webhook, WebhookGrant
from vultus.errors import ForbiddenError, InvalidInputError, NotFoundError, OverloadedError, UnavailableError
from vultus.services.access import AccessService
from vultus.services.collections import CollectionService
from vultus.services.events import dispatcher as dispatching
from vultus.services.events.dispatcher import WebhookDispatcher, compute_retry_delay
from vultus.services.events.follower import OutboxFollower
from vultus.services.events.sending import WebhookSender
from vultus.services.events.sighting_log import OutboxSightingLog
from vultus.services.events.webhooks import WebhookService
from vultus.services.people.erasure import Eraser
from vultus.services.people.export import PersonExporter
from vultus.services.secret_vault import SecretVault
from vultus.settings import JobSettings, WebhookSettings
from vultus.utils.logging import LineFormatter, configure_logging

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.db.database import Database
    from vultus.domain import FloatArray

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
SETTINGS = WebhookSettings(allowed_networks=("127.0.0.0/8",), timeout_s=1, first_retry_s=0.05)
Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]


class House:
    """What a server has for webhooks."""

    def __init__(self, database: Database, key_file: Path, settings: WebhookSettings = SETTINGS) -> None:
        self.database = database
        self.follower = OutboxFollower(database)
        self.sightings = OutboxSightingLog(database, self.follower)
        self.sender = WebhookSender(settings)
        vault = SecretVault(key_file)
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
            await self.sightings.record(CALLER, Recognised(origin_kind="source", at=NOW, person_id=person_id, **ids))

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
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "crops.key"


@pytest.fixture
def house(database: Database, key_file: Path) -> House:
    return House(database, key_file)


def list_types(messages: list[Message]) -> list[str]:
    return [message.body["type"] for message in messages]


def list_ids(messages: list[Message], origin_id: UUID) -> list[str]:
    return [message.id for message in messages if message.body["data"]["origin_id"] == str(origin_id)]


async def test_a_webhook_gets_what_it_is_for_signed(house: House, collections: CollectionService) -> None:
    first, second = [await collections.create_collection(CALLER, name) for name in ("home", "away")]
    source = uuid4()
    with receiving() as all_of_home, receiving() as unknown:
        await house.create(all_of_home, collections=["home"])
        await house.create(unknown, actions=["unknown"])
        async with house.running():
            await house.see(first, source)
            await house.see(second, source)
            await collections.update_collection(CALLER, "home", retention_days=30)
            await wait_until(lambda: len(all_of_home.accepted) + len(unknown.accepted) == 4)

    assert sorted(list_types(all_of_home.accepted)) == ["collection.changed", "unknown"]
    assert list_types(unknown.accepted) == ["unknown", "unknown"]
    for message in (*all_of_home.messages, *unknown.messages):
        assert message.is_signed
        assert message.id == message.body["id"]
        assert message.headers["content-type"] == "application/json"
    assert unknown.accepted[0].body["data"]["origin_id"] == str(source)


async def test_names_are_sent_where_a_webhook_says_so(
    house: House, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = (await enrol(work, collection, "ada", towards(0))).person.id
    with receiving() as thin, receiving() as named:
        await house.create(thin, actions=["recognised"])
        await house.create(named, actions=["recognised"], with_names=True)
        async with house.running():
            await house.see(collection, uuid4(), ada)
            await wait_until(lambda: thin.accepted and named.accepted)

    assert "person" not in thin.accepted[0].body["data"]
    assert named.accepted[0].body["data"]["person"] == {"external_id": "ada", "name": "Ada"}


async def test_a_failed_delivery_holds_back_its_origin_and_no_other(house: House, collection: Collection) -> None:
    slow, quick = uuid4(), uuid4()
    failures = 3

    def answer(message: Message) -> int:
        nonlocal failures
        if message.body["data"]["origin_id"] == str(slow) and failures:
            failures -= 1
            return 500
        return 200

    with receiving(Receiver(answer=answer)) as receiver:
        webhook = await house.create(receiver, actions=["unknown"])
        for _ in range(3):
            await house.see(collection, slow)
            await house.see(collection, quick)
        async with house.running():
            await wait_until(lambda: len(receiver.accepted) == 6)
            await wait_until(lambda: not house.dispatcher._attempts)
        delivered = await house.list_deliveries(webhook, DeliveryState.DELIVERED)

    order = {origin: list_ids(receiver.accepted, origin) for origin in (slow, quick)}
    events = [str(one.event_id) for one in delivered]
    assert order == {slow: events[::2], quick: events[1::2]}
    assert [one.body["data"]["origin_id"] for one in receiver.accepted[:3]] == [str(quick)] * 3
    assert [one.attempts for one in delivered] == [4, 1, 1, 1, 1, 1]
    assert len({one.id for one in receiver.messages[:4]} & {events[0]}) == 1


async def test_a_receiver_says_how_long_to_wait(house: House, collection: Collection) -> None:
    answers: Iterator[Answer] = iter([(503, {"retry-after": "1"}), 204])
    with receiving(Receiver(answer=lambda _: next(answers))) as receiver:
        await house.create(receiver, actions=["unknown"])
        await house.see(collection, uuid4())
        async with house.running():
            await wait_until(lambda: receiver.accepted)

    first, second = receiver.messages
    assert second.at - first.at >= 1


async def test_what_fails_every_time_is_a_dead_letter_that_can_be_replayed(
    house: House, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "MAX_ATTEMPTS", 2)
    source, broken = uuid4(), True
    with receiving(Receiver(answer=lambda _: 500 if broken else 200)) as receiver:
        webhook = await house.create(receiver, actions=["unknown"])
        for _ in range(2):
            await house.see(collection, source)
        async with house.running():
            await wait_until(lambda: len(receiver.messages) == 4)
            await wait_until(lambda: not house.dispatcher._attempts)
            dead = await house.list_deliveries(webhook, DeliveryState.DEAD)
            assert [(one.attempts, one.last_status, one.last_error) for one in dead] == [(2, 500, "HTTP 500")] * 2
            broken = False
            assert await house.webhooks.replay_deliveries(CALLER, webhook.id, [dead[1].event_id, uuid4()]) == 1
            await wait_until(lambda: len(receiver.accepted) == 1)
            assert await house.webhooks.replay_deliveries(CALLER, webhook.id) == 1
            await wait_until(lambda: len(receiver.accepted) == 2)

    assert [one.id for one in receiver.accepted] == [str(dead[1].event_id), str(dead[0].event_id)]


async def test_an_attempt_that_breaks_off_here_is_a_failure_too(
    house: House, collection: Collection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def break_off(*_: Any) -> None:
        raise RuntimeError("https://example.org/capability")

    monkeypatch.setattr(dispatching, "MAX_ATTEMPTS", 1)
    monkeypatch.setattr(house.sender, "send", break_off)
    with receiving() as receiver:
        webhook = await house.create(receiver, actions=["unknown"])
        await house.see(collection, uuid4())
        async with house.running():
            await wait_until(lambda: "could not be attempted" in caplog.text)

    dead = await house.list_deliveries(webhook, DeliveryState.DEAD)
    assert [one.last_error for one in dead] == ["it could not be attempted on this server; see the log"]
    assert "RuntimeError in break_off" in caplog.text
    assert "capability" not in caplog.text


async def test_a_webhook_that_fails_for_long_or_is_gone_is_disabled_and_goes_on_later(
    database: Database, key_file: Path, collection: Collection
) -> None:
    house = House(database, key_file, SETTINGS.model_copy(update={"disable_after_hours": 0.0}))
    status = 410
    with receiving(Receiver(answer=lambda _: status)) as receiver:
        webhook = await house.create(receiver, actions=["unknown"])
        await house.see(collection, uuid4())
        async with house.running():
            for reason in ("410", "without a success"):
                found = await house.wait_until_disabled(webhook)
                assert reason in (found.disabled_reason or "")
                await house.see(collection, uuid4())
                status = 500 if status == 410 else 200
                found = await house.webhooks.update_webhook(CALLER, webhook.id, enabled=True)
                assert (found.disabled_at, found.failing_since) == (None, None)
            await wait_until(lambda: len(receiver.accepted) == 3)

    async with database.transaction(read_only=True) as work:
        entries = await work.audit.list_entries(after=None, limit=99)
    actions = [(entry.action, entry.actor) for entry in entries if entry.action.startswith("webhook.")]
    assert actions.count(("webhook.disabled", "webhooks")) >= 2


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


async def test_who_was_told_of_a_person_is_told_of_the_erasure_and_of_nothing_else(
    house: House, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada, bob = [(await enrol(work, collection, name, towards(at))).person.id for at, name in enumerate("ab")]
    eraser, broken = Eraser(database, JobSettings()), False
    with receiving(Receiver(answer=lambda _: 500 if broken else 200)) as seeing, receiving() as other:
        webhook = await house.create(seeing, actions=["recognised"])
        await house.create(other, actions=["unknown"])
        async with house.running():
            await house.see(collection, uuid4(), ada)
            await wait_until(lambda: seeing.accepted)
            held = await PersonExporter(database).export_person(CALLER, "home", ada)
            assert [entry.action for entry in held.sightings] == ["recognised"]
            assert held.receivers == ((webhook.id, "door"),)
            broken = True
            for person in (ada, bob):
                await house.see(collection, uuid4(), person)
            await wait_until(lambda: len(seeing.messages) >= 3)
            for person in (ada, bob):
                await eraser.erase(CALLER, "home", person)
            broken = False
            await house.see(collection, uuid4())
            await wait_until(lambda: len(seeing.accepted) == 3 and other.accepted, 20)
            await asyncio.sleep(0.5)

        left = await house.list_deliveries(webhook)
    assert list_types(seeing.accepted) == ["recognised", "person.erased", "person.erased"]
    assert {one.body["data"]["person_id"] for one in seeing.accepted[1:]} == {str(ada), str(bob)}
    assert list_types(other.messages) == ["unknown"]
    assert [one.action for one in left] == ["person.erased", "person.erased"]


async def test_who_was_told_of_somebody_is_told_of_the_end_of_the_collection(
    house: House,
    database: Database,
    collections: CollectionService,
    collection: Collection,
    enrol: Enrol,
    towards: Towards,
) -> None:
    async with database.transaction() as work:
        ada = (await enrol(work, collection, "ada", towards(0))).person.id
    with receiving() as seeing, receiving() as other:
        await house.create(seeing, actions=["recognised"])
        await house.create(other, actions=["unknown"])
        async with house.running():
            await house.see(collection, uuid4(), ada)
            await wait_until(lambda: seeing.accepted)
            await collections.delete_collection(CALLER, "home")
            await wait_until(lambda: len(seeing.accepted) == 2, 20)

    assert list_types(seeing.accepted) == ["recognised", "collection.deleted"]
    assert other.messages == []


async def test_several_servers_deliver_each_event_once_and_in_order(
    database: Database, key_file: Path, collection: Collection
) -> None:
    houses = [House(database, key_file) for _ in range(3)]
    origins = [uuid4() for _ in range(4)]
    with receiving(Receiver(delay_s=0.005)) as receiver:
        webhook = await houses[0].create(receiver, actions=["unknown"])
        async with houses[0].running(), houses[1].running(), houses[2].running():
            for at in range(60):
                await houses[at % 3].see(collection, origins[at % 4])
            await wait_until(lambda: len(receiver.accepted) == 60, 30)
            await asyncio.sleep(0.2)
        deliveries = await houses[0].list_deliveries(webhook)

    assert len(receiver.messages) == 60
    events = [str(one.event_id) for one in deliveries]
    arrived = {origin: list_ids(receiver.accepted, origin) for origin in origins}
    assert arrived == {origin: events[at::4] for at, origin in enumerate(origins)}


async def test_nobody_who_was_told_of_a_person_is_left_without_the_erasure_however_they_overlap(
    database: Database, key_file: Path, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    """Twenty-four persons are seen and erased while two servers deliver; no erasure fails, and each comes last."""
    houses = [House(database, key_file) for _ in range(2)]
    async with database.transaction() as work:
        persons = [(await enrol(work, collection, f"p{at}", towards(0))).person.id for at in range(24)]
    eraser = Eraser(database, JobSettings())
    with receiving(Receiver(delay_s=0.01)) as receiver:
        webhook = await houses[0].create(receiver, actions=["recognised"])
        async with houses[0].running(), houses[1].running():
            for at, person in enumerate(persons):
                await asyncio.gather(
                    houses[0].see(collection, uuid4(), person),
                    houses[1].see(collection, uuid4(), persons[(at + 1) % len(persons)]),
                    *([eraser.erase(CALLER, "home", persons[at - 2])] if at > 1 else []),
                )
            for person in persons[-2:]:
                await eraser.erase(CALLER, "home", person)
            heard = {one.body["data"]["person_id"] for one in receiver.messages}
            await wait_until(lambda: list_types(receiver.accepted).count("person.erased") >= len(heard), 20)
        left = await houses[0].list_deliveries(webhook)

    of_person: dict[str, list[str]] = {}
    for message in receiver.accepted:
        of_person.setdefault(message.body["data"]["person_id"], []).append(message.body["type"])
    assert heard
    assert all(types[-1] == "person.erased" and types.count("person.erased") == 1 for types in of_person.values())
    assert {one.action for one in left} == {"person.erased"}


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


async def test_what_becomes_too_old_before_it_is_accepted_is_told(
    house: House, database: Database, collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(Receiver(answer=lambda _: 500)) as receiver:
        webhook = await house.create(receiver, actions=["unknown"])
        await house.see(collection, uuid4())
        async with house.running():
            await wait_until(lambda: receiver.messages)
        await Eraser(database, JobSettings(sighting_hours=1e-9)).sweep_expired()

    assert await house.list_deliveries(webhook) == ()
    (record,) = [record for record in caplog.records if "too old" in record.getMessage()]
    assert record.__dict__["count"] == 1


async def test_no_line_of_the_log_has_an_address_a_secret_or_a_name(
    house: House,
    database: Database,
    collection: Collection,
    enrol: Enrol,
    towards: Towards,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with database.transaction() as work:
        ada = (await enrol(work, collection, "ada", towards(0))).person.id
    handlers = logging.getLogger().handlers[:]
    configure_logging("DEBUG", "json")
    monkeypatch.setattr(logging.getLogger(), "handlers", handlers)
    caplog.set_level("DEBUG")
    answers: Iterator[Answer] = iter([500, 204])
    with receiving(Receiver(answer=lambda _: next(answers))) as receiver:
        receiver.url += "/capability"
        await house.create(receiver, actions=["recognised"], with_names=True)
        async with house.running():
            await house.see(collection, uuid4(), ada)
            await wait_until(lambda: receiver.accepted)
    lines = "\n".join(LineFormatter("json").format(record) for record in caplog.records)

    assert "a delivery failed" in lines
    for secret in ("capability", "127.0.0.1", receiver.secret, "Ada", "whsec"):
        assert secret not in lines


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


def test_waits_grow_and_end() -> None:
    waits = [compute_retry_delay(attempt, 5) for attempt in range(1, 15)]

    assert waits[:5] == [5, 15, 45, 135, 405]
    assert waits[-2:] == [43_200, None]
    assert compute_retry_delay(1, 5, varied=1) == 6
