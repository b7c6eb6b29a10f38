"""Retained crops, sealed; this module never opens them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, select, update

from vultus.db.tables import ConsentRow, CropRow, FaceRow
from vultus.domain import NewCrop, SealedCrop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class StoredCrop(SealedCrop):
    """A crop of a face of a collection."""

    face_id: UUID


class CropRepository:
    """Stores sealed crops."""

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
        query = select(CropRow.person_id, CropRow.sealed, CropRow.key_id).where(
            CropRow.collection_id == collection_id, CropRow.face_id == face_id
        )
        row = (await self._session.execute(query)).one_or_none()
        return None if row is None else SealedCrop(row.person_id, row.sealed, key_id=row.key_id)

    async def list_crops_of_persons(self, collection_id: UUID, persons: Sequence[UUID]) -> list[StoredCrop]:
        """Return the crops that the keys of persons seal."""
        faces = select(FaceRow.id).where(FaceRow.collection_id == collection_id, FaceRow.person_id.in_(persons))
        return await self._list(
            CropRow.collection_id == collection_id, CropRow.face_id.in_(faces), CropRow.key_id.is_(None)
        )

    async def list_collections_with_old_crops(self) -> list[UUID]:
        """Return the collections that have crops which version 0.1 sealed."""
        query = select(CropRow.collection_id).where(CropRow.key_id.is_not(None)).distinct()
        return list((await self._session.execute(query)).scalars())

    async def list_old_crops(self, collection_id: UUID, after: UUID | None, limit: int) -> list[StoredCrop]:
        """Return crops of a collection that version 0.1 sealed, by id of their face."""
        conditions = [CropRow.collection_id == collection_id, CropRow.key_id.is_not(None)]
        if after is not None:
            conditions.append(CropRow.face_id > after)
        return await self._list(*conditions, limit=limit)

    async def replace_crop(self, collection_id: UUID, face_id: UUID, sealed: bytes) -> None:
        """Store a crop, sealed anew by the key of its person."""
        await self._session.execute(
            update(CropRow)
            .where(CropRow.collection_id == collection_id, CropRow.face_id == face_id)
            .values(sealed=sealed, key_id=None)
        )

    async def _list(self, *conditions: ColumnElement[bool], limit: int | None = None) -> list[StoredCrop]:
        query = (
            select(CropRow.person_id, CropRow.sealed, CropRow.face_id, CropRow.key_id)
            .where(*conditions)
            .order_by(CropRow.face_id)
            .limit(limit)
        )
        rows = await self._session.execute(query)
        return [StoredCrop(row.person_id, row.sealed, row.face_id, key_id=row.key_id) for row in rows]

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

    async def delete_crops_of_person(self, collection_id: UUID, person_id: UUID) -> None:
        """Delete the crops that a person's key seals."""
        await self._session.execute(
            delete(CropRow).where(
                CropRow.collection_id == collection_id, CropRow.person_id == person_id, CropRow.key_id.is_(None)
            )
        )

    async def delete_crops(self, collection_id: UUID) -> int:
        """Delete the crops of a collection; return how many."""
        deleted = await self._session.execute(
            delete(CropRow).where(CropRow.collection_id == collection_id).returning(CropRow.face_id)
        )
        return len(deleted.all())
