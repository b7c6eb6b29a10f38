"""What is written about an erasure, whatever it ends, and who sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from tests.callers import CALLER
from tests.services.conftest import GRANT

from vultus.domain import Principal
from vultus.domain.erasures import ErasureFilter, ErasureState
from vultus.errors import NotFoundError
from vultus.services.people.consents import ConsentService
from vultus.services.people.erasure import Eraser
from vultus.services.people.erasures import ErasureService
from vultus.services.people.persons import PersonService
from vultus.settings import JobSettings

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray
    from vultus.services.collections import CollectionService

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]


@pytest.fixture
def erasures(database: Database) -> ErasureService:
    return ErasureService(database)


async def list_all(erasures: ErasureService, principal: Principal = CALLER, **only: Any) -> list[tuple[Any, ...]]:
    found = await erasures.list_erasures(principal, after=None, limit=100, only=ErasureFilter(**only))
    return [(one.action, one.person_id, one.persons, one.faces, one.consents) for one in found]


async def test_whatever_is_erased_is_written_down_once(
    database: Database,
    collection: Collection,
    collections: CollectionService,
    erasures: ErasureService,
    enrol: Enrol,
    towards: Towards,
) -> None:
    consents, persons, eraser = ConsentService(database), PersonService(database), Eraser(database, JobSettings())
    async with database.transaction() as work:
        ada, bob, eve = [await enrol(work, collection, name, towards(0), towards(1)) for name in ("ada", "bob", "eve")]
    second = await consents.record_consent(CALLER, "home", bob.person.id, GRANT)

    await eraser.erase(CALLER, "home", ada.person.id)
    kept = await consents.withdraw_consent(CALLER, "home", bob.person.id, bob.consent.id)
    gone = await consents.withdraw_consent(CALLER, "home", bob.person.id, second.id)
    await persons.delete_face(CALLER, "home", eve.person.id, eve.faces[0].id)
    await collections.delete_collection(CALLER, "home")

    assert await list_all(erasures) == [
        ("person.erased", ada.person.id, 1, 2, 1),
        ("consent.withdrawn", bob.person.id, 0, 2, 0),
        ("person.erased", bob.person.id, 1, 0, 2),
        ("face.deleted", eve.person.id, 0, 1, 0),
        ("collection.deleted", None, 1, 1, 0),
    ]
    assert [(await erasures.get_erasure(CALLER, one.erasure_id)).person_id for one in (kept, gone)] == [
        bob.person.id
    ] * 2


async def test_a_key_sees_the_erasures_of_its_collections_only(
    database: Database, collection: Collection, erasures: ErasureService, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    erased = await Eraser(database, JobSettings()).erase(CALLER, "home", ada.person.id)
    bound = replace(CALLER, collections=frozenset({ada.person.id}))  # an id of no collection of theirs

    assert await list_all(erasures, bound) == []
    with pytest.raises(NotFoundError):
        await erasures.get_erasure(bound, erased.erasure_id)
    assert len(await list_all(erasures, replace(CALLER, collections=frozenset({collection.id})))) == 1


async def test_a_destroyed_key_makes_unreadable_what_was_sealed(
    database: Database, collection: Collection, erasures: ErasureService, enrol: Enrol, towards: Towards
) -> None:
    eraser = Eraser(database, JobSettings())
    async with database.transaction() as work:
        ada, bob, eve = [await enrol(work, collection, name, towards(0)) for name in ("ada", "bob", "eve")]
    ids = [(await eraser.erase(CALLER, "home", one.person.id)).erasure_id for one in (ada, bob, eve)]
    async with database.transaction() as work:
        await work._session.execute(
            text("UPDATE erasures SET is_sealed = true WHERE id = ANY(:ids)"), {"ids": [ids[0], ids[2]]}
        )

    async with database.transaction() as work:
        await work.erasures.mark_unreadable([ada.person.id, bob.person.id])

    states = [(await erasures.get_erasure(CALLER, one)).state for one in ids]
    assert states == [ErasureState.UNREADABLE, ErasureState.UNFINDABLE, ErasureState.UNFINDABLE]
    assert await list_all(erasures, state=ErasureState.UNREADABLE) == [("person.erased", ada.person.id, 1, 1, 1)]
