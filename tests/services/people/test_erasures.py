"""What is written about an erasure, whatever it ends, and who sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.callers import CALLER
from tests.services.conftest import GRANT

from vultus.domain import Principal, Storage
from vultus.domain.erasures import ErasureFilter, ErasureState
from vultus.errors import NotFoundError
from vultus.services.people.consents import ConsentService
from vultus.services.people.erasure import Eraser
from vultus.services.people.erasures import ErasureService
from vultus.services.people.key_destruction import KeyDestroyer
from vultus.services.people.persons import PersonService
from vultus.settings import JobSettings

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray
    from vultus.sealing.custody import Custody
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


@pytest.mark.parametrize(
    ("storage", "state"), [(Storage.SEALED, ErasureState.UNREADABLE), (Storage.OPEN, ErasureState.UNFINDABLE)]
)
async def test_what_was_sealed_is_unreadable_with_the_answer(
    database: Database,
    collection: Collection,
    erasures: ErasureService,
    custody: Custody,
    enrol: Enrol,
    towards: Towards,
    storage: Storage,
    state: ErasureState,
) -> None:
    KeyDestroyer.attach(database, custody.person_keys)
    async with database.transaction() as work:
        policy = replace(collection.policy, storage=storage)
        collection = await work.collections.update_collection(collection.id, policy=policy)
        ada = await enrol(work, collection, "ada", towards(0))
        await work.person_keys.ensure_keys([ada.person.id])  # as a crop in an open collection does

    erased = await Eraser(database, JobSettings()).erase(CALLER, "home", ada.person.id)

    assert erased.state is state
    assert (await erasures.get_erasure(CALLER, erased.erasure_id)).state is state
    assert len(await list_all(erasures, state=state)) == 1


async def test_a_deleted_face_is_unreadable_though_its_person_stays(
    database: Database,
    collection: Collection,
    erasures: ErasureService,
    custody: Custody,
    enrol: Enrol,
    towards: Towards,
) -> None:
    """The person gets another key, and the one that sealed the face is destroyed."""
    KeyDestroyer.attach(database, custody.person_keys)
    async with database.transaction() as work:
        policy = replace(collection.policy, storage=Storage.SEALED)
        collection = await work.collections.update_collection(collection.id, policy=policy)
        ada = await enrol(work, collection, "ada", towards(0), towards(1))

    await PersonService(database).delete_face(CALLER, "home", ada.person.id, ada.faces[0].id)

    assert await list_all(erasures, state=ErasureState.UNREADABLE) == [("face.deleted", ada.person.id, 0, 1, 0)]
