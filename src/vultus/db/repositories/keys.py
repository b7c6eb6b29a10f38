"""Stores API keys, identified by the digest of their secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, insert, select, update

from vultus.db.tables import KeyRow
from vultus.domain import ApiKey, Role
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.db.driver_session import StatementSession

_COLUMNS = (KeyRow.id, KeyRow.name, KeyRow.role, KeyRow.created_at, KeyRow.revoked_at)

# Built once: building it costs more than executing it, and every request executes it.
_BY_DIGEST = select(*_COLUMNS).where(KeyRow.secret_sha256 == bindparam("digest"))


class ApiKeyQueries:
    """Queries for one API key, which need no transaction."""

    def __init__(self, session: StatementSession) -> None:
        self._session = session

    async def find_key_by_digest(self, digest: bytes) -> ApiKey | None:
        """Return the key whose secret has this SHA-256, including a revoked one."""
        row = (await self._session.execute(_BY_DIGEST, {"digest": digest})).one_or_none()
        return None if row is None else _build_key(row)


class ApiKeyRepository(ApiKeyQueries):
    """Stores API keys."""

    _session: AsyncSession

    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session)

    async def add_key(self, name: str, role: Role, secret_sha256: bytes) -> ApiKey:
        """Add a key."""
        row = await self._session.execute(
            insert(KeyRow).values(name=name, role=role.value, secret_sha256=secret_sha256).returning(*_COLUMNS)
        )
        return _build_key(row.one())

    async def list_keys(self, after: UUID | None, limit: int) -> tuple[ApiKey, ...]:
        """Return keys in order of creation, those after the given id, including revoked ones."""
        query = select(*_COLUMNS).order_by(KeyRow.id).limit(limit)
        if after is not None:
            query = query.where(KeyRow.id > after)
        return tuple(map(_build_key, await self._session.execute(query)))

    async def revoke_key(self, key_id: UUID) -> ApiKey:
        """Revoke a key; one already revoked keeps its original timestamp.

        Raises:
            NotFoundError: There is no such key.
        """
        row = (
            await self._session.execute(
                update(KeyRow)
                .where(KeyRow.id == key_id)
                .values(revoked_at=func.coalesce(KeyRow.revoked_at, func.now()))
                .returning(*_COLUMNS)
            )
        ).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no key with id {key_id}.")
        return _build_key(row)


def _build_key(row: Any) -> ApiKey:
    return ApiKey(row.id, row.name, Role(row.role), row.created_at, row.revoked_at)
