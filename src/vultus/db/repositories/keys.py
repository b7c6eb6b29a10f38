"""API keys, known by the digest of their secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, insert, select, update

from vultus.db.tables import KeyRow
from vultus.domain import ApiKey, Role
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_COLUMNS = (KeyRow.id, KeyRow.name, KeyRow.role, KeyRow.created_at, KeyRow.revoked_at)

# Built once: building it takes longer than asking, and every request asks.
_BY_DIGEST = select(*_COLUMNS).where(KeyRow.secret_sha256 == bindparam("digest"))


class Keys:
    """Who may call."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, name: str, role: Role, secret_sha256: bytes) -> ApiKey:
        """Add a key."""
        row = await self._session.execute(
            insert(KeyRow).values(name=name, role=role.value, secret_sha256=secret_sha256).returning(*_COLUMNS)
        )
        return _key(row.one())

    async def by_digest(self, digest: bytes) -> ApiKey | None:
        """Return the key whose secret has this SHA-256, a revoked one too."""
        row = (await self._session.execute(_BY_DIGEST, {"digest": digest})).one_or_none()
        return None if row is None else _key(row)

    async def page(self, after: UUID | None, limit: int) -> tuple[ApiKey, ...]:
        """Return keys in order of creation, those after the given id, revoked ones too."""
        query = select(*_COLUMNS).order_by(KeyRow.id).limit(limit)
        if after is not None:
            query = query.where(KeyRow.id > after)
        return tuple(map(_key, await self._session.execute(query)))

    async def revoke(self, key_id: UUID) -> ApiKey:
        """Make a key useless; one that is revoked already keeps its moment.

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
        return _key(row)

    async def count_active(self) -> int:
        """Return how many keys are not revoked."""
        query = select(func.count()).select_from(KeyRow).where(KeyRow.revoked_at.is_(None))
        return (await self._session.execute(query)).scalar_one()


def _key(row: Any) -> ApiKey:
    return ApiKey(row.id, row.name, Role(row.role), row.created_at, row.revoked_at)
