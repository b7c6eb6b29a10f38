"""Keys, the audit record and stored answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from tests.callers import CALLER
from tests.db.test_repositories import NOW, Enrol, Towards

from vultus.db.database import Database
from vultus.domain import (
    AuditFilter,
    IdempotencyContext,
    KeyGrant,
    Permission,
    Principal,
    RepeatedRequestError,
    Role,
)
from vultus.domain.events import KeyRevoked, PersonRegistered
from vultus.errors import (
    AlreadyExistsError,
    ConflictError,
    IdempotencyInFlightError,
    IdempotencyMismatchError,
)

if TYPE_CHECKING:
    from vultus.domain import Collection


async def test_keys_by_the_digest_of_their_secret(database: Database) -> None:
    async with database.transaction() as work:
        door = KeyGrant(name="door", role=Role.RECOGNIZE, permissions=Role.RECOGNIZE.permissions)
        desk = KeyGrant(name="desk", permissions=frozenset({Permission.READ, Permission.AUDIT}))
        key = await work.keys.add_key(door, b"\x01" * 32)
        other = await work.keys.add_key(desk, b"\x02" * 32)

    async with database.transaction() as work:
        assert await work.keys.find_live_key(b"\x01" * 32) == key
        assert await work.keys.find_live_key(b"\x03" * 32) is None
        assert await work.keys.list_keys(after=None, limit=9) == (key, other)
        assert await work.keys.list_keys(after=key.id, limit=9) == (other,)
        revoked = await work.keys.revoke_key(key.id)
        assert await work.keys.revoke_key(key.id) == revoked
    assert revoked.revoked_at is not None


async def test_audit_outlives_what_it_describes(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    actor = Principal("key", frozenset(), request_id="request-1")
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
        await work.record(
            actor,
            PersonRegistered(
                collection_id=collection.id, person_id=ada.person.id, object_id=ada.consent.id, faces=1, rejected=0
            ),
        )
        await work.record(CALLER, KeyRevoked(object_id=uuid4()))
        await work.collections.delete_collection(collection.id)

    async with database.transaction(read_only=True) as work:
        about, made = await work.audit.list_entries(after=None, limit=9)
        assert await work.audit.list_entries(after=about.id, limit=9) == (made,)
        assert await work.audit.list_entries(after=None, limit=9, only=AuditFilter(person_id=ada.person.id)) == (about,)
    assert (about.actor, about.request_id, about.action, about.person_id) == (
        "key",
        "request-1",
        "person.registered",
        ada.person.id,
    )
    assert made.detail == {}


async def test_one_holder_per_idempotency_key(database: Database) -> None:
    async with database.transaction() as first, database.transaction() as second:
        assert await first.idempotency.try_lock_key("key", "1")
        assert not await second.idempotency.try_lock_key("key", "1")
        assert await second.idempotency.try_lock_key("key", "2")
        assert await second.idempotency.try_lock_key("ke", "y1")  # the same letters, other words
    async with database.transaction() as third:
        assert await third.idempotency.try_lock_key("key", "1")


def build_context(digest: bytes = b"x", principal_id: str = "key") -> IdempotencyContext:
    return IdempotencyContext(principal_id, "1", digest, 201, lambda result: {"made": result})


async def test_a_write_stores_its_response_with_its_effect_or_neither(database: Database) -> None:
    async def write(context: IdempotencyContext, *, fails: bool = False) -> None:
        async with database.transaction(idempotency=context) as work:
            await work.record(CALLER, KeyRevoked(object_id=uuid4()))
            await work.store_response("a")
            if fails:
                raise ConflictError("broken")

    with pytest.raises(ConflictError):
        await write(build_context(), fails=True)
    await write(build_context())
    with pytest.raises(RepeatedRequestError) as repeated:
        await write(build_context())
    with pytest.raises(IdempotencyMismatchError):
        await write(build_context(b"y"))
    await write(build_context(principal_id="other"))

    assert (repeated.value.stored.status, repeated.value.stored.body) == (201, {"made": "a"})
    async with database.transaction(read_only=True) as work:
        assert [entry.action for entry in await work.audit.list_entries(after=None, limit=9)] == ["key.revoked"] * 2


async def test_a_key_is_in_flight_until_its_transaction_ends(database: Database) -> None:
    async with database.transaction(idempotency=build_context()) as work:
        with pytest.raises(IdempotencyInFlightError):
            async with database.transaction(idempotency=build_context()):
                pass
        await work.store_response("a")


async def test_an_idempotent_write_that_forgets_its_response_is_a_defect_and_stores_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError, match="stored no response"):
        async with database.transaction(idempotency=build_context()) as work:
            await work.record(CALLER, KeyRevoked(object_id=uuid4()))

    async with database.transaction(read_only=True) as work:
        assert await work.audit.list_entries(after=None, limit=9) == ()


async def test_stored_answers_until_they_are_purged(database: Database) -> None:
    answer: dict[str, Any] = {
        "request_sha256": b"\x07" * 32,
        "status": 201,
        "body": {"a": [1, None]},
        "person_id": None,
    }
    async with database.transaction() as work:
        await work.idempotency.add_response(api_key_id="key", key="1", **answer)

    with pytest.raises(AlreadyExistsError):
        async with database.transaction() as work:
            await work.idempotency.add_response(api_key_id="key", key="1", **answer)
    async with database.transaction() as work:
        stored = await work.idempotency.find_response("key", "1")
        assert stored is not None
        assert (stored.request_sha256, stored.status, stored.body) == (b"\x07" * 32, 201, {"a": [1, None]})
        assert await work.idempotency.find_response("other", "1") is None
        assert await work.idempotency.delete_old_responses(NOW - timedelta(days=1)) == 0
        assert await work.idempotency.delete_old_responses(datetime.now(UTC) + timedelta(days=1)) == 1
