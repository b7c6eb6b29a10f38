"""Reads the audit record; `UnitOfWork.record` writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from vultus.db.tables import AuditRow
from vultus.domain import AuditEntry

if TYPE_CHECKING:
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
        self, after: UUID | None, limit: int, person_id: UUID | None = None
    ) -> tuple[AuditEntry, ...]:
        """Return entries, oldest first, those after the given id; with `person_id` those about one person."""
        query = select(*_COLUMNS).order_by(AuditRow.id).limit(limit)
        if after is not None:
            query = query.where(AuditRow.id > after)
        if person_id is not None:
            query = query.where(AuditRow.person_id == person_id)
        return tuple(AuditEntry(*row) for row in await self._session.execute(query))
