"""Collections, persons, consents, keys, audit and stored responses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from vultus.db.database import Database
from vultus.db.repositories.collections import get_partition_name
from vultus.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
)
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from vultus.domain import Collection, DecisionPolicy, FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
NOW = datetime.now(UTC)


async def test_a_collection_is_returned_as_it_was_created(database: Database, policy: DecisionPolicy) -> None:
    async with database.transaction() as work:
        made = await work.collections.add_collection("staff", "contract", policy, retention_days=30)

    async with database.transaction() as work:
        assert (
            await work.collections.get_collection(made.id)
            == await work.collections.get_collection_by_name("staff")
            == made
        )
        assert made.policy == policy
        changed = await work.collections.update_collection(
            made.id, name="people", policy=replace(policy, margin=0.1), retention_days=None
        )

    assert (changed.name, changed.policy.margin, changed.retention_days) == ("people", 0.1, None)
    assert changed.updated_at > made.updated_at


async def test_a_collections_name_is_unique(database: Database, collection: Collection, policy: DecisionPolicy) -> None:
    async with database.transaction() as work:
        other = await work.collections.add_collection("other", "contract", policy)

    with pytest.raises(AlreadyExistsError, match="name"):
        async with database.transaction() as work:
            await work.collections.add_collection(collection.name, "contract", policy)
    with pytest.raises(AlreadyExistsError, match="name"):
        async with database.transaction() as work:
            await work.collections.update_collection(other.id, name=collection.name)
    with pytest.raises(InvalidInputError, match="at least one day"):
        async with database.transaction() as work:
            await work.collections.update_collection(collection.id, retention_days=0)


async def test_the_default_collection_is_created_once(database: Database, policy: DecisionPolicy) -> None:
    async def ensure() -> Any:
        async with database.transaction() as work:
            return await work.collections.ensure_collection("default", "contract", policy)

    made = await asyncio.gather(*(ensure() for _ in range(5)))

    assert len({collection.id for collection, _ in made}) == 1
    assert sorted(is_new for _, is_new in made) == [False] * 4 + [True]


async def test_collections_are_paged_in_order_of_creation(database: Database, policy: DecisionPolicy) -> None:
    async with database.transaction() as work:
        made = [await work.collections.add_collection(f"c{at}", "contract", policy) for at in range(5)]
        first = await work.collections.list_collections(after=None, limit=3)
        rest = await work.collections.list_collections(after=first[-1].id, limit=3)

    assert list(first + rest) == made


async def test_missing_rows_are_not_found(database: Database, collection: Collection, policy: DecisionPolicy) -> None:
    async with database.transaction() as work:
        lookups = [
            lambda: work.collections.get_collection(uuid4()),
            lambda: work.collections.get_collection_by_name("nobody"),
            lambda: work.collections.update_collection(uuid4(), name="x"),
            lambda: work.collections.delete_collection(uuid4()),
            lambda: work.collections.count_persons_and_faces(uuid4()),
            lambda: work.persons.get_person(collection.id, uuid4()),
            lambda: work.persons.update_person(collection.id, uuid4(), name="x"),
            lambda: work.persons.delete_person(collection.id, uuid4()),
            lambda: work.consents.get_consent(collection.id, uuid4(), uuid4()),
            lambda: work.consents.update_consent(collection.id, uuid4(), evidence_ref="x"),
            lambda: work.consents.withdraw_consent(collection.id, uuid4(), NOW),
            lambda: work.keys.lock_key(uuid4()),
        ]
        for look_up in lookups:
            with pytest.raises(NotFoundError):
                await look_up()  # type: ignore[no-untyped-call]
        for unknown in (
            work.collections.update_collection(collection.id, id=1),
            work.persons.update_person(collection.id, uuid4(), id=1),
        ):
            with pytest.raises(TypeError):
                await unknown
        with pytest.raises(TypeError):
            await work.consents.update_consent(collection.id, uuid4(), withdrawn_at=None)
    with pytest.raises(NotFoundError, match="collection"):
        async with database.transaction() as work:
            await work.persons.add_person(uuid4(), None, "Ada", {})


async def test_deleting_a_collection_drops_its_partition(
    database_url: str,
    database: Database,
    collection: Collection,
    policy: DecisionPolicy,
    enrol: Enrol,
    towards: Towards,
) -> None:
    async with database.transaction() as work:
        other = await work.collections.add_collection("other", "contract", policy)
        await enrol(work, collection, "ada", towards(0), towards(1))
        await enrol(work, other, "bob", towards(0))
        assert await work.collections.count_persons_and_faces(collection.id) == (1, 2)

    async with database.transaction() as work:
        await work.collections.delete_collection(collection.id)

    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    tables = {row[0] for row in await connection.fetch("SELECT relname FROM pg_class WHERE relkind = 'r'")}
    remaining = {
        name: await connection.fetchval(f"SELECT count(*) FROM {name}") for name in ("persons", "consents", "faces")
    }
    await connection.close()
    assert get_partition_name(collection.id) not in tables
    assert get_partition_name(other.id) in tables
    assert remaining == {"persons": 1, "consents": 1, "faces": 1}


async def test_a_deletion_that_waits_for_writers_stops_no_creation(
    database_url: str, collection: Collection, policy: DecisionPolicy
) -> None:
    database = await Database.connect(database_url, DatabaseSettings(pool_size=6))

    async def delete() -> None:
        async with database.transaction() as work:
            await work.collections.delete_collection(collection.id)

    async with asyncio.timeout(10):
        async with database.transaction() as holder:
            await holder.lock_collection(collection.id)
            deletion = asyncio.create_task(delete())
            await asyncio.sleep(0.2)
            async with asyncio.timeout(3), database.transaction() as work:
                await work.collections.add_collection("another", "contract", policy)
            assert not deletion.done()
        await deletion
    await database.close()


async def test_creating_and_deleting_collections_during_registrations_never_deadlocks(
    database: Database, collection: Collection, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    async def register(at: int) -> None:
        async with database.transaction() as work:
            await work.lock_collection(collection.id)
            await work.templates.search_exact(collection.id, collection.space_id, towards(0)[None, :], 1)
            await enrol(work, collection, f"person {at}", towards(0))

    async def create_and_delete(at: int) -> None:
        async with database.transaction() as work:
            made = await work.collections.add_collection(f"c{at}", "contract", policy)
            await enrol(work, made, "ada", towards(0))
        async with database.transaction() as work:
            await work.collections.count_persons_and_faces(made.id)
            await work.collections.delete_collection(made.id)

    database._pool_wait_s = 30  # on a busy machine they wait for each other
    async with asyncio.timeout(30):
        await asyncio.gather(*(act(at) for at in range(8) for act in (register, create_and_delete)))

    async with database.transaction(read_only=True) as work:
        assert await work.collections.count_persons_and_faces(collection.id) == (8, 8)


async def test_a_person_is_returned_as_created(database: Database, collection: Collection) -> None:
    async with database.transaction() as work:
        ada = await work.persons.add_person(collection.id, "42", "Ada", {"floor": 3, "tags": ["ünï"]})
        eve = await work.persons.add_person(collection.id, None, None, {})

    async with database.transaction() as work:
        assert await work.persons.get_person(collection.id, ada.id) == ada
        assert await work.persons.find_person_by_external_id(collection.id, "42") == ada
        assert await work.persons.find_person_by_external_id(collection.id, "43") is None
        assert await work.persons.list_persons(collection.id, after=None, limit=9) == (ada, eve)
        assert await work.persons.list_persons(collection.id, after=ada.id, limit=9) == (eve,)
        assert await work.persons.list_persons(collection.id, after=None, limit=9, external_id="42") == (ada,)
        changed = await work.persons.update_person(collection.id, ada.id, name=None, metadata={}, external_id="44")

    assert (changed.external_id, changed.name, changed.metadata) == ("44", None, {})


async def test_an_external_id_is_unique_per_collection(
    database: Database, collection: Collection, policy: DecisionPolicy
) -> None:
    async with database.transaction() as work:
        other = await work.collections.add_collection("other", "contract", policy)
        await work.persons.add_person(collection.id, "42", None, {})
        await work.persons.add_person(other.id, "42", None, {})

    with pytest.raises(AlreadyExistsError, match="external id"):
        async with database.transaction() as work:
            await work.persons.add_person(collection.id, "42", None, {})


async def test_deleting_a_person_deletes_everything_that_names_them(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0), towards(1))
        await enrol(work, collection, "bob", towards(0, tilt=0.1))
        await work.idempotency.add_response(
            api_key_id="k", key="1", request_sha256=b"x", status=201, body={"name": "Ada"}, person_id=ada.person.id
        )

    async with database.transaction() as work:
        gone = await work.persons.delete_person(collection.id, ada.person.id)

    assert (gone.faces, gone.consents) == (2, 1)
    async with database.transaction(read_only=True) as work:
        stored = await work.idempotency.find_response("k", "1")
        assert stored is not None  # so that the request, sent again late, is refused
        assert stored.body is None
        assert await work.collections.count_persons_and_faces(collection.id) == (1, 1)
        (found,) = await work.templates.search_exact(collection.id, collection.space_id, towards(0)[None, :], 5)
        assert [candidate.external_id for candidate in found.candidates] == ["bob"]


async def test_consents_without_an_end_and_with_one(database: Database, collection: Collection, enrol: Enrol) -> None:
    soon = NOW + timedelta(hours=1)
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada")
        endless, person = ada.consent, ada.person
        given: dict[str, Any] = {"purpose": "p", "recorded_by": "r", "evidence_ref": "folder 3", "granted_at": NOW}
        ending = await work.consents.add_consent(collection.id, person.id, **given, expires_at=soon)
        ended = await work.consents.add_consent(collection.id, person.id, **given, expires_at=NOW - timedelta(hours=1))
        withdrawn = await work.consents.add_consent(collection.id, person.id, **given, expires_at=None)
        await work.consents.withdraw_consent(collection.id, withdrawn.id, NOW)

    async with database.transaction() as work:
        assert (endless.expires_at, ending.expires_at) == (None, soon)
        assert await work.consents.get_consent(collection.id, person.id, ending.id) == ending
        assert await work.consents.list_live_consents(collection.id, person.id) == (endless, ending)
        assert (await work.consents.list_consents(collection.id, person.id, after=endless.id, limit=2)) == (
            ending,
            ended,
        )
        changed = await work.consents.update_consent(collection.id, ending.id, expires_at=None, evidence_ref=None)
        assert await work.consents.update_consent(collection.id, ending.id) == changed
    assert (changed.expires_at, changed.evidence_ref) == (None, None)


async def test_a_changed_expiry_reaches_the_faces(
    database_url: str, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
        await work.consents.update_consent(collection.id, ada.consent.id, expires_at=NOW)

    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    assert await connection.fetchval("SELECT consent_expires_at FROM faces") == NOW
    await connection.close()


async def test_expired_consents_are_listed_one_per_person_longest_expired_first(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    long_ago = NOW - timedelta(days=2)
    async with database.transaction() as work:
        bob = await enrol(work, collection, "bob", expires_at=NOW - timedelta(hours=1))
        ada = await enrol(work, collection, "ada", towards(0), expires_at=long_ago)
        given: dict[str, Any] = {"purpose": "p", "recorded_by": "r", "evidence_ref": None, "granted_at": NOW}
        await work.consents.add_consent(collection.id, ada.person.id, **given, expires_at=NOW - timedelta(days=1))
        await enrol(work, collection, "eve", towards(1))

    async with database.transaction(read_only=True) as work:
        first = await work.consents.list_expired_consents(1)
        every = await work.consents.list_expired_consents(9)

    assert [consent.id for consent in first] == [ada.consent.id]
    assert [consent.id for consent in every] == [ada.consent.id, bob.consent.id]
