"""API keys: shown once, stored as digests, confined, rotated, revoked at once, and made by whom may make them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import text
from tests.callers import CALLER
from tests.services.conftest import count_rows, list_actions

from vultus.domain import AuditFilter, Collection, Permission, Principal, Role
from vultus.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    KeyFailureLimitError,
    NotFoundError,
    SetupError,
    UnauthenticatedError,
)
from vultus.services.access import FAILURES_PER_MINUTE, AccessService, compute_digest, make_secret
from vultus.services.audit import AuditService
from vultus.services.collections import CollectionService
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from vultus.db.database import Database


@pytest.fixture
def access(database: Database) -> AccessService:
    return AccessService(database)


async def run_sql(database: Database, statement: str) -> None:
    async with database.transaction() as work:
        await work._session.execute(text(statement))


async def is_accepted(access: AccessService, secret: str) -> bool:
    try:
        await access.authenticate(secret)
    except UnauthenticatedError:
        return False
    return True


async def test_a_secret_authenticates_its_key_and_is_not_stored(database: Database, access: AccessService) -> None:
    key, secret = await access.create_key(CALLER, "door", Role.RECOGNIZE)
    other, other_secret = await access.create_key(CALLER, "door", Role.ADMIN)

    assert [await access.authenticate(one) for one in (secret, other_secret)] == [key, other]

    async with database.transaction(read_only=True) as work:
        stored = (await work._session.execute(text("SELECT secret_sha256, k::text FROM api_keys k ORDER BY id"))).all()
        audit = (await work._session.execute(text("SELECT string_agg(a::text, '') FROM audit a"))).scalar_one()
    assert [row[0] for row in stored] == [compute_digest(secret), compute_digest(other_secret)]
    assert not any(part in row[1] + audit for row in stored for part in (secret, other_secret))


@pytest.mark.parametrize(
    "change",
    [str.upper, lambda secret: secret[:-1], lambda secret: secret + "x"],
    ids=["upper case", "shorter", "longer"],
)
async def test_nothing_but_the_secret_itself_authenticates(access: AccessService, change: Callable[[str], str]) -> None:
    _, secret = await access.create_key(CALLER, "door", Role.RECOGNIZE)

    for sent in (change(secret), compute_digest(secret).hex(), "ä\udce4", "", None):
        with pytest.raises(UnauthenticatedError):
            await access.authenticate(sent)


async def test_a_revoked_key_is_refused_at_once_and_stays_revoked(database: Database, access: AccessService) -> None:
    key, secret = await access.create_key(CALLER, "door", Role.RECOGNIZE)
    assert await is_accepted(access, secret)

    first = await AccessService(database).revoke_key(CALLER, key.id)  # by another server
    again = await access.revoke_key(CALLER, key.id)

    assert not await is_accepted(access, secret)
    assert first.revoked_at is not None
    assert again.revoked_at == first.revoked_at
    assert await access.list_keys(CALLER, after=None, limit=9) == (first,)
    assert (await list_actions(database))[:2] == ["key.created", "key.revoked"]
    for absent in (access.revoke_key(CALLER, new_id()), access.rotate_key(CALLER, new_id(), overlap_s=0)):
        with pytest.raises(NotFoundError):
            await absent
    with pytest.raises(ConflictError, match="create another"):
        await access.rotate_key(CALLER, key.id, overlap_s=0)


async def test_the_first_key_is_made_once_even_if_it_was_revoked(access: AccessService) -> None:
    delivered: list[str] = []
    await access.bootstrap_admin_key(delivered.append)
    key = await access.authenticate(delivered[0])

    await access.revoke_key(CALLER, key.id)
    await access.bootstrap_admin_key(delivered.append)

    assert key.role is Role.ADMIN
    assert len(delivered) == 1


async def test_a_first_key_that_reaches_nobody_is_not_stored(database: Database, access: AccessService) -> None:
    def fail(_secret: str) -> None:
        raise SetupError("disk full")

    with pytest.raises(SetupError, match="disk full"):
        await access.bootstrap_admin_key(fail)

    assert await count_rows(database, "api_keys") == 0


@pytest.mark.parametrize("role", [Role.RECOGNIZE, Role.ENROL, Role.MANAGE])
async def test_a_key_that_is_no_administrators_makes_lists_rotates_and_revokes_none(
    database: Database, access: AccessService, role: Role
) -> None:
    key, _ = await access.create_key(CALLER, "door", role)
    principal = Principal.from_key(key)

    for attempt in (
        access.create_key(principal, "mine", Role.RECOGNIZE),
        access.list_keys(principal, after=None, limit=9),
        access.rotate_key(principal, key.id, overlap_s=0),
        access.revoke_key(principal, key.id),
    ):
        with pytest.raises(ForbiddenError):
            await attempt

    assert await count_rows(database, "api_keys WHERE revoked_at IS NULL AND previous_until IS NULL") == 1


async def test_an_expired_key_is_refused_like_an_unknown_one(database: Database, access: AccessService) -> None:
    key, secret = await access.create_key(
        CALLER, "guest", {Permission.READ}, owner="desk", expires_at=datetime.now(UTC) + timedelta(hours=1)
    )
    assert await access.authenticate(secret) == key
    assert (key.owner, key.role, list(key.permissions)) == ("desk", None, [Permission.READ])

    await run_sql(database, "UPDATE api_keys SET expires_at = now()")

    with pytest.raises(UnauthenticatedError) as expired:
        await access.authenticate(secret)
    with pytest.raises(UnauthenticatedError) as unknown:
        await access.authenticate(make_secret())
    assert expired.value.detail == unknown.value.detail
    with pytest.raises(ConflictError):
        await access.rotate_key(CALLER, key.id, overlap_s=60)
    with pytest.raises(InvalidInputError, match="future"):
        await access.create_key(CALLER, "late", Role.ENROL, expires_at=datetime.now(UTC))


async def test_a_rotated_key_has_two_secrets_for_a_while(database: Database, access: AccessService) -> None:
    key, first = await access.create_key(CALLER, "door", Role.ENROL)

    rotated, second = await access.rotate_key(CALLER, key.id, overlap_s=3600)
    assert (await access.authenticate(first)).id == (await access.authenticate(second)).id == key.id
    assert rotated.previous_until is not None

    _, third = await access.rotate_key(CALLER, key.id, overlap_s=3600)
    assert [await is_accepted(access, one) for one in (first, second, third)] == [False, True, True]

    await run_sql(database, "UPDATE api_keys SET previous_until = now()")
    assert [await is_accepted(access, one) for one in (second, third)] == [False, True]

    _, fourth = await access.rotate_key(CALLER, key.id, overlap_s=0)
    assert [await is_accepted(access, one) for one in (third, fourth)] == [False, True]
    assert (await list_actions(database)).count("key.rotated") == 3


async def test_a_key_is_bound_to_collections_by_name_or_id_and_to_existing_ones(
    access: AccessService, collection: Collection
) -> None:
    for reference in ("home", str(collection.id)):
        key, secret = await access.create_key(CALLER, "door", Role.RECOGNIZE, collections=[reference])
        assert key.collections == (await access.authenticate(secret)).collections == frozenset({collection.id})

    with pytest.raises(NotFoundError):
        await access.create_key(CALLER, "door", Role.RECOGNIZE, collections=["home", "nobody"])
    with pytest.raises(InvalidInputError):
        await access.create_key(CALLER, "door", Role.RECOGNIZE, collections=[])
    with pytest.raises(InvalidInputError):
        await access.create_key(CALLER, "door", frozenset())


async def test_a_bound_manager_of_keys_sees_and_makes_only_keys_of_its_collections(
    access: AccessService, collections: CollectionService, collection: Collection, database: Database
) -> None:
    await collections.create_collection(CALLER, "other")
    may = {Permission.KEYS, Permission.RECOGNIZE, Permission.AUDIT}
    manager, _ = await access.create_key(CALLER, "manager", may, collections=["home"])
    foreign, _ = await access.create_key(CALLER, "foreign", Role.RECOGNIZE, collections=["home", "other"])
    free, _ = await access.create_key(CALLER, "free", Role.RECOGNIZE)
    stronger, _ = await access.create_key(CALLER, "stronger", Role.ENROL, collections=["home"])
    bound = Principal.from_key(manager)

    made, _ = await access.create_key(bound, "door", Role.RECOGNIZE, collections=["home"])

    with pytest.raises(NotFoundError):
        await access.create_key(bound, "door", Role.RECOGNIZE, collections=["other"])
    for collections_named in (None, ["home"]):
        with pytest.raises(ForbiddenError):
            await access.create_key(bound, "door", Role.ENROL, collections=collections_named)
    assert await access.list_keys(bound, after=None, limit=9) == (manager, stronger, made)
    for hidden in (foreign.id, free.id):
        with pytest.raises(NotFoundError):
            await access.revoke_key(bound, hidden)
    with pytest.raises(ForbiddenError):  # its new secret would be the caller's
        await access.rotate_key(bound, stronger.id, overlap_s=0)
    assert (await access.revoke_key(bound, made.id)).revoked_at

    seen = await AuditService(database).list_entries(bound, after=None, limit=99)
    assert [(entry.action, entry.collection_id) for entry in seen] == [("collection.created", collection.id)]


async def test_uses_are_recorded_in_the_background_and_never_set_back(
    database: Database, access: AccessService
) -> None:
    key, secret = await access.create_key(CALLER, "door", Role.RECOGNIZE)
    await access.create_key(CALLER, "unused", Role.RECOGNIZE)
    await access.authenticate(secret)

    await access.record_uses()
    (used, unused) = await access.list_keys(CALLER, after=None, limit=9)
    access._uses[key.id] = datetime(2026, 1, 1, tzinfo=UTC)  # of a server that was late
    await access.record_uses()

    assert used.last_used_at is not None
    assert unused.last_used_at is None
    assert (await access.list_keys(CALLER, after=None, limit=1))[0].last_used_at == used.last_used_at


class CountingDatabase:
    """A database that counts how often it is asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.queries = 0

    def hot_queries(self) -> object:
        self.queries += 1
        return self._database.hot_queries()


