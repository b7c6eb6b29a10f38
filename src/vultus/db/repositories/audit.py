"""Stores audit entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from vultus.db.tables import AuditRow
from vultus.domain import AuditEntry

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.domain import Principal

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
    """Stores audit entries, append-only."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_entry(
        self,
        actor: Principal,
        action: str,
        *,
        collection_id: UUID | None = None,
        person_id: UUID | None = None,
        object_id: UUID | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Add an entry, kept only if the transaction commits."""
        await self._session.execute(
            insert(AuditRow).values(
                actor=actor.id,
                request_id=actor.request_id,
                action=action,
                collection_id=collection_id,
                person_id=person_id,
                object_id=object_id,
                detail=detail or {},
            )
        )

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
