"""Webhooks get every event they are for, in order, signed, from one process at a time; and what fails is kept."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from tests.callers import CALLER
from tests.receivers import Answer, Message, Receiver, receiving
from tests.server.sockets import wait_until
from tests.services.conftest import expire
from tests.services.events.conftest import SETTINGS, Enrol, House, Towards, list_ids, list_types

from vultus.domain import Collection
from vultus.domain.webhooks import DeliveryState
from vultus.services.collections import CollectionService
from vultus.services.events import dispatcher as dispatching
from vultus.services.events.dispatcher import compute_retry_delay
from vultus.services.people.erasure import Eraser
from vultus.settings import JobSettings
from vultus.utils.logging import LineFormatter, configure_logging

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.sealing.custody import Custody


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
        ada = await enrol(work, collection, "ada", towards(0))
    with receiving() as thin, receiving() as named:
        await house.create(thin, actions=["recognised"])
        await house.create(named, actions=["recognised"], with_names=True)
        async with house.running():
            await house.see(collection, uuid4(), ada.person.id)
            await wait_until(lambda: thin.accepted and named.accepted)
            await expire(database, ada.consent)
            await house.see(collection, uuid4(), ada.person.id)
            await wait_until(lambda: len(named.accepted) == 2)

    assert "person" not in thin.accepted[0].body["data"]
    assert named.accepted[0].body["data"]["person"] == {"external_id": "ada", "name": "Ada"}
    assert named.accepted[1].body["data"]["person"] == {"external_id": None, "name": None}, "before the sweep"


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
            await wait_until(lambda: len(receiver.accepted) == 6, 20)
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
    monkeypatch.setattr(house.sender, "_post", break_off)
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
    database: Database, custody: Custody, collection: Collection
) -> None:
    house = House(database, custody, SETTINGS.model_copy(update={"disable_after_hours": 0.0}))
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
    assert actions.count(("webhook.disabled", "webhooks")) == 2


async def test_a_webhook_that_is_gone_is_disabled_once_and_may_be_deleted_meanwhile(
    database: Database, custody: Custody, collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    """Eight deliveries are under way when the receiver answers the first; another webhook is deleted by then."""
    house = House(database, custody, SETTINGS.model_copy(update={"timeout_s": 30}))
    are_all_sent = threading.Event()

    def answer(_: Message) -> int:
        are_all_sent.wait(20)
        return 410

    with receiving(Receiver(answer=answer)) as gone, receiving(Receiver(answer=answer)) as deleted:
        webhook, other = [await house.create(one, actions=["unknown"]) for one in (gone, deleted)]
        for _ in range(8):
            await house.see(collection, uuid4())
        async with house.running():
            await wait_until(lambda: len(gone.messages) == len(deleted.messages) == 8, 20)
            await house.webhooks.delete_webhook(CALLER, other.id)
            are_all_sent.set()
            await house.wait_until_disabled(webhook)
            await wait_until(lambda: not house.dispatcher._attempts)

    async with database.transaction(read_only=True) as work:
        entries = await work.audit.list_entries(after=None, limit=99)
    assert [entry.object_id for entry in entries if entry.action == "webhook.disabled"] == [webhook.id]
    assert "was not stored" not in caplog.text


async def test_a_receiver_that_is_away_takes_one_attempt_at_a_time(house: House, collection: Collection) -> None:
    running, most = 0, 0

    def answer(_: Message) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.05)
        running -= 1
        return 503

    with receiving(Receiver(answer=lambda _: 503)) as away, receiving() as healthy:
        webhook = await house.create(away, actions=["unknown"])
        await house.create(healthy, actions=["unknown"])
        await house.see(collection, uuid4())
        async with house.running():
            await wait_until(lambda: away.messages)
            await wait_until(lambda: not house.dispatcher._attempts)
            away.answer = answer
            for _ in range(20):
                await house.see(collection, uuid4())
            await wait_until(lambda: len(healthy.accepted) == 21 and len(away.messages) > 5, 20)
        found = await house.webhooks.get_webhook(CALLER, webhook.id)

    assert found.failing_since is not None
    assert most == 1


async def test_what_has_ended_makes_room_at_once_also_beside_what_lasts(
    house: House, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else wakes the dispatcher: no event comes, and one receiver takes long."""
    monkeypatch.setattr(dispatching, "IDLE_S", 30.0)
    source = uuid4()
    with receiving() as quick, receiving(Receiver(delay_s=0.9)) as slow:
        for one in (quick, slow):
            await house.create(one, actions=["unknown"])
        for _ in range(30):
            await house.see(collection, source)
        async with house.running():
            await wait_until(lambda: len(quick.accepted) == 30, 20)
            assert len(slow.accepted) < 30


async def test_an_attempt_that_could_not_begin_within_its_lease_is_left_to_others(
    house: House, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "LEASE_MARGIN_S", -0.9)
    with receiving() as receiver:
        await house.create(receiver, actions=["unknown"])
        await house.see(collection, uuid4())
        async with house.running():
            await asyncio.sleep(0.5)
            assert receiver.messages == []
            monkeypatch.setattr(dispatching, "LEASE_MARGIN_S", 0.5)
            await wait_until(lambda: receiver.accepted)

    assert len(receiver.messages) == 1


async def test_several_servers_deliver_each_event_once_and_in_order(
    database: Database, custody: Custody, collection: Collection
) -> None:
    houses = [House(database, custody) for _ in range(3)]
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


async def test_what_a_disabled_webhook_misses_is_told(
    house: House, database: Database, collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving() as receiver:
        webhook = await house.create(receiver, actions=["unknown"])
        await house.webhooks.update_webhook(CALLER, webhook.id, enabled=False)
        for _ in range(3):
            await house.see(collection, uuid4())
        await Eraser(database, JobSettings(outbox_hours=1e-9)).sweep_expired()

    (record,) = [record for record in caplog.records if "too old" in record.getMessage()]
    assert record.__dict__["count"] == 3


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


def test_waits_grow_and_end() -> None:
    waits = [compute_retry_delay(attempt, 5) for attempt in range(1, 15)]

    assert waits[:5] == [5, 15, 45, 135, 405]
    assert waits[-2:] == [43_200, None]
    assert compute_retry_delay(1, 5, varied=1) == 6
