"""Who was sent anything about somebody is told of the erasure, last and once; nothing else about them is sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tests.callers import CALLER
from tests.receivers import Receiver, receiving
from tests.server.sockets import wait_until
from tests.services.events.conftest import Enrol, House, Towards, list_types

from vultus.domain import Collection
from vultus.domain.events import CollectionChanged, PersonChanged
from vultus.services.collections import CollectionService
from vultus.services.events import dispatcher as dispatching
from vultus.services.people.erasure import Eraser
from vultus.services.people.export import PersonExporter
from vultus.settings import JobSettings

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.sealing.custody import Custody


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


async def test_a_receiver_that_was_away_for_long_is_still_told_of_an_erasure(
    database: Database, custody: Custody, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    house, later = House(database, custody), House(database, custody)
    async with database.transaction() as work:
        ada = (await enrol(work, collection, "ada", towards(0))).person.id
    sweeper, status = Eraser(database, JobSettings(outbox_hours=1e-9)), 200
    with receiving(Receiver(answer=lambda _: status)) as receiver:
        webhook = await house.create(receiver, actions=["recognised"])
        async with house.running():
            await house.see(collection, uuid4(), ada)
            await wait_until(lambda: receiver.accepted)
        await house.webhooks.update_webhook(CALLER, webhook.id, enabled=False)
        await Eraser(database, JobSettings()).erase(CALLER, "home", ada)
        await sweeper.sweep_expired()  # no delivery of it has been made
        status = 500
        await house.webhooks.update_webhook(CALLER, webhook.id, enabled=True)
        async with later.running():
            await wait_until(lambda: len(receiver.messages) >= 2, 20)
            await sweeper.sweep_expired()  # it has failed
            status = 200
            await wait_until(lambda: len(receiver.accepted) == 2, 20)
            await wait_until(lambda: not later.dispatcher._attempts)
        await sweeper.sweep_expired()
        left = await house.list_deliveries(webhook)

    assert list_types(receiver.accepted) == ["recognised", "person.erased"]
    assert left == ()


async def test_what_concerned_those_who_were_erased_holds_up_nothing(
    house: House,
    database: Database,
    collection: Collection,
    enrol: Enrol,
    towards: Towards,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatching, "IDLE_S", 30.0)  # nothing else wakes the dispatcher
    eraser = Eraser(database, JobSettings())
    with receiving() as receiver:
        await house.create(receiver, actions=["person.changed", "collection.changed"])
        for at in range(5):
            async with database.transaction() as work:
                person = (await enrol(work, collection, f"p{at}", towards(0))).person.id
                changed = PersonChanged(collection_id=collection.id, person_id=person, fields=("name",))
                await work.record(CALLER, changed)
            await eraser.erase(CALLER, "home", person)
        async with database.transaction() as work:
            await work.record(CALLER, CollectionChanged(collection_id=collection.id, fields=("name",)))
        async with house.running():
            await wait_until(lambda: receiver.accepted, 10)

    assert list_types(receiver.messages) == ["collection.changed"]


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


async def test_nobody_who_was_told_of_a_person_is_left_without_the_erasure_however_they_overlap(
    database: Database, custody: Custody, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    """Twenty-four persons are seen and erased while two servers deliver; no erasure fails, and each comes last."""
    houses = [House(database, custody) for _ in range(2)]
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
