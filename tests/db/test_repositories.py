"""Collections, persons, consents, keys, audit and stored answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from vultus.db.repositories.collections import partition_of
from vultus.domain import Actor, Role
from vultus.errors import AlreadyExistsError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, DecisionPolicy, FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
NOW = datetime.now(UTC)


async def test_a_collection_comes_back_as_it_was_made(database: Database, policy: DecisionPolicy) -> None:
    async with database.work() as work:
        made = await work.collections.add("staff", "contract", policy, retention_days=30)

    async with database.work() as work:
        assert await work.collections.get(made.id) == await work.collections.by_name("staff") == made
        assert made.policy == policy
        changed = await work.collections.change(
            made.id, name="people", policy=replace(policy, margin=0.1), retention_days=None
        )

    assert (changed.name, changed.policy.margin, changed.retention_days) == ("people", 0.1, None)
    assert changed.updated_at > made.updated_at


async def test_a_collections_name_is_taken_once(database: Database, home: Collection, policy: DecisionPolicy) -> None:
    async with database.work() as work:
        other = await work.collections.add("other", "contract", policy)

    with pytest.raises(AlreadyExistsError, match="name"):
        async with database.work() as work:
            await work.collections.add(home.name, "contract", policy)
    with pytest.raises(AlreadyExistsError, match="name"):
        async with database.work() as work:
            await work.collections.change(other.id, name=home.name)
    with pytest.raises(InvalidInputError, match="at least one day"):
        async with database.work() as work:
            await work.collections.change(home.id, retention_days=0)


async def test_the_default_collection_is_made_once(database: Database, policy: DecisionPolicy) -> None:
    async def ensure() -> Any:
        async with database.work() as work:
            return await work.collections.ensure("default", "contract", policy)

    made = await asyncio.gather(*(ensure() for _ in range(5)))

    assert len({collection.id for collection in made}) == 1


async def test_collections_are_paged_in_order_of_creation(database: Database, policy: DecisionPolicy) -> None:
    async with database.work() as work:
        made = [await work.collections.add(f"c{at}", "contract", policy) for at in range(5)]
        first = await work.collections.page(after=None, limit=3)
        rest = await work.collections.page(after=first[-1].id, limit=3)

    assert list(first + rest) == made


async def test_what_is_not_there_is_not_found(database: Database, home: Collection, policy: DecisionPolicy) -> None:
    async with database.work() as work:
        asked = [
            lambda: work.collections.get(uuid4()),
            lambda: work.collections.by_name("nobody"),
            lambda: work.collections.change(uuid4(), name="x"),
            lambda: work.collections.delete(uuid4()),
            lambda: work.collections.counts(uuid4()),
            lambda: work.persons.get(home.id, uuid4()),
            lambda: work.persons.change(home.id, uuid4(), name="x"),
            lambda: work.persons.delete(home.id, uuid4()),
            lambda: work.consents.get(home.id, uuid4(), uuid4()),
            lambda: work.consents.change(home.id, uuid4(), evidence_ref="x"),
            lambda: work.consents.mark_withdrawn(home.id, uuid4(), NOW),
            lambda: work.keys.revoke(uuid4()),
        ]
        for ask in asked:
            with pytest.raises(NotFoundError):
                await ask()  # type: ignore[no-untyped-call]
        for unknown in (work.collections.change(home.id, id=1), work.persons.change(home.id, uuid4(), id=1)):
            with pytest.raises(TypeError):
                await unknown
        with pytest.raises(TypeError):
            await work.consents.change(home.id, uuid4(), withdrawn_at=None)
    with pytest.raises(NotFoundError, match="collection"):
        async with database.work() as work:
            await work.persons.add(uuid4(), None, "Ada", {})


async def test_deleting_a_collection_drops_its_partition(
    database_url: str, database: Database, home: Collection, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        other = await work.collections.add("other", "contract", policy)
        await enrol(work, home, "ada", towards(0), towards(1))
        await enrol(work, other, "bob", towards(0))
        assert await work.collections.counts(home.id) == (1, 2)

    async with database.work() as work:
        await work.collections.delete(home.id)

    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    tables = {row[0] for row in await connection.fetch("SELECT relname FROM pg_class WHERE relkind = 'r'")}
    left = {
        name: await connection.fetchval(f"SELECT count(*) FROM {name}") for name in ("persons", "consents", "faces")
    }
    await connection.close()
    assert partition_of(home.id) not in tables
    assert partition_of(other.id) in tables
    assert left == {"persons": 1, "consents": 1, "faces": 1}


async def test_making_and_dropping_collections_beside_registrations_never_deadlocks(
    database: Database, home: Collection, policy: DecisionPolicy, enrol: Enrol, towards: Towards
) -> None:
    async def register(at: int) -> None:
        async with database.work() as work:
            await work.lock_collection(home.id)
            await work.faces.search(home.id, home.contract_id, towards(0)[None, :], 1)
            await enrol(work, home, f"person {at}", towards(0))

    async def come_and_go(at: int) -> None:
        async with database.work() as work:
            made = await work.collections.add(f"c{at}", "contract", policy)
            await enrol(work, made, "ada", towards(0))
        async with database.work() as work:
            await work.collections.counts(made.id)
            await work.collections.delete(made.id)

    async with asyncio.timeout(30):
        await asyncio.gather(*(act(at) for at in range(12) for act in (register, come_and_go)))

    async with database.work(read_only=True) as work:
        assert await work.collections.counts(home.id) == (12, 12)


async def test_a_person_comes_back_as_they_were_made(database: Database, home: Collection) -> None:
    async with database.work() as work:
        ada = await work.persons.add(home.id, "42", "Ada", {"floor": 3, "tags": ["ünï"]})
        eve = await work.persons.add(home.id, None, None, {})

    async with database.work() as work:
        assert await work.persons.get(home.id, ada.id) == ada
        assert await work.persons.by_external_id(home.id, "42") == ada
        assert await work.persons.by_external_id(home.id, "43") is None
        assert await work.persons.page(home.id, after=None, limit=9) == (ada, eve)
        assert await work.persons.page(home.id, after=ada.id, limit=9) == (eve,)
        assert await work.persons.page(home.id, after=None, limit=9, external_id="42") == (ada,)
        changed = await work.persons.change(home.id, ada.id, name=None, metadata={}, external_id="44")

    assert (changed.external_id, changed.name, changed.metadata) == ("44", None, {})


async def test_an_external_id_is_taken_once_a_collection(
    database: Database, home: Collection, policy: DecisionPolicy
) -> None:
    async with database.work() as work:
        other = await work.collections.add("other", "contract", policy)
        await work.persons.add(home.id, "42", None, {})
        await work.persons.add(other.id, "42", None, {})

    with pytest.raises(AlreadyExistsError, match="external id"):
        async with database.work() as work:
            await work.persons.add(home.id, "42", None, {})


async def test_deleting_a_person_takes_everything_that_names_them(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        ada = await enrol(work, home, "ada", towards(0), towards(1))
        await enrol(work, home, "bob", towards(0, tilt=0.1))
        await work.idempotency.add(
            api_key_id="k", key="1", request_sha256=b"x", status=201, body={"name": "Ada"}, person_id=ada.person.id
        )

    async with database.work() as work:
        gone = await work.persons.delete(home.id, ada.person.id)

    assert (gone.faces, gone.consents) == (2, 1)
    async with database.work(read_only=True) as work:
        assert await work.idempotency.find("k", "1") is None
        assert await work.collections.counts(home.id) == (1, 1)
        (found,) = await work.faces.search(home.id, home.contract_id, towards(0)[None, :], 5)
        assert [candidate.external_id for candidate in found.candidates] == ["bob"]


async def test_consents_without_an_end_and_with_one(database: Database, home: Collection, enrol: Enrol) -> None:
    soon = NOW + timedelta(hours=1)
    async with database.work() as work:
        ada = await enrol(work, home, "ada")
        endless, person = ada.consent, ada.person
        given: dict[str, Any] = {"purpose": "p", "recorded_by": "r", "evidence_ref": "folder 3", "granted_at": NOW}
        ending = await work.consents.add(home.id, person.id, **given, expires_at=soon)
        ended = await work.consents.add(home.id, person.id, **given, expires_at=NOW - timedelta(hours=1))
        withdrawn = await work.consents.add(home.id, person.id, **given, expires_at=None)
        await work.consents.mark_withdrawn(home.id, withdrawn.id, NOW)

    async with database.work() as work:
        assert (endless.expires_at, ending.expires_at) == (None, soon)
        assert await work.consents.get(home.id, person.id, ending.id) == ending
        assert await work.consents.live_for(home.id, person.id) == (endless, ending)
        assert (await work.consents.page(home.id, person.id, after=endless.id, limit=2)) == (ending, ended)
        changed = await work.consents.change(home.id, ending.id, expires_at=None, evidence_ref=None)
        assert await work.consents.change(home.id, ending.id) == changed
    assert (changed.expires_at, changed.evidence_ref) == (None, None)


async def test_a_changed_expiry_reaches_the_faces(
    database_url: str, database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.work() as work:
        ada = await enrol(work, home, "ada", towards(0))
        await work.consents.change(home.id, ada.consent.id, expires_at=NOW)

    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    assert await connection.fetchval("SELECT consent_expires_at FROM faces") == NOW
    await connection.close()


async def test_expired_consents_are_listed_one_a_person_longest_expired_first(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    long_ago = NOW - timedelta(days=2)
    async with database.work() as work:
        bob = await enrol(work, home, "bob", expires_at=NOW - timedelta(hours=1))
        ada = await enrol(work, home, "ada", towards(0), expires_at=long_ago)
        given: dict[str, Any] = {"purpose": "p", "recorded_by": "r", "evidence_ref": None, "granted_at": NOW}
        await work.consents.add(home.id, ada.person.id, **given, expires_at=NOW - timedelta(days=1))
        await enrol(work, home, "eve", towards(1))

    async with database.work(read_only=True) as work:
        first = await work.consents.expired(1)
        every = await work.consents.expired(9)

    assert [consent.id for consent in first] == [ada.consent.id]
    assert [consent.id for consent in every] == [ada.consent.id, bob.consent.id]


async def test_keys_by_the_digest_of_their_secret(database: Database) -> None:
    async with database.work() as work:
        key = await work.keys.add("door", Role.RECOGNIZE, b"\x01" * 32)
        other = await work.keys.add("desk", Role.ADMIN, b"\x02" * 32)

    async with database.work() as work:
        assert await work.keys.by_digest(b"\x01" * 32) == key
        assert await work.keys.by_digest(b"\x03" * 32) is None
        assert await work.keys.page(after=None, limit=9) == (key, other)
        assert await work.keys.page(after=key.id, limit=9) == (other,)
        revoked = await work.keys.revoke(key.id)
        assert await work.keys.revoke(key.id) == revoked
        assert await work.keys.count_active() == 1
    assert revoked.revoked_at is not None


async def test_audit_outlives_what_it_describes(
    database: Database, home: Collection, enrol: Enrol, towards: Towards
) -> None:
    actor = Actor("key", "request-1")
    async with database.work() as work:
        ada = await enrol(work, home, "ada", towards(0))
        await work.audit.add(actor, "person.registered", collection_id=home.id, person_id=ada.person.id)
        await work.audit.add(Actor("cli"), "key.created", object_id=uuid4(), detail={"role": "admin"})
        await work.collections.delete(home.id)

    async with database.work(read_only=True) as work:
        about, made = await work.audit.page(after=None, limit=9)
        assert await work.audit.page(after=about.id, limit=9) == (made,)
        assert await work.audit.page(after=None, limit=9, person_id=ada.person.id) == (about,)
    assert (about.actor, about.request_id, about.action, about.person_id) == (
        "key",
        "request-1",
        "person.registered",
        ada.person.id,
    )
    assert made.detail == {"role": "admin"}


async def test_one_holder_an_idempotency_key(database: Database) -> None:
    async with database.work() as first, database.work() as second:
        assert await first.idempotency.try_lock("key", "1")
        assert not await second.idempotency.try_lock("key", "1")
        assert await second.idempotency.try_lock("key", "2")
        assert await second.idempotency.try_lock("ke", "y1")  # the same letters, other words
    async with database.work() as third:
        assert await third.idempotency.try_lock("key", "1")


async def test_stored_answers_until_they_are_purged(database: Database) -> None:
    answer: dict[str, Any] = {
        "request_sha256": b"\x07" * 32,
        "status": 201,
        "body": {"a": [1, None]},
        "person_id": None,
    }
    async with database.work() as work:
        await work.idempotency.add(api_key_id="key", key="1", **answer)

    with pytest.raises(AlreadyExistsError):
        async with database.work() as work:
            await work.idempotency.add(api_key_id="key", key="1", **answer)
    async with database.work() as work:
        stored = await work.idempotency.find("key", "1")
        assert stored is not None
        assert (stored.request_sha256, stored.status, stored.body) == (b"\x07" * 32, 201, {"a": [1, None]})
        assert await work.idempotency.find("other", "1") is None
        assert await work.idempotency.purge(NOW - timedelta(days=1)) == 0
        assert await work.idempotency.purge(datetime.now(UTC) + timedelta(days=1)) == 1