async def test_wrong_secrets_ask_the_database_once_if_at_all(database: Database, access: AccessService) -> None:
    key, revoked = await access.create_key(CALLER, "door", Role.RECOGNIZE)
    await access.revoke_key(CALLER, key.id)
    counting = CountingDatabase(database)
    asked = AccessService(counting)  # type: ignore[arg-type]

    for secret in ("vultus_", "vultus_" + "x" * 44, "x" * 50, make_secret()[:-1] + "ä", *[revoked] * 9):
        assert not await is_accepted(asked, secret)

    assert counting.queries == 1


async def test_an_address_may_send_few_unknown_secrets_and_disturbs_no_other(access: AccessService) -> None:
    key, secret = await access.create_key(CALLER, "door", Role.RECOGNIZE)
    await access.authenticate(secret, "2001:db8::1")
    for at in range(FAILURES_PER_MINUTE):
        with pytest.raises(UnauthenticatedError):
            await access.authenticate(make_secret(), f"2001:db8::{at:x}")  # all of one network

    with pytest.raises(KeyFailureLimitError) as limited:
        await access.authenticate(make_secret(), "2001:db8::ffff")

    assert 50 <= limited.value.facts["retry_after_s"] <= 60
    for address in ("2001:db8::1", "2001:db8:0:1::1"):  # known already, or from elsewhere
        assert (await access.authenticate(secret, address)).id == key.id


