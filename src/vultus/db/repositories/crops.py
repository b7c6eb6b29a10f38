"""Retained crops, encrypted; what they show is known to nobody here."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, func, insert, or_, select

from vultus.db.tables import CropRow
from vultus.domain import NewCrop, SealedCrop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


class Crops:
    """The crops of the collections."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_many(self, crops: Sequence[NewCrop]) -> None:
        """Keep crops; all of them or, when one fails, none.

        Raises:
            NotFoundError: A face does not exist, or a consent is not live.
        """
        if crops:
            await self._session.execute(insert(CropRow), [asdict(crop) for crop in crops])

    async def get(self, collection_id: UUID, face_id: UUID) -> SealedCrop | None:
        """Return a face's crop, if one was kept."""
        query = select(CropRow.key_id, CropRow.sealed).where(
            CropRow.collection_id == collection_id, CropRow.face_id == face_id
        )
        row = (await self._session.execute(query)).one_or_none()
        return None if row is None else SealedCrop(*row)

    async def count(self, collection_id: UUID) -> int:
        """Return how many faces of a collection have a crop."""
        query = select(func.count()).where(CropRow.collection_id == collection_id)
        return (await self._session.execute(query)).scalar_one()

    async def delete_all(self, collection_id: UUID) -> int:
        """Remove the crops of a collection; return how many."""
        gone = await self._session.execute(
            delete(CropRow).where(CropRow.collection_id == collection_id).returning(CropRow.face_id)
        )
        return len(gone.all())

    async def other_key(self, key_id: str) -> str | None:
        """Return the id of another key that sealed a crop of this database, if there is one."""
        query = select(CropRow.key_id).where(or_(CropRow.key_id < key_id, CropRow.key_id > key_id)).limit(1)
        return (await self._session.execute(query)).scalar_one_or_none()

    async def exist(self) -> bool:
        """Say whether this database holds any crop."""
        return bool((await self._session.execute(select(exists(select(CropRow.face_id))))).scalar_one())
