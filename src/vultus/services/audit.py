"""Reading the audit record; every service writes its own entries in the transaction they describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import AuditEntry


class Audit:
    """The audit record, oldest first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, *, after: UUID | None, limit: int, person_id: UUID | None = None) -> tuple[AuditEntry, ...]:
        """Return entries after the given one, of one person if asked."""
        async with self._database.work(read_only=True) as work:
            return await work.audit.page(after=after, limit=limit, person_id=person_id)
