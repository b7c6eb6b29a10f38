"""Reads the audit record; `UnitOfWork.record` writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from vultus.db.record_tables import AuditRow
from vultus.domain import AuditEntry, AuditFilter
from vultus.domain.ledger import ENDING_ACTIONS

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_COLUMNS = (
    AuditRow.id,
    AuditRow.at,
    AuditRow.actor,
    AuditRow.request_id,
    AuditRow.action,
    AuditRow.collection_id,
    AuditRow.person_id,
    AuditRow.object_id,
    AuditRow.detail,
)


class AuditRepository:
    """Lists audit entries."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def list_entries(
        self, after: UUID | None, limit: int, only: AuditFilter | None = None, *, newest_first: bool = False
    ) -> tuple[AuditEntry, ...]:
        """Return entries that pass a filter, those after the given id in the order asked for."""
        only = only or AuditFilter()
        query = select(*_COLUMNS).order_by(AuditRow.id.desc() if newest_first else AuditRow.id).limit(limit)
        if after is not None:
            query = query.where(AuditRow.id < after if newest_first else AuditRow.id > after)
        for column in (AuditRow.actor, AuditRow.action, AuditRow.collection_id, AuditRow.person_id):
            if (wanted := getattr(only, column.key)) is not None:
                query = query.where(column == wanted)
        if only.since is not None:
            query = query.where(AuditRow.at >= only.since)
        if only.until is not None:
            query = query.where(AuditRow.at < only.until)
        if only.collections is not None:
            query = query.where(AuditRow.collection_id.in_(only.collections))
        return tuple(AuditEntry(*row) for row in await self._session.execute(query))

    async def list_endings(self, after: UUID | None, limit: int, not_by: str) -> tuple[AuditEntry, ...]:
        """Return entries of what ended for good after the given id, but those of an actor, in order."""
        query = select(*_COLUMNS).where(AuditRow.action.in_(ENDING_ACTIONS), AuditRow.actor != not_by)
        if after is not None:
            query = query.where(AuditRow.id > after)
        found = await self._session.execute(query.order_by(AuditRow.id).limit(limit))
        return tuple(AuditEntry(*row) for row in found)

    async def delete_old_entries(self, older_than: datetime) -> None:
        """Delete entries written before `older_than`, for good."""
        await self._session.execute(delete(AuditRow).where(AuditRow.at < older_than))
