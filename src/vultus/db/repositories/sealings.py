"""Which collections were open before they were sealed, and how far the sealing of their templates is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import delete, func, insert, select, table, update

from vultus.db.record_tables import SealingRow
from vultus.db.repositories.collections import get_partition_name
from vultus.db.tables import CodingRow

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class Sealing:
    """How far the sealing of a collection's templates is.

    Attributes:
        last_number: Every template up to this number is sealed.
        sealed: How many have been.
        total: How many there were at the beginning.
    """

    collection_id: UUID
    last_number: int
    sealed: int
    total: int


class SealingRepository:
    """Stores how far collections are sealed that were open before."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_sealing(self, collection_id: UUID) -> None:
        """Note that a collection, which is locked, is sealed from now on, and its templates are to be sealed."""
        faces = table(get_partition_name(collection_id))
        total = (await self._session.execute(select(func.count()).select_from(faces))).scalar_one()
        await self._session.execute(insert(SealingRow).values(collection_id=collection_id, total=total))

    async def list_unfinished(self) -> list[Sealing]:
        """Return the sealings that are not finished."""
        return [Sealing(*row) for row in await self._session.execute(_UNFINISHED)]

    async def find_unfinished(self, collection_id: UUID) -> Sealing | None:
        """Return a collection's sealing unless it is finished, or the collection deleted."""
        query = _UNFINISHED.where(SealingRow.collection_id == collection_id)
        row = (await self._session.execute(query)).one_or_none()
        return None if row is None else Sealing(*row)

    async def record_progress(self, collection_id: UUID, sealed: int, last_number: int) -> None:
        """Note that some more templates are sealed, up to a number."""
        await self._session.execute(
            update(SealingRow)
            .where(SealingRow.collection_id == collection_id)
            .values(sealed=SealingRow.sealed + sealed, last_number=last_number)
        )

    async def finish(self, collection_id: UUID) -> None:
        """Note that all templates of a collection are sealed, and delete what was computed from the open ones."""
        await self._session.execute(delete(CodingRow).where(CodingRow.collection_id == collection_id))
        await self._session.execute(
            update(SealingRow).where(SealingRow.collection_id == collection_id).values(finished_at=func.now())
        )


_UNFINISHED = select(SealingRow.collection_id, SealingRow.last_number, SealingRow.sealed, SealingRow.total).where(
    SealingRow.finished_at.is_(None)
)
