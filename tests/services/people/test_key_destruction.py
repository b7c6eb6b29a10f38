"""The key of an erased person is destroyed before the caller goes on, whichever way the person was deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from tests.callers import CALLER
from tests.services.conftest import count_rows

from vultus.errors import OverloadedError
from vultus.sealing.custody import Custody
from vultus.sealing.key_ring import FileKeyRing
from vultus.services.people.consents import ConsentService
from vultus.services.people.erasure import Eraser
from vultus.services.people.key_destruction import KeyDestroyer
from vultus.settings import JobSettings

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]


@pytest.fixture
def custody(tmp_path: Path) -> Custody:
    found = Custody.open(tmp_path / "custody", FileKeyRing(tmp_path / "ring.json"))
    found.keys.create()
    return found


async def test_keys_go_with_their_persons_and_a_full_disk_only_delays_it(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards, custody: Custody
) -> None:
    async with database.transaction() as work:
        ada, bob, eve = [await enrol(work, collection, name, towards(at)) for at, name in enumerate("abe")]
        persons = [one.person.id for one in (ada, bob, eve)]
        slots = custody.person_keys.create_keys(persons)
        await work.person_keys.set_slots(dict(zip(persons, slots, strict=True)))
    destroyer = KeyDestroyer.attach(database, custody.person_keys)

    await Eraser(database, JobSettings()).erase(CALLER, collection.name, ada.person.id)
    assert [person for _, person in custody.person_keys.list_keys()] == persons[1:]
    assert await count_rows(database, "spent_keys") == 0

    lock = custody.person_keys.path.with_name("persons.keys.lock")
    lock.unlink()
    lock.mkdir()  # as unwritable as can be, for root too
    await ConsentService(database).withdraw_consent(CALLER, collection.name, bob.person.id, bob.consent.id)
    assert [person for _, person in custody.person_keys.list_keys()] == persons[1:]
    lock.rmdir()
    assert await destroyer.destroy_spent_keys() == 1
    assert [person for _, person in custody.person_keys.list_keys()] == persons[2:]


async def test_an_erasure_is_answered_though_its_key_cannot_be_destroyed_now(
    database: Database,
    collection: Collection,
    enrol: Enrol,
    towards: Towards,
    custody: Custody,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(self: KeyDestroyer) -> int:
        raise OverloadedError("No connection became free.")

    async with database.transaction() as work:
        ada = await enrol(work, collection, "a", towards(0))
    KeyDestroyer.attach(database, custody.person_keys)
    monkeypatch.setattr(KeyDestroyer, "destroy_spent_keys", fail)

    await Eraser(database, JobSettings()).erase(CALLER, collection.name, ada.person.id)

    assert "not destroyed yet: No connection" in caplog.text


async def test_what_is_away_is_not_destroyed(
    database: Database,
    collection: Collection,
    enrol: Enrol,
    towards: Towards,
    custody: Custody,
    caplog: pytest.LogCaptureFixture,
) -> None:
    database.use_keys(custody)
    async with database.transaction() as work:
        ada = await enrol(work, collection, "a", towards(0))
        await work.person_keys.ensure_keys([ada.person.id])
    destroyer = KeyDestroyer.attach(database, custody.person_keys)
    folder = custody.keys.path.parent
    away = folder.rename(folder.with_name("away"))

    await Eraser(database, JobSettings()).erase(CALLER, collection.name, ada.person.id)

    assert "persons.keys, are missing" in caplog.text
    assert not folder.exists()
    assert await count_rows(database, "spent_keys") == 1
    assert await count_rows(database, "erasures WHERE unreadable_at IS NOT NULL") == 0
    away.rename(folder)
    assert await destroyer.destroy_spent_keys() == 1
    assert custody.person_keys.list_keys() == []
    assert await count_rows(database, "erasures WHERE unreadable_at IS NOT NULL") == 1


async def test_what_a_crash_left_of_a_destroyed_key_destroys_no_other_key_of_its_person(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards, custody: Custody
) -> None:
    database.use_keys(custody)
    async with database.transaction() as work:
        ada = await enrol(work, collection, "a", towards(0))
        old = (await work.person_keys.ensure_keys([ada.person.id]))[ada.person.id]
    async with database.transaction() as work:
        await work.person_keys.set_slots({ada.person.id: None})
    custody.person_keys.destroy_keys([(old.slot, ada.person.id)])  # and no more
    again = database.use_keys(Custody.open(custody.keys.path.parent, custody.keys.ring))
    async with database.transaction() as work:
        new = (await work.person_keys.ensure_keys([ada.person.id]))[ada.person.id]

    assert await KeyDestroyer(database, again.person_keys).destroy_spent_keys() == 1

    assert again.person_keys.find_keys([(new.slot, ada.person.id)]) == [new.key]


async def test_a_slot_that_a_restored_database_still_refers_to_is_not_given(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards, custody: Custody
) -> None:
    database.use_keys(custody)
    async with database.transaction() as work:
        ada = await enrol(work, collection, "a", towards(0))
        lost = (await work.person_keys.ensure_keys([ada.person.id]))[ada.person.id]
    custody.person_keys.destroy_keys([(lost.slot, ada.person.id)])
    again = database.use_keys(Custody.open(custody.keys.path.parent, custody.keys.ring))
    async with database.transaction() as work:
        bob = await enrol(work, collection, "b", towards(1))
        found = (await work.person_keys.ensure_keys([bob.person.id]))[bob.person.id]
    assert found.slot != lost.slot
    assert again.person_keys.list_keys() == [(found.slot, bob.person.id)]


async def test_a_key_that_is_replaced_is_spent(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards, custody: Custody
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "a", towards(0))
        await work.person_keys.ensure_keys([ada.person.id])
    async with database.transaction() as work:
        ((_, (new, _)),) = (await work.person_keys.replace_keys([ada.person.id])).values()

    assert await KeyDestroyer(database, custody.person_keys).destroy_spent_keys() == 1

    assert custody.person_keys.list_keys() == [(new, ada.person.id)]
    async with database.transaction(read_only=True) as work:
        assert await work.person_keys.load_slots([ada.person.id]) == {ada.person.id: new}
