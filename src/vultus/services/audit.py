"""Reading of the audit record; every service writes its entries in the transaction they describe."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from vultus.domain import AuditFilter, Permission
from vultus.domain.events import list_actions
from vultus.errors import InvalidInputError

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

        Raises:
            InvalidInputError: Only entries of an action that there is not were asked for.
        """
        principal.require(Permission.AUDIT)
        if only and only.action:
            _require_known_action(only.action)
        only = replace(only or AuditFilter(), collections=principal.collections)
        async with self._database.transaction(read_only=True) as work:
            return await work.audit.list_entries(after, limit, only, newest_first=newest_first)


def _require_known_action(action: str) -> None:
    """Refuse an action that there is not: an empty list would say that it never happened."""
    known = list_actions()
    if action not in known:
        nearest = get_close_matches(action, known, n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"there are {', '.join(known)}."
        raise InvalidInputError(f"There is no action '{action}'; {hint}")
