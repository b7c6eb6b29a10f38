"""API keys: shown once, stored as digests, revoked at once, and made by whom may make them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from tests.callers import CALLER
from tests.services.conftest import count_rows, list_actions

from vultus.domain import Principal, Role
from vultus.errors import ForbiddenError, NotFoundError, UnauthenticatedError
from vultus.services.access import AccessService, compute_digest
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from vultus.db.database import Database


@pytest.fixture
def access(database: Database) -> AccessService:
    return AccessService(database)


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

    first = await access.revoke_key(CALLER, key.id)
    again = await access.revoke_key(CALLER, key.id)

    with pytest.raises(UnauthenticatedError):
        await access.authenticate(secret)
    assert first.revoked_at is not None
    assert again.revoked_at == first.revoked_at
    assert await access.list_keys(CALLER, after=None, limit=9) == (first,)
    assert (await list_actions(database))[:2] == ["key.created", "key.revoked"]
    with pytest.raises(NotFoundError):
        await access.revoke_key(CALLER, new_id())


async def test_the_first_key_is_made_once_even_if_it_was_revoked(access: AccessService) -> None:
    secret = await access.bootstrap_admin_key()
    key = await access.authenticate(secret)

    await access.revoke_key(CALLER, key.id)

    assert key.role is Role.ADMIN
    assert await access.bootstrap_admin_key() is None


@pytest.mark.parametrize("role", [Role.RECOGNIZE, Role.ENROL])
async def test_a_key_that_is_no_administrators_makes_lists_and_revokes_none(
    database: Database, access: AccessService, role: Role
) -> None:
    key, _ = await access.create_key(CALLER, "door", role)
    principal = Principal.from_key(key)

    with pytest.raises(ForbiddenError):
        await access.create_key(principal, "mine", Role.ADMIN)
    with pytest.raises(ForbiddenError):
        await access.list_keys(principal, after=None, limit=9)
    with pytest.raises(ForbiddenError):
        await access.revoke_key(principal, key.id)

    assert await count_rows(database, "api_keys") == 1
    assert await count_rows(database, "api_keys WHERE revoked_at IS NULL") == 1
