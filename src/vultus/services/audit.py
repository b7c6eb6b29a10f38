"""Reading of the audit record; every service writes its entries in the transaction they describe."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vultus.domain import AuditFilter, Permission

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import AuditEntry, Principal


class AuditService:
    """Lists the entries of the audit record."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_entries(
        self,
        principal: Principal,
        *,
        after: UUID | None,
        limit: int,
        only: AuditFilter | None = None,
        newest_first: bool = False,
    ) -> tuple[AuditEntry, ...]:
        """Return entries after the given id, the oldest first unless asked otherwise.

        A principal that is bound to collections sees what happened in them, and nothing about keys and other ones.
        """
        principal.require(Permission.AUDIT)
        only = replace(only or AuditFilter(), collections=principal.collections)
        async with self._database.transaction(read_only=True) as work:
            return await work.audit.list_entries(after, limit, only, newest_first=newest_first)
