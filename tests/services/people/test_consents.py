"""Consents: when they end, who may change them, and what follows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.callers import CALLER
from tests.services.conftest import GRANT, count_rows, expire, list_actions

from vultus.domain import AuditFilter
from vultus.errors import InvalidInputError, NotFoundError
from vultus.services.audit import AuditService
from vultus.services.people.consents import ConsentGrant, ConsentService, get_live_consent
from vultus.services.people.erasure import Eraser
from vultus.services.people.persons import PersonService
from vultus.settings import JobSettings

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray, Person
    from vultus.services.collections import CollectionService

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
NOW = datetime.now(UTC)
RETENTION = timedelta(days=30)


@pytest.fixture
def consents(database: Database) -> ConsentService:
    return ConsentService(database)


@pytest.fixture
async def person(database: Database, collection: Collection) -> Person:
    async with database.transaction() as work:
        return await work.persons.add_person(collection.id, None, "Ada", {})


@pytest.fixture
async def retained(collections: CollectionService, collection: Collection) -> Collection:
    """The collection, its persons kept for thirty days."""
    return await collections.update_collection(CALLER, "home", retention_days=RETENTION.days)


def grant(granted_at: datetime | None = None, expires_at: datetime | None = None) -> ConsentGrant:
    return ConsentGrant("Tests", "tests@example.org", granted_at=granted_at, expires_at=expires_at)


@pytest.mark.parametrize(
    ("granted_ago", "expires_in", "ends_in"),
    [
        (timedelta(days=10), None, timedelta(days=20)),  # retention begins with the consent, not with its record
        (timedelta(days=10), timedelta(days=5), timedelta(days=5)),
        (timedelta(days=10), timedelta(days=25), timedelta(days=20)),
        (timedelta(0), timedelta(days=400), timedelta(days=30)),
    ],
)
async def test_a_consent_ends_when_it_says_or_with_the_retention_since_it_was_given(
    consents: ConsentService,
    retained: Collection,
    person: Person,
    granted_ago: timedelta,
    expires_in: timedelta | None,
    ends_in: timedelta,
) -> None:
    given = grant(NOW - granted_ago, NOW + expires_in if expires_in else None)

    recorded = await consents.record_consent(CALLER, retained.name, person.id, given)

    assert (recorded.granted_at, recorded.expires_at) == (NOW - granted_ago, NOW + ends_in)


async def test_an_extension_is_limited_by_the_retention_since_the_consent_was_given(
    consents: ConsentService, retained: Collection, person: Person
) -> None:
    given = grant(NOW - timedelta(days=10), NOW + timedelta(days=1))
    recorded = await consents.record_consent(CALLER, retained.name, person.id, given)

    for expires_at in (NOW + timedelta(days=400), None):
        changed = await consents.update_consent(CALLER, "home", person.id, recorded.id, expires_at=expires_at)

        assert changed.expires_at == recorded.granted_at + RETENTION


@pytest.mark.parametrize(
    ("granted_ago", "expires_in"),
    [
        (timedelta(days=31), None),  # the retention is over
        (timedelta(days=1), timedelta(seconds=-1)),
        (timedelta(minutes=-6), None),  # in the future, by more than clocks differ
    ],
)
async def test_a_consent_that_is_over_or_not_yet_given_is_refused(
    database: Database,
    consents: ConsentService,
    retained: Collection,
    person: Person,
    granted_ago: timedelta,
    expires_in: timedelta | None,
) -> None:
    now = datetime.now(UTC)
    given = grant(now - granted_ago, now + expires_in if expires_in else None)

    with pytest.raises(InvalidInputError):
        await consents.record_consent(CALLER, retained.name, person.id, given)

    assert await count_rows(database, "consents") == 0


async def test_a_clock_that_is_a_little_ahead_is_tolerated(
    consents: ConsentService, collection: Collection, person: Person
) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=4)

    assert (await consents.record_consent(CALLER, "home", person.id, grant(ahead))).granted_at == ahead


async def test_the_proof_of_a_consent_outlives_it_in_the_audit_record_alone(
    database: Database, consents: ConsentService, collection: Collection, person: Person
) -> None:
    first, second = [
        await consents.record_consent(
            CALLER, "home", person.id, ConsentGrant(purpose, "reception", evidence_ref="Akte")
        )
        for purpose in ("Entry", "Lunch")
    ]
    await consents.update_consent(CALLER, "home", person.id, first.id, evidence_ref="Beleg")
    await PersonService(database).update_person(CALLER, "home", person.id, name="Grace")
    (renamed,) = await AuditService(database).list_entries(
        CALLER, after=None, limit=9, only=AuditFilter(action="person.changed")
    )
    await consents.withdraw_consent(CALLER, "home", person.id, second.id)
    await Eraser(database, JobSettings()).erase(CALLER, "home", person.id)

    only = AuditFilter(person_id=person.id)
    found = {
        one.action: one.detail
        for one in await AuditService(database).list_entries(CALLER, after=None, limit=9, only=only)
    }
    assert renamed.detail["changes"] == {"name": {"from": "Ada", "to": "Grace"}}
    assert "changes" not in found["person.changed"], "what a person was called goes with them"
    assert found["consent.changed"]["changes"] == {"evidence_ref": {"from": "Akte", "to": "Beleg"}}
    assert found["consent.withdrawn"]["consent"]["purpose"] == "Lunch"
    (ended,) = found["person.erased"]["consents_ended"]
    assert (ended["purpose"], ended["recorded_by"], ended["evidence_ref"]) == ("Entry", "reception", "Beleg")
    assert await count_rows(database, "audit WHERE audit::text ~ 'Ada|Grace'") == 0
    assert await count_rows(database, "outbox WHERE outbox::text ~ 'Ada|Grace|Entry|Lunch|Akte'") == 0


async def test_what_people_agreed_to_outlives_their_collection(
    database: Database, consents: ConsentService, collections: CollectionService, collection: Collection, person: Person
) -> None:
    for purpose in ("Entry", "Lunch", "Entry"):
        await consents.record_consent(CALLER, "home", person.id, ConsentGrant(purpose, "reception"))
    await collections.delete_collection(CALLER, "home")

    only = AuditFilter(action="collection.deleted")
    (entry,) = await AuditService(database).list_entries(CALLER, after=None, limit=9, only=only)
    ended = entry.detail["consents_ended"]
    assert [(one["purpose"], one["consents"]) for one in ended] == [("Entry", 2), ("Lunch", 1)]
    assert ended[0]["granted_from"] < ended[0]["granted_to"]


@pytest.mark.parametrize("ended", ["withdrawn", "expired"])
async def test_a_consent_that_has_ended_is_neither_changed_nor_built_upon(
    database: Database, consents: ConsentService, collection: Collection, person: Person, ended: str
) -> None:
    kept, other = [await consents.record_consent(CALLER, "home", person.id, GRANT) for _ in range(2)]
    if ended == "withdrawn":
        await consents.withdraw_consent(CALLER, "home", person.id, other.id)
    else:
        await expire(database, other)

    with pytest.raises(InvalidInputError, match="record a new one"):
        await consents.update_consent(CALLER, "home", person.id, other.id, expires_at=None)

    async with database.transaction(read_only=True) as work:
        assert await get_live_consent(work, collection, person, kept.id) == kept
        with pytest.raises(NotFoundError):
            await get_live_consent(work, collection, person, other.id)


async def test_the_last_live_consent_takes_the_person_along_though_an_expired_one_is_there(
    database: Database, consents: ConsentService, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    other = await consents.record_consent(CALLER, "home", ada.person.id, GRANT)
    await expire(database, other)

    ended = await consents.withdraw_consent(CALLER, "home", ada.person.id, ada.consent.id)

    assert (ended.person_erased, ended.faces, ended.consents) == (True, 1, 2)
    assert await count_rows(database, "persons") == 0
    assert await list_actions(database, ada.person.id) == ["consent.recorded", "consent.withdrawn", "person.erased"]
