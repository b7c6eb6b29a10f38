"""Retention by the time without being seen: one end that every reader knows, moved by who is recognised."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from tests.callers import CALLER
from tests.services.conftest import count_rows

from vultus.db.repositories.consents import ConsentRepository
from vultus.errors import ConflictError, KeyRingError, NotFoundError
from vultus.services.jobs import PartialFailureError
from vultus.services.people import erasure
from vultus.services.people.consents import ConsentGrant, ConsentService
from vultus.services.people.erasure import Eraser
from vultus.services.people.last_seen import LastSeenLog
from vultus.services.people.persons import PersonService
from vultus.settings import JobSettings

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray
    from vultus.services.collections import CollectionService

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
DAY = timedelta(days=1)
SHORTLY = timedelta(minutes=5)


async def pass_days(database: Database, person_id: UUID, days: float) -> None:
    """Let so much time have passed since everything that is known of a person's consents."""
    async with database.transaction() as work:
        await work._session.execute(
            text(
                "UPDATE consents SET seen_at = seen_at - CAST(:time AS interval),"
                " expires_at = least(granted_until, expires_at - CAST(:time AS interval)) WHERE person_id = :person"
            ),
            {"time": timedelta(days=days), "person": person_id},
        )


async def find_end(database: Database, collection: Collection, person_id: UUID) -> timedelta | None:
    """Return in what time the only consent of a person, and the faces under it, end; None for never."""
    async with database.transaction(read_only=True) as work:
        (consent,) = await work.consents.list_consents(collection.id, person_id, None, 9)
        ends = await work._session.execute(text("SELECT DISTINCT consent_expires_at FROM faces"))
        assert {end.year == 9999 if consent.expires_at is None else end == consent.expires_at for (end,) in ends} == {
            True
        }
    return None if consent.expires_at is None else consent.expires_at - datetime.now(UTC)


@pytest.fixture
async def unseen(collections: CollectionService, collection: Collection) -> Collection:
    """The collection, whose persons are kept for 30 days without being seen."""
    del collection
    return await collections.update_collection(CALLER, "home", unseen_days=30)


async def test_the_rule_begins_for_everybody_when_it_is_set_and_is_gone_with_it(
    database: Database, collections: CollectionService, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))

    await collections.update_collection(CALLER, "home", unseen_days=30)
    set_end = await find_end(database, collection, ada.person.id)
    await collections.update_collection(CALLER, "home", unseen_days=None)

    assert set_end is not None
    assert abs(set_end - 31 * DAY) < SHORTLY
    assert await find_end(database, collection, ada.person.id) is None
    assert await count_rows(database, "consents WHERE seen_at IS NOT NULL") == 0


@pytest.mark.parametrize(("days", "is_moved"), [(0.9, False), (1.1, True), (29, True), (30.9, True), (31.1, False)])
async def test_who_is_seen_in_time_stays_and_who_is_not_is_gone(
    database: Database, unseen: Collection, enrol: Enrol, towards: Towards, days: float, *, is_moved: bool
) -> None:
    """Written once a day at most; and nobody comes back by being recognised after their end."""
    consents = ConsentService(database)
    person = await PersonService(database).create_person(
        CALLER, "home", external_id="ada", name=None, metadata={}, consent=ConsentGrant("Tests", "tests")
    )
    log = LastSeenLog(database)
    await pass_days(database, person[0].id, days)

    log.note(unseen, [person[0].id])
    moved = await log.write_waiting()
    async with database.transaction(read_only=True) as work:
        (consent,) = await work.consents.list_consents(unseen.id, person[0].id, None, 9)

    assert moved == is_moved
    assert consent.expires_at is not None
    left = consent.expires_at - datetime.now(UTC)
    assert abs(left - (31 * DAY if is_moved else (31 - days) * DAY)) < SHORTLY
    assert await log.write_waiting() == 0, "nothing waits any more"
    if days > 31:
        with pytest.raises(NotFoundError):
            await consents.get_consent(CALLER, "home", "ada", consent.id)
        assert await Eraser(database, JobSettings()).end_expired() == 1
        assert await count_rows(database, "persons") == 0


