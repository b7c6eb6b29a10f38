"""API keys: high-entropy secrets, stored as SHA-256, looked up by digest."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from vultus.domain import ApiKey, Permission, Principal, Role
from vultus.domain.events import KeyCreated, KeyRevoked
from vultus.domain.texts import require_text
from vultus.errors import UnauthenticatedError

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database

KEY_PREFIX = "vultus_"
SECRET_BYTES = 32


def compute_digest(secret: str) -> bytes:
    """Return the SHA-256 of a secret.

    The secret has 256 random bits, so a fast hash is sufficient: no dictionary attack is possible.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class AccessService:
    """Authenticates API keys and authorizes their roles."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def authenticate(self, secret: str | None) -> ApiKey:
        """Return the key with this secret, unless it is revoked.

        The lookup is by digest, through an index: its duration depends on the digest of the value sent, which reveals
        nothing about the stored secrets.

        Raises:
            UnauthenticatedError: No key was sent, or it is unknown or revoked; the error does not distinguish the last
                two.
        """
        if not secret:
            raise UnauthenticatedError("Send an API key: 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.")
        async with self._database.hot_queries() as work:
            key = await work.keys.find_key_by_digest(compute_digest(secret))
        if key is None or key.revoked_at is not None:
            raise UnauthenticatedError("The API key is unknown or revoked.")
        return key

    async def create_key(self, principal: Principal, name: str, role: Role) -> tuple[ApiKey, str]:
        """Create a key and return it with its secret, which is not stored and cannot be shown again.

        Raises:
            InvalidInputError: The name cannot be kept.
        """
        principal.require(Permission.KEYS)
        name = require_text("The key's name", name)
        secret = KEY_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        async with self._database.transaction() as work:
            key = await work.keys.add_key(name=name, role=role, secret_sha256=compute_digest(secret))
            await work.record(principal, KeyCreated(object_id=key.id, role=role))
        return key, secret

    async def bootstrap_admin_key(self) -> str | None:
        """Create an administrator's key if no key was ever created, and return its secret; None otherwise."""
        async with self._database.transaction(read_only=True) as work:
            if await work.keys.list_keys(after=None, limit=1):
                return None
        _, secret = await self.create_key(Principal.from_process("setup"), "administrator", Role.ADMIN)
        return secret

    async def list_keys(self, principal: Principal, *, after: UUID | None, limit: int) -> tuple[ApiKey, ...]:
        """Return keys in order of creation, including revoked ones."""
        principal.require(Permission.KEYS)
        async with self._database.transaction(read_only=True) as work:
            return await work.keys.list_keys(after=after, limit=limit)

    async def revoke_key(self, principal: Principal, key_id: UUID) -> ApiKey:
        """Revoke a key, effective immediately."""
        principal.require(Permission.KEYS)
        async with self._database.transaction() as work:
            key = await work.keys.revoke_key(key_id)
            await work.record(principal, KeyRevoked(object_id=key_id))
        return key
