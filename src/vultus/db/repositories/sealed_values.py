"""Everything that is stored sealed with the key of the key file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exists, or_, select

from vultus.db.source_table import SourceRow
from vultus.db.tables import CropRow
from vultus.db.webhook_tables import WebhookRow

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

_SEALED_COLUMNS = (
    CropRow.sealed,
    SourceRow.sealed_address,
    WebhookRow.sealed_secret,
)
"""One of every table that contains something sealed."""


class SealedValueRepository:
    """Answers whether a key is needed that must not be replaced by a new one."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def has_any(self) -> bool:
        """Return whether the database contains anything that was sealed."""
        query = select(or_(*(exists(select(column).where(column.is_not(None))) for column in _SEALED_COLUMNS)))
        return bool((await self._session.execute(query)).scalar_one())
