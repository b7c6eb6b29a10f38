"""Backfill of templates: faces still missing, and faces that could not be backfilled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from vultus.db.tables import CarryFailureRow, CropRow, FaceRow
from vultus.domain import FaceSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.sql.elements import ColumnElement


class BackfillRepository:
    """Stores which of a collection's faces await or failed a template in a further embedding space."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def list_pending_faces(
        self, collection_id: UUID, space_id: str, after: UUID | None, limit: int
    ) -> tuple[UUID, ...]:
        """Return faces without a template in an embedding space and not yet attempted, those after the given id."""
        query = (
            select(FaceRow.id)
            .where(*_build_unmigrated_filter(collection_id, space_id), ~_build_failed_filter(collection_id, space_id))
            .order_by(FaceRow.id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(FaceRow.id > after)
        return tuple(await self._session.scalars(query))

    async def add_missing_crop_failures(self, collection_id: UUID, space_id: str) -> int:
        """Record that faces without a crop cannot be backfilled; return how many."""
        kept = exists().where(CropRow.collection_id == collection_id, CropRow.face_id == FaceRow.id)
        columns = ("collection_id", "face_id", "contract_id", "reason")
        failed = await self._session.execute(
            insert(CarryFailureRow)
            .from_select(
                columns,
                select(FaceRow.collection_id, FaceRow.id, literal(space_id), literal("no_crop")).where(
                    *_build_unmigrated_filter(collection_id, space_id), ~kept
                ),
                include_defaults=False,
            )
            .on_conflict_do_nothing()
            .returning(CarryFailureRow.face_id)
        )
        return len(failed.all())

    async def add_failure(self, collection_id: UUID, face_id: UUID, space_id: str, reason: str) -> None:
        """Record why a face could not be backfilled.

        Raises:
            NotFoundError: The face has been deleted.
        """
        values = {"collection_id": collection_id, "face_id": face_id, "contract_id": space_id, "reason": reason}
        await self._session.execute(
            insert(CarryFailureRow)
            .values(**values)
            .on_conflict_do_update(constraint="pk_carry_failures", set_={"reason": reason, "at": func.now()})
        )

    async def delete_failure(self, collection_id: UUID, face_id: UUID, space_id: str) -> None:
        """Forget why a face could not be backfilled, if that is recorded."""
        await self._session.execute(
            delete(CarryFailureRow).where(
                CarryFailureRow.collection_id == collection_id,
                CarryFailureRow.face_id == face_id,
                CarryFailureRow.contract_id == space_id,
            )
        )

    async def delete_failures(self, collection_id: UUID) -> int:
        """Delete backfill failures so that the faces are retried; return how many."""
        deleted = await self._session.execute(
            delete(CarryFailureRow)
            .where(CarryFailureRow.collection_id == collection_id)
            .returning(CarryFailureRow.face_id)
        )
        return len(deleted.all())

    async def list_face_sources(self, collection_id: UUID, digests: Sequence[str]) -> tuple[FaceSource, ...]:
        """Return the faces whose photos have these SHA-256 digests, hexadecimal."""
        query = (
            select(FaceRow.id, FaceRow.source_sha256, func.array_agg(FaceRow.contract_id))
            .where(
                FaceRow.collection_id == collection_id,
                FaceRow.source_sha256.in_([bytes.fromhex(digest) for digest in digests]),
                FaceRow.consent_expires_at > func.now(),
            )
            .group_by(FaceRow.id, FaceRow.source_sha256)
            .order_by(FaceRow.id)
        )
        return tuple(
            FaceSource(face_id, digest.hex(), frozenset(space_ids))
            for face_id, digest, space_ids in await self._session.execute(query)
        )


def _build_unmigrated_filter(collection_id: UUID, space_id: str) -> tuple[ColumnElement[bool], ...]:
    """Return the filter for rows of faces without a template in an embedding space."""
    sibling = aliased(FaceRow)
    return (
        FaceRow.collection_id == collection_id,
        FaceRow.contract_id != space_id,
        FaceRow.consent_expires_at > func.now(),
        ~exists().where(
            sibling.collection_id == collection_id, sibling.id == FaceRow.id, sibling.contract_id == space_id
        ),
    )


def _build_failed_filter(collection_id: UUID, space_id: str) -> ColumnElement[bool]:
    return exists().where(
        CarryFailureRow.collection_id == collection_id,
        CarryFailureRow.face_id == FaceRow.id,
        CarryFailureRow.contract_id == space_id,
    )