async def test_who_is_seen_while_others_are_written_is_written_next(
    database: Database, unseen: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, grant = LastSeenLog(database), ConsentGrant("Tests", "tests")
    ada, bob = [
        (
            await PersonService(database).create_person(
                CALLER, "home", external_id=name, name=None, metadata={}, consent=grant
            )
        )[0].id
        for name in ("ada", "bob")
    ]
    for person_id in (ada, bob):
        await pass_days(database, person_id, 2)
    mark = ConsentRepository.mark_seen

    async def mark_while_bob_is_seen(self: ConsentRepository, persons: set[UUID], seen_at: datetime) -> int:
        moved = await mark(self, persons, seen_at)
        log.note(unseen, [bob])
        return moved

    log.note(unseen, [ada])
    with monkeypatch.context() as patch:
        patch.setattr(ConsentRepository, "mark_seen", mark_while_bob_is_seen)
        assert await log.write_waiting() == 1
    assert await log.write_waiting() == 1


@pytest.mark.parametrize("is_erased", [True, False])
async def test_an_expired_person_does_not_keep_their_external_id(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards, *, is_erased: bool
) -> None:
    """Registered again before the sweep they are another person, of whom nothing of the first is known."""
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), expires_at=datetime.now(UTC) - DAY)
    if is_erased:
        await Eraser(database, JobSettings()).erase(CALLER, "home", "ada")

    again, _ = await PersonService(database).create_person(
        CALLER, "home", external_id="ada", name=None, metadata={}, consent=ConsentGrant("Tests", "tests")
    )

    assert again.id != ada.person.id
    assert await count_rows(database, "persons") == 1
    assert await Eraser(database, JobSettings()).end_expired() == 0


async def test_a_consent_that_cannot_be_ended_keeps_no_other_from_ending(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first of each batch, and tried once."""
    async with database.transaction() as work:
        ended = [
            await enrol(work, collection, name, towards(at), expires_at=datetime.now(UTC) - (9 - at) * DAY)
            for at, name in enumerate("abc")
        ]
    end, tried = erasure.withdraw_consent, []

    async def fail_first(work: Any, consent: Any, kind: Any, **rest: Any) -> Any:
        tried.append(consent.id)
        if consent.id == ended[0].consent.id:
            raise KeyRingError("The key ring does not answer.")
        return await end(work, consent, kind, **rest)

    monkeypatch.setattr(erasure, "withdraw_consent", fail_first)
    monkeypatch.setattr(erasure, "SWEEP_BATCH_SIZE", 1)
    with pytest.raises(PartialFailureError, match="1 expired consents"):
        await Eraser(database, JobSettings()).sweep_expired()

    assert tried == [one.consent.id for one in ended]
    assert await count_rows(database, "persons") == 1


async def test_the_faces_end_with_their_consent_at_its_own_end_if_that_is_earlier(
    database: Database, collections: CollectionService, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), expires_at=datetime.now(UTC) + 40 * DAY)
    unseen = await collections.update_collection(CALLER, "home", unseen_days=30)
    await pass_days(database, ada.person.id, 20)

    log = LastSeenLog(database)
    log.note(unseen, [ada.person.id])
    await log.write_waiting()
    seen_end = await find_end(database, collection, ada.person.id)
    changed = await ConsentService(database).update_consent(
        CALLER, "home", ada.person.id, ada.consent.id, expires_at=datetime.now(UTC) + 5 * DAY
    )
    await collections.update_collection(CALLER, "home", retention_days=10_000)
    own_end = await find_end(database, collection, ada.person.id)

    assert seen_end is not None
    assert own_end is not None
    assert abs(seen_end - 31 * DAY) < SHORTLY
    assert abs(own_end - 5 * DAY) < SHORTLY
    assert changed.granted_until == changed.expires_at


async def test_a_stricter_rule_that_would_end_somebody_at_once_is_refused(
    database: Database, collections: CollectionService, unseen: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, unseen, "ada", towards(0))
    await collections.update_collection(CALLER, "home", unseen_days=31)
    await pass_days(database, ada.person.id, 15)

    with pytest.raises(ConflictError, match=r"1 consents .* not seen for 10 days.*end_older"):
        await collections.update_collection(CALLER, "home", unseen_days=10)
    assert (await collections.update_collection(CALLER, "home", unseen_days=20)).unseen_days == 20
    left = await find_end(database, unseen, ada.person.id)
    await collections.update_collection(CALLER, "home", unseen_days=10, end_older=True)

    assert left is not None
    assert abs(left - 6 * DAY) < SHORTLY
    with pytest.raises(NotFoundError):
        await PersonService(database).get_person(CALLER, "home", ada.person.id)
    with pytest.raises(NotFoundError):
        await PersonService(database).get_face(CALLER, "home", ada.person.id, ada.faces[0].id)
