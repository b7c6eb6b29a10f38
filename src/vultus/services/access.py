"""API keys: high-entropy secrets, stored as SHA-256, looked up by digest."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vultus.domain import ApiKey, KeyGrant, Permission, Principal, Role
from vultus.domain.events import KeyCreated, KeyRevoked, KeyRotated
from vultus.domain.texts import require_optional_text, require_text
from vultus.errors import ConflictError, InvalidInputError, KeyFailureLimitError, UnauthenticatedError
from vultus.utils.addresses import group_address
from vultus.utils.recent import RecentCounts, RecentValues

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence, Set
    from uuid import UUID

    from vultus.db.database import Database, UnitOfWork

KEY_PREFIX = "vultus_"
SECRET_BYTES = 32
_SECRET = re.compile(r"vultus_[A-Za-z0-9_-]{43}")

REFUSAL_S = 10.0
"""How long a refused secret is refused from memory."""

ACCEPTANCE_S = 3600.0
"""How long an accepted secret is looked up whatever others try from its address, for example through one proxy."""

FAILURES_PER_MINUTE = 60
"""Different unknown secrets that an address may try in a minute."""

MAX_REMEMBERED = 10_000
MAX_OVERLAP_S = 30 * 86_400.0
"""Longest time for which a rotated key's previous secret is accepted."""


def compute_digest(secret: str) -> bytes:
    """Return the SHA-256 of a secret.

    The secret has 256 random bits, so a fast hash is sufficient: no dictionary attack is possible.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def make_secret() -> str:
    """Return a new secret of 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


