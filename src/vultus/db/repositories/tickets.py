"""Stores tickets of live sessions by the digest of their secret: deleted by what they open, on whichever server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert

from vultus.db.tables import LiveTicketRow
from vultus.domain import LiveTicket, Permission

if TYPE_CHECKING:
    from collections.abc import Set
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.db.driver_session import StatementSession

_COLUMNS = (
    LiveTicketRow.key_id,
    LiveTicketRow.key_sha256,
    LiveTicketRow.collection_id,
    LiveTicketRow.permissions,
    LiveTicketRow.frames_per_second,
    LiveTicketRow.session_s,
    LiveTicketRow.expires_at,
)
_TAKE = (
    delete(LiveTicketRow)
    .where(LiveTicketRow.secret_sha256 == bindparam("digest"))
    .returning(*_COLUMNS, (LiveTicketRow.expires_at > func.now()).label("is_valid"))
)


class TicketQueries:
    """Queries for one ticket, which need no transaction."""

    def __init__(self, session: StatementSession) -> None:
        self._session = session

    async def take_ticket(self, digest: bytes) -> LiveTicket | None:
        """Delete the ticket with a secret of this SHA-256, and return it unless it has expired.

        Of several that take it at once, on one server or several, one has it.
        """
        row = (await self._session.execute(_TAKE, {"digest": digest})).one_or_none()
        return _build_ticket(row) if row is not None and row.is_valid else None


class TicketRepository(TicketQueries):
    """Stores tickets."""

    _session: AsyncSession

    async def add_ticket(
        self,
        digest: bytes,
        *,
        key_id: UUID,
        key_sha256: bytes,
        collection_id: UUID,
        permissions: Set[Permission],
        frames_per_second: float,
        session_s: float,
        valid_s: float,
    ) -> LiveTicket:
        """Add a ticket that may be taken for `valid_s` seconds."""
        row = await self._session.execute(
            insert(LiveTicketRow)
            .values(
                secret_sha256=digest,
                key_id=key_id,
                key_sha256=key_sha256,
                collection_id=collection_id,
                permissions=sorted(permissions),
                frames_per_second=frames_per_second,
                session_s=session_s,
                expires_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, valid_s),
            )
            .returning(*_COLUMNS)
        )
        return _build_ticket(row.one())

    async def delete_expired(self) -> None:
        """Delete tickets that nobody took in time."""
        await self._session.execute(delete(LiveTicketRow).where(LiveTicketRow.expires_at < func.now()))


def _build_ticket(row: Any) -> LiveTicket:
    return LiveTicket(
        key_id=row.key_id,
        key_sha256=row.key_sha256,
        collection_id=row.collection_id,
        permissions=frozenset(map(Permission, row.permissions)),
        frames_per_second=row.frames_per_second,
        session_s=row.session_s,
        expires_at=row.expires_at,
    )
