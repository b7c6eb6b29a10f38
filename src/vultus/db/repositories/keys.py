"""Stores API keys, identified by the digest of their secret."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Uuid, bindparam, cast, delete, func, insert, or_, select, text, true, update

from vultus.db.locks import acquire_lock, compute_lock_number
from vultus.db.tables import KeyRow, KeyUsageRow, VerificationFailureRow
from vultus.domain import ApiKey, Permission, Role
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Set
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.db.driver_session import StatementSession
    from vultus.domain import KeyGrant

FIRST_KEY_LOCK = compute_lock_number("first key")

_COLUMNS = (
    KeyRow.id,
    KeyRow.name,
    KeyRow.owner,
    KeyRow.role,
    KeyRow.permissions,
    KeyRow.collections,
    KeyRow.searches_per_hour,
    KeyRow.created_at,
    KeyRow.expires_at,
    KeyRow.last_used_at,
    KeyRow.previous_until,
    KeyRow.revoked_at,
)

# Built once: building them costs more than executing them, and every request executes the first. Whether a key is live
# is decided by the clock that all servers share. A dead key is not found, so that it takes as long as an unknown one.
IS_LIVE = KeyRow.revoked_at.is_(None) & or_(KeyRow.expires_at.is_(None), KeyRow.expires_at > func.now())
_BY_DIGEST = select(*_COLUMNS).where(KeyRow.secret_sha256 == bindparam("digest"), IS_LIVE)
_LIVE_BY_ID = select(KeyRow.id).where(KeyRow.id == bindparam("key_id"), IS_LIVE)
_BY_PREVIOUS_DIGEST = select(*_COLUMNS).where(
    KeyRow.previous_sha256 == bindparam("digest"), KeyRow.previous_until > func.now(), IS_LIVE
)
_BY_ID = select(*_COLUMNS).where(KeyRow.id == bindparam("id"), IS_LIVE)
_LIVE_IDS = text(
    "SELECT id FROM api_keys WHERE id = ANY(CAST(:ids AS uuid[]))"
    " AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
)
_LIVE_SECRETS = text(
    "SELECT secret_sha256 AS digest FROM api_keys WHERE secret_sha256 = ANY(CAST(:digests AS bytea[]))"
    " AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
    " UNION ALL SELECT previous_sha256 FROM api_keys WHERE previous_sha256 = ANY(CAST(:digests AS bytea[]))"
    " AND previous_until > now() AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
)


class ApiKeyQueries:
    """Queries for one API key, which need no transaction."""

    def __init__(self, session: StatementSession) -> None:
        self._session = session

    async def find_live_key(self, digest: bytes) -> ApiKey | None:
        """Return the key with a secret of this SHA-256, unless it is revoked or has expired.

        Its secret from before the last rotation is looked for only if no key has it now.
        """
        for query in (_BY_DIGEST, _BY_PREVIOUS_DIGEST):
            row = (await self._session.execute(query, {"digest": digest})).one_or_none()
            if row is not None:
                return _build_key(row, digest)
        return None

    async def is_live(self, key_id: UUID) -> bool:
        """Return whether a key is neither revoked nor expired."""
        return (await self._session.execute(_LIVE_BY_ID, {"key_id": key_id})).one_or_none() is not None

    async def find_live_key_by_id(self, key_id: UUID) -> ApiKey | None:
        """Return a key, unless it is revoked or has expired."""
        row = (await self._session.execute(_BY_ID, {"id": key_id})).one_or_none()
        return None if row is None else _build_key(row)

    async def list_live_ids(self, ids: Set[UUID]) -> frozenset[UUID]:
        """Return which of some keys are neither revoked nor expired."""
        return frozenset(row.id for row in await self._session.execute(_LIVE_IDS, {"ids": list(ids)}))

    async def list_live_secrets(self, digests: Set[bytes]) -> frozenset[bytes]:
        """Return which of some secrets, by their SHA-256, `find_live_key` finds a key with."""
        rows = await self._session.execute(_LIVE_SECRETS, {"digests": list(digests)})
        return frozenset(bytes(row.digest) for row in rows)


class ApiKeyRepository(ApiKeyQueries):
    """Stores API keys."""

    _session: AsyncSession

    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session)

    async def add_key(self, grant: KeyGrant, secret_sha256: bytes) -> ApiKey:
        """Add a key."""
        row = await self._session.execute(
            insert(KeyRow)
            .values(
                name=grant.name,
                owner=grant.owner,
                role=grant.role,
                permissions=None if grant.role else sorted(grant.permissions),
                collections=None if grant.collections is None else sorted(grant.collections),
                searches_per_hour=grant.searches_per_hour,
                expires_at=grant.expires_at,
                secret_sha256=secret_sha256,
            )
            .returning(*_COLUMNS)
        )
        return _build_key(row.one())

    async def list_keys(self, after: UUID | None, limit: int, within: Set[UUID] | None = None) -> tuple[ApiKey, ...]:
        """Return keys in order of creation, those after the given id, including revoked ones.

        Args:
            after: Id of the last key of the page before.
            limit: Most keys.
            within: If given, only keys bound to some of these collections.
        """
        query = select(*_COLUMNS).where(_is_within(within)).order_by(KeyRow.id).limit(limit)
        if after is not None:
            query = query.where(KeyRow.id > after)
        return tuple(map(_build_key, await self._session.execute(query)))

    async def find_key(self, key_id: UUID) -> ApiKey | None:
        """Return a key, revoked or not, if there is one."""
        row = (await self._session.execute(select(*_COLUMNS).where(KeyRow.id == key_id))).one_or_none()
        return None if row is None else _build_key(row)

    async def is_first_key(self) -> bool:
        """Return whether no key was ever added; another transaction that asks waits until this one ends."""
        await acquire_lock(self._session, FIRST_KEY_LOCK)
        return (await self._session.execute(select(KeyRow.id).limit(1))).first() is None

    async def lock_key(self, key_id: UUID, within: Set[UUID] | None = None) -> ApiKey:
        """Return a key, revoked or not, locked until the transaction ends.

        Args:
            key_id: The key.
            within: As in `list_keys`.

        Raises:
            NotFoundError: There is no such key.
        """
        query = select(*_COLUMNS).where(KeyRow.id == key_id, _is_within(within)).with_for_update()
        row = (await self._session.execute(query)).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no key with id {key_id}.")
        return _build_key(row)

    async def revoke_key(self, key_id: UUID) -> ApiKey:
        """Revoke an existing key; one already revoked keeps its original timestamp."""
        return await self._update_key(key_id, revoked_at=func.coalesce(KeyRow.revoked_at, func.now()))

    async def rotate_key(self, key_id: UUID, secret_sha256: bytes, overlap_s: float) -> ApiKey:
        """Give an existing key another secret; the present one is accepted for `overlap_s` more seconds."""
        previous = {
            "previous_sha256": KeyRow.secret_sha256 if overlap_s else None,
            "previous_until": func.now() + func.make_interval(0, 0, 0, 0, 0, 0, overlap_s) if overlap_s else None,
        }
        return await self._update_key(key_id, secret_sha256=secret_sha256, **previous)

    async def record_uses(self, uses: Mapping[UUID, datetime]) -> None:
        """Record when keys were last used, unless another server recorded a later use."""
        await self._session.execute(
            text(
                "UPDATE api_keys SET last_used_at = used.at"
                " FROM unnest(CAST(:ids AS uuid[]), CAST(:times AS timestamptz[])) AS used (id, at)"
                " WHERE api_keys.id = used.id AND (last_used_at IS NULL OR last_used_at < used.at)"
            ),
            {"ids": list(uses), "times": list(uses.values())},
        )

    async def delete_old_counts(self) -> None:
        """Delete counts of searches of earlier hours, and failed verifications that are forgotten."""
        now = func.now()
        await self._session.execute(delete(KeyUsageRow).where(KeyUsageRow.hour < now - timedelta(hours=1)))
        await self._session.execute(
            delete(VerificationFailureRow).where(
                VerificationFailureRow.forgotten_at < now, VerificationFailureRow.blocked_until < now
            )
        )

    async def _update_key(self, key_id: UUID, **changes: Any) -> ApiKey:
        row = await self._session.execute(
            update(KeyRow).where(KeyRow.id == key_id).values(**changes).returning(*_COLUMNS)
        )
        return _build_key(row.one())


def _is_within(collections: Set[UUID] | None) -> ColumnElement[bool]:
    return true() if collections is None else KeyRow.collections.bool_op("<@")(cast(list(collections), ARRAY(Uuid)))


def _build_key(row: Any, shown_sha256: bytes | None = None) -> ApiKey:
    role = None if row.role is None else Role(row.role)
    return ApiKey(
        id=row.id,
        name=row.name,
        owner=row.owner,
        role=role,
        permissions=role.permissions if role else frozenset(map(Permission, row.permissions)),
        collections=None if row.collections is None else frozenset(row.collections),
        searches_per_hour=row.searches_per_hour,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        previous_until=row.previous_until,
        revoked_at=row.revoked_at,
        shown_sha256=shown_sha256,
    )
