"""Follows what was erased: which state it has reached."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vultus.domain import Permission
from vultus.domain.erasures import ErasureFilter

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import Principal
    from vultus.domain.erasures import Erasure


class ErasureService:
    """Reads erasures, for those who may erase."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_erasure(self, principal: Principal, erasure_id: UUID) -> Erasure:
        """Return an erasure.

        Raises:
            NotFoundError: There is none with this id, or it does not exist for the principal.
        """
        principal.require(Permission.ERASE)
        async with self._database.transaction(read_only=True) as work:
            return await work.erasures.get_erasure(erasure_id, principal.collections)

    async def list_erasures(
        self,
        principal: Principal,
        *,
        after: UUID | None,
        limit: int,
        only: ErasureFilter | None = None,
        newest_first: bool = False,
    ) -> tuple[Erasure, ...]:
        """Return erasures after the given id, the oldest first unless asked otherwise.

        A principal that is bound to collections sees those in them.
        """
        principal.require(Permission.ERASE)
        only = replace(only or ErasureFilter(), collections=principal.collections)
        async with self._database.transaction(read_only=True) as work:
            return await work.erasures.list_erasures(after, limit, only, newest_first=newest_first)
