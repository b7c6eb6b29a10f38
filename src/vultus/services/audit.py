"""Reading of the audit record; every service writes its entries in the transaction they describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.domain import Permission

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import AuditEntry, Principal


class AuditService:
    """Lists the entries of the audit record."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_entries(
        self, principal: Principal, *, after: UUID | None, limit: int, person_id: UUID | None = None
    ) -> tuple[AuditEntry, ...]:
        """Return entries, oldest first, after the given id; only those of one person if `person_id` is given."""
        principal.require(Permission.AUDIT)
        async with self._database.transaction(read_only=True) as work:
            return await work.audit.list_entries(after=after, limit=limit, person_id=person_id)
