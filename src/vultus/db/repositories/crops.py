"""Retained crops, encrypted; this module never decrypts them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, or_, select

from vultus.db.tables import ConsentRow, CropRow
from vultus.domain import NewCrop, SealedCrop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


class CropRepository:
    """Stores encrypted crops."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_crops(self, crops: Sequence[NewCrop]) -> None:
        """Store crops; all of them or, if one fails, none.

        Raises:
            NotFoundError: A face does not exist, or a consent is not live.
        """
        if crops:
            await self._session.execute(insert(CropRow), [asdict(crop) for crop in crops])

    async def find_crop(self, collection_id: UUID, face_id: UUID) -> SealedCrop | None:
        """Return a face's crop, if it has one."""
        query = select(CropRow.key_id, CropRow.sealed).where(
            CropRow.collection_id == collection_id, CropRow.face_id == face_id
        )
        row = (await self._session.execute(query)).one_or_none()
        return None if row is None else SealedCrop(*row)

    async def count_crops(
        self,
        collection_id: UUID,
        *,
        person_id: UUID | None = None,
        consent_id: UUID | None = None,
        face_id: UUID | None = None,
    ) -> int:
        """Return how many faces of a collection, of a person, under a consent, or of this id have a crop."""
        query = select(func.count()).where(CropRow.collection_id == collection_id)
        if person_id is not None:
            query = query.where(CropRow.consent_id.in_(select(ConsentRow.id).where(ConsentRow.person_id == person_id)))
        if consent_id is not None:
            query = query.where(CropRow.consent_id == consent_id)
        if face_id is not None:
            query = query.where(CropRow.face_id == face_id)
        return (await self._session.execute(query)).scalar_one()

    async def delete_crops(self, collection_id: UUID) -> int:
        """Delete the crops of a collection; return how many."""
        deleted = await self._session.execute(
            delete(CropRow).where(CropRow.collection_id == collection_id).returning(CropRow.face_id)
        )
        return len(deleted.all())

    async def find_other_key_id(self, key_id: str) -> str | None:
        """Return the id of a key other than `key_id` that encrypted a crop, if there is one."""
        query = select(CropRow.key_id).where(or_(CropRow.key_id < key_id, CropRow.key_id > key_id)).limit(1)
        return (await self._session.execute(query)).scalar_one_or_none()