class AccessService:
    """Authenticates API keys, and manages them for principals that may."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._refused: RecentValues[bytes, None] = RecentValues(MAX_REMEMBERED, REFUSAL_S)
        self._callers: RecentValues[bytes, str] = RecentValues(MAX_REMEMBERED, ACCEPTANCE_S)
        self._failures: RecentCounts[str] = RecentCounts(MAX_REMEMBERED, 60.0)
        self._uses: dict[UUID, datetime] = {}

    async def authenticate(self, secret: str | None, address: str | None = None) -> ApiKey:
        """Return the key with this secret, unless it is revoked or has expired.

        What has not the form of a secret, and what was refused a moment ago, is refused without a query. The lookup is
        by digest, through an index: its duration depends on the digest of the value sent, which reveals nothing about
        the stored secrets; that of a refusal is the same for every reason.

        Args:
            secret: As it was sent.
            address: Of the client, which may try a limited number of unknown secrets.

        Raises:
            UnauthenticatedError: No key was sent, or it is unknown, revoked or expired; the error does not distinguish
                the last three.
            KeyFailureLimitError: The address has tried too many.
        """
        if not secret:
            raise UnauthenticatedError("Send an API key: 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.")
        digest = compute_digest(secret)
        if digest not in self._refused and _SECRET.fullmatch(secret):
            source = None if digest in self._callers else group_address(address or "")
            self._ensure_few_failures(source)
            async with self._database.hot_queries() as work:
                key = await work.keys.find_live_key(digest)
            if key is not None:
                self._callers.remember(digest, f"key:{key.id}")
                self._uses[key.id] = datetime.now(UTC)
                return key
            self._refused.remember(digest, None)
            if source:
                self._failures.add(source)
        raise UnauthenticatedError("The API key is unknown, revoked or expired.")

    def recall_caller(self, secret: str | None) -> str | None:
        """Return the id of the principal that a secret was lately accepted for; it may be refused by now."""
        return self._callers.recall(compute_digest(secret)) if secret else None

    def _ensure_few_failures(self, source: str | None) -> None:
        if source and (wait_s := math.ceil(self._failures.get_wait(source, FAILURES_PER_MINUTE))):
            raise KeyFailureLimitError(
                f"More than {FAILURES_PER_MINUTE} unknown API keys came from this address within a minute; send the "
                f"right one in {wait_s} s.",
                retry_after_s=wait_s,
            )

    async def create_key(
        self,
        principal: Principal,
        name: str,
        permissions: Role | Set[Permission],
        *,
        owner: str | None = None,
        collections: Sequence[str] | None = None,
        searches_per_hour: int | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a key and return it with its secret, which is not stored and cannot be shown again.

        Args:
            principal: The caller.
            name: Whose key, or what it is for.
            permissions: What it may do, as a role or one by one.
            owner: Who answers for it.
            collections: Ids or names of those it may reach; None for all.
            searches_per_hour: Faces it may search for within an hour; None for the server's default.
            expires_at: From when on it is refused.

        Raises:
            ForbiddenError: The caller may not manage keys, or may do less than the new one.
            InvalidInputError: It could do nothing, or has expired already.
            NotFoundError: There is no such collection.
        """
        principal.require(Permission.KEYS)
        role = permissions if isinstance(permissions, Role) else None
        granted = permissions.permissions if isinstance(permissions, Role) else frozenset(permissions)
        name, owner = require_text("The key's name", name), require_optional_text("The key's owner", owner)
        grant = KeyGrant(
            name=name,
            owner=owner,
            role=role,
            permissions=granted,
            searches_per_hour=searches_per_hour,
            expires_at=expires_at,
        )
        if not granted or collections == []:
            raise InvalidInputError("A key needs at least one permission and, if bound to collections, one of them.")
        if expires_at is not None and expires_at <= datetime.now(UTC):
            raise InvalidInputError("A key must expire in the future.")
        async with self._database.transaction() as work:
            if collections is not None:
                found = [await work.open(reference, principal, Permission.KEYS) for reference in collections]
                grant = replace(grant, collections=frozenset(one.id for one in found))
            principal.require_no_less_than(grant)
            return await _add_key(work, principal, grant, make_secret())

    async def bootstrap_admin_key(self, deliver: Callable[[str], None]) -> None:
        """Create an administrator's key if no key was ever created.

        Args:
            deliver: Called with the secret before the key is stored; if it raises, there is no key.
        """
        async with self._database.transaction() as work:
            if not await work.keys.is_first_key():
                return
            grant = KeyGrant(name="administrator", role=Role.ADMIN, permissions=Role.ADMIN.permissions)
            _, secret = await _add_key(work, Principal.from_process("setup"), grant, make_secret())
            deliver(secret)

    async def list_keys(self, principal: Principal, *, after: UUID | None, limit: int) -> tuple[ApiKey, ...]:
        """Return keys in order of creation, including revoked ones.

        A principal that is bound to collections sees those that are bound to some of them.
        """
        principal.require(Permission.KEYS)
        async with self._database.transaction(read_only=True) as work:
            return await work.keys.list_keys(after=after, limit=limit, within=principal.collections)

    async def rotate_key(self, principal: Principal, key_id: UUID, *, overlap_s: float) -> tuple[ApiKey, str]:
        """Give a key another secret, and return both; everything else about it stays.

        Args:
            principal: The caller.
            key_id: The key.
            overlap_s: How long the present secret is accepted too, up to `MAX_OVERLAP_S`; a secret that is older still
                is refused from now on.

        Raises:
            ConflictError: The key is revoked or has expired.
            ForbiddenError: The caller may not manage keys, or may do less than this one.
            NotFoundError: There is no such key.
        """
        async with self._database.transaction() as work:
            found = await _open_key(work, principal, key_id)
            if found.revoked_at or (found.expires_at and found.expires_at <= datetime.now(UTC)):
                raise ConflictError(f"Key {key_id} is revoked or has expired, for good; create another one.")
            secret = make_secret()
            key = await work.keys.rotate_key(key_id, compute_digest(secret), min(overlap_s, MAX_OVERLAP_S))
            await work.record(principal, KeyRotated(object_id=key_id, previous_until=key.previous_until))
        return key, secret

    async def revoke_key(self, principal: Principal, key_id: UUID) -> ApiKey:
        """Revoke a key, effective immediately.

        Raises:
            ForbiddenError: The caller may not manage keys, or may do less than this one.
            NotFoundError: There is no such key.
        """
        async with self._database.transaction() as work:
            await _open_key(work, principal, key_id)
            key = await work.keys.revoke_key(key_id)
            await work.record(principal, KeyRevoked(object_id=key_id))
        return key

    async def record_uses(self) -> None:
        """Store when keys were last used, drop old counts and tickets: a background job, so that no request waits."""
        uses, self._uses = self._uses, {}
        async with self._database.transaction() as work:
            if uses:
                await work.keys.record_uses(uses)
            await work.keys.delete_old_counts()
            await work.tickets.delete_expired()


async def _add_key(work: UnitOfWork, principal: Principal, grant: KeyGrant, secret: str) -> tuple[ApiKey, str]:
    key = await work.keys.add_key(grant, compute_digest(secret))
    event = KeyCreated(
        object_id=key.id,
        permissions=tuple(sorted(key.permissions)),
        collections=None if key.collections is None else tuple(sorted(key.collections)),
        expires_at=key.expires_at,
    )
    await work.record(principal, event)
    return key, secret


async def _open_key(work: UnitOfWork, principal: Principal, key_id: UUID) -> ApiKey:
    """Return a key that the principal may manage, locked."""
    principal.require(Permission.KEYS)
    key = await work.keys.lock_key(key_id, within=principal.collections)
    principal.require_no_less_than(key)
    return key
