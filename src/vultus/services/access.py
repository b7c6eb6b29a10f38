"""API keys: high-entropy secrets, stored as SHA-256, looked up by digest."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from vultus.domain import Actor, ApiKey, Role
from vultus.errors import ForbiddenError, UnauthenticatedError

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database

PREFIX = "vultus_"
SECRET_BYTES = 32


def digest_of(secret: str) -> bytes:
    """Return the SHA-256 of a secret.

    The secret has 256 random bits, so a fast hash is enough: there is nothing to guess from a dictionary.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class Access:
    """Who may do what."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def authenticate(self, secret: str | None) -> ApiKey:
        """Return the live key with this secret.

        The lookup is by digest, through an index: its time depends on the digest of what was sent, which says nothing
        about the stored secrets.

        Raises:
            UnauthenticatedError: No key was sent, or it is unknown or revoked; the three are told apart only in
                whether a key was sent.
        """
        if not secret:
            raise UnauthenticatedError("Send an API key: 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.")
        async with self._database.look() as work:
            key = await work.keys.by_digest(digest_of(secret))
        if key is None or key.revoked_at is not None:
            raise UnauthenticatedError("The API key is unknown or revoked.")
        return key

    @staticmethod
    def authorize(key: ApiKey, needed: Role) -> None:
        """Check the key's role.

        Raises:
            ForbiddenError: The role does not include the needed one.
        """
        if not key.role.allows(needed):
            raise ForbiddenError(
                f"This needs a key with role '{needed}'; this key has '{key.role}'.", needed=needed.value
            )

    async def create(self, name: str, role: Role, *, actor: Actor) -> tuple[ApiKey, str]:
        """Make a key and return it with its secret, which is not stored and cannot be shown again."""
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        async with self._database.work() as work:
            key = await work.keys.add(name=name, role=role, secret_sha256=digest_of(secret))
            await work.audit.add(actor, "key.created", object_id=key.id, detail={"role": role.value})
        return key, secret

    async def ensure_first(self) -> str | None:
        """Make an administrator's key if there has never been a key, and return its secret."""
        async with self._database.work(read_only=True) as work:
            if await work.keys.page(after=None, limit=1):
                return None
        _, secret = await self.create("administrator", Role.ADMIN, actor=Actor("setup"))
        return secret

    async def page(self, *, after: UUID | None, limit: int) -> tuple[ApiKey, ...]:
        """Return keys in order of creation, revoked ones too."""
        async with self._database.work(read_only=True) as work:
            return await work.keys.page(after=after, limit=limit)

    async def revoke(self, key_id: UUID, *, actor: Actor) -> ApiKey:
        """Make a key useless from now on."""
        async with self._database.work() as work:
            key = await work.keys.revoke(key_id)
            await work.audit.add(actor, "key.revoked", object_id=key_id)
        return key