async def test_an_ipv4_address_is_counted_by_itself_on_a_socket_of_ipv6(access: AccessService) -> None:
    key, secret = await access.create_key(CALLER, "test", Role.RECOGNIZE)
    for _ in range(FAILURES_PER_MINUTE):
        with pytest.raises(UnauthenticatedError):
            await access.authenticate(make_secret(), "::ffff:192.0.2.1")

    with pytest.raises(KeyFailureLimitError):
        await access.authenticate(make_secret(), "192.0.2.1")
    assert (await access.authenticate(secret, "::ffff:192.0.2.2")).id == key.id


async def test_the_audit_is_filtered_by_actor_action_and_time(database: Database, access: AccessService) -> None:
    audit, key = AuditService(database), (await access.create_key(CALLER, "a", Role.ADMIN))[0]
    await access.revoke_key(Principal.from_key(key), key.id)
    (made, ended) = await audit.list_entries(CALLER, after=None, limit=9)

    async def find(newest_first: bool = False, after: UUID | None = None, **only: Any) -> list[object]:
        return list(
            await audit.list_entries(
                CALLER,
                after=after,
                limit=9,
                only=AuditFilter(**only),
                newest_first=newest_first,
            )
        )

    assert (
        await find(actor=f"key:{key.id}") == await find(action="key.revoked") == await find(since=ended.at) == [ended]
    )
    assert await find(actor="test") == await find(until=ended.at) == [made]
    assert await find(newest_first=True) == [ended, made]
    assert await find(newest_first=True, after=ended.id) == [made]
