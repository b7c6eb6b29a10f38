"""Records events, and lists them for those that follow what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, text

from vultus.db.tables import AuditRow, OutboxRow
from vultus.domain import OutboxEntry
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.domain import Principal
    from vultus.domain.events import Event

_SHARED = ("action", "collection_id", "person_id", "object_id", "detail")
_COLUMNS = (
    OutboxRow.number,
    OutboxRow.created_at,
    OutboxRow.action,
    OutboxRow.collection_id,
    OutboxRow.person_id,
    OutboxRow.object_id,
    OutboxRow.detail,
)
MAX_WAIT_S = 1.0
"""Longest wait for writers, who wait behind it."""

_WAIT_FOR_WRITERS = (
    text(f"SET LOCAL lock_timeout = {int(MAX_WAIT_S * 1e3)}"),
    text("LOCK TABLE outbox IN SHARE MODE"),
    text("SET LOCAL lock_timeout = 0"),
)


async def add_event(session: AsyncSession, principal: Principal, event: Event) -> None:
    """Add an event to the audit record and to the outbox in one statement, kept only if the transaction commits."""
    entry = (
        insert(AuditRow)
        .values(
            id=new_id(),
            actor=principal.id,
            request_id=principal.request_id,
            action=event.action,
            collection_id=event.collection_id,
            person_id=event.person_id,
            object_id=event.object_id,
            detail=event.detail,
        )
        .returning(*(getattr(AuditRow, name) for name in _SHARED))
        .cte("entry")
    )
    await session.execute(insert(OutboxRow).from_select(_SHARED, select(entry)))


class OutboxRepository:
    """Lists recent events in commit order."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def list_events(self, after: int, limit: int) -> tuple[OutboxEntry, ...]:
        """Return events with a number above `after`, in ascending order; none with a lower number appears later.

        Waits for the transactions that have recorded an event and not ended, and those that record one meanwhile wait
        for this transaction: end it before acting on the events. It must not be read-only.

        Raises:
            OverloadedError: A transaction that recorded an event lasts longer than `MAX_WAIT_S`; list them later.
        """
        for statement in _WAIT_FOR_WRITERS:
            await self._session.execute(statement)
        query = select(*_COLUMNS).where(OutboxRow.number > after).order_by(OutboxRow.number).limit(limit)
        return tuple(OutboxEntry(*row) for row in await self._session.execute(query))

    async def delete_old_events(self, older_than: datetime) -> None:
        """Delete events recorded before `older_than`; the audit record keeps them."""
        await self._session.execute(delete(OutboxRow).where(OutboxRow.created_at < older_than))
