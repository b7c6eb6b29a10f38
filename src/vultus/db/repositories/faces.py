"""Lists and deletes faces. Their templates belong to the template store (`db/templates`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Select, Uuid, bindparam, delete, exists, func, select
from sqlalchemy.dialects.postgresql import array, distinct_on

from vultus.db.tables import FaceRow
from vultus.domain import Face, Quality
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


_QUALITY_COLUMNS = (
    FaceRow.size_px,
    FaceRow.sharpness,
    FaceRow.brightness,
    FaceRow.yaw_deg,
    FaceRow.pitch_deg,
    FaceRow.roll_deg,
)
FACE_COLUMNS = (
    FaceRow.id,
    FaceRow.collection_id,
    FaceRow.person_id,
    FaceRow.consent_id,
    FaceRow.contract_id,
    FaceRow.score,
    FaceRow.source_sha256,
    FaceRow.created_at,
    *_QUALITY_COLUMNS,
)
_QUALITY_OFFSET = len(FACE_COLUMNS) - len(_QUALITY_COLUMNS)


class FaceRepository:
    """Lists and deletes faces."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_face(self, collection_id: UUID, person_id: UUID, face_id: UUID, space_id: str) -> Face:
        """Return a person's face, with the quality of its template in an embedding space if it has one there.

        Raises:
            NotFoundError: The person has none with this id.
        """
        query = _select_distinct_faces(collection_id, person_id, space_id).where(FaceRow.id == face_id)
        row = (await self._session.execute(query)).one_or_none()
        if row is None:
            raise NotFoundError(f"The person has no face with id {face_id}.")
        return build_face(row)

    async def list_faces(
        self, collection_id: UUID, person_id: UUID, space_id: str, after: UUID | None, limit: int
    ) -> tuple[Face, ...]:
        """Return a person's faces in order of enrolment, those after the given id, each once.

        A face with templates in two embedding spaces has the values of the given one.
        """
        query = _select_distinct_faces(collection_id, person_id, space_id)
        if after is not None:
            query = query.where(FaceRow.id > after)
        return tuple(map(build_face, await self._session.execute(query.limit(limit))))

    async def list_faces_of(self, collection_id: UUID, persons: Sequence[UUID], space_id: str) -> tuple[Face, ...]:
        """Return the faces of some persons that have a template in an embedding space, in order of enrolment."""
        query = select(*FACE_COLUMNS, array([FaceRow.contract_id]).label("contracts")).where(
            FaceRow.collection_id == collection_id,
            FaceRow.person_id == func.any(bindparam("persons", list(persons), ARRAY(Uuid))),
            FaceRow.contract_id == space_id,
        )
        return tuple(map(build_face, await self._session.execute(query.order_by(FaceRow.id))))

    async def delete_face(self, collection_id: UUID, person_id: UUID, face_id: UUID) -> None:
        """Delete a face with its templates in all embedding spaces.

        Raises:
            NotFoundError: The person has none with this id.
        """
        row = await self._session.execute(
            delete(FaceRow)
            .where(FaceRow.collection_id == collection_id, FaceRow.person_id == person_id, FaceRow.id == face_id)
            .returning(FaceRow.id)
        )
        if not row.all():
            raise NotFoundError(f"The person has no face with id {face_id}.")

    async def delete_faces_by_consent(self, collection_id: UUID, consent_id: UUID) -> int:
        """Delete the faces that reference a consent; return how many."""
        deleted = await self._session.execute(
            delete(FaceRow)
            .where(FaceRow.collection_id == collection_id, FaceRow.consent_id == consent_id)
            .returning(FaceRow.id)
        )
        return len(set(deleted.scalars()))

    async def has_faces(self, collection_id: UUID, person_id: UUID) -> bool:
        """Return whether a person has any face, under an expired consent too."""
        query = select(exists().where(FaceRow.collection_id == collection_id, FaceRow.person_id == person_id))
        return bool((await self._session.execute(query)).scalar_one())

    async def list_photo_digests(self, collection_id: UUID, person_id: UUID) -> set[str]:
        """Return the digests, hexadecimal, of a person's enrolled photos, in any embedding space."""
        query = select(FaceRow.source_sha256).where(
            FaceRow.collection_id == collection_id, FaceRow.person_id == person_id
        )
        return {digest.hex() for digest in await self._session.scalars(query)}


def _select_distinct_faces(collection_id: UUID, person_id: UUID, space_id: str) -> Select[*tuple[Any, ...]]:
    """Return the query of a person's faces, each once, preferring the template in the given embedding space."""
    space_ids = func.array_agg(FaceRow.contract_id).over(partition_by=FaceRow.id).label("contracts")
    return (
        select(*FACE_COLUMNS, space_ids)
        .ext(distinct_on(FaceRow.id))
        .where(FaceRow.collection_id == collection_id, FaceRow.person_id == person_id)
        .order_by(FaceRow.id, FaceRow.contract_id != space_id)
    )


def build_face(row: Any) -> Face:
    """Return the face of a row of `FACE_COLUMNS`."""
    return Face(
        id=row.id,
        collection_id=row.collection_id,
        person_id=row.person_id,
        consent_id=row.consent_id,
        contract_id=row.contract_id,
        quality=Quality(*row[_QUALITY_OFFSET : len(FACE_COLUMNS)]),
        score=row.score,
        source_sha256=row.source_sha256.hex(),
        created_at=row.created_at,
        contracts=tuple(sorted(getattr(row, "contracts", (row.contract_id,)))),
    )
