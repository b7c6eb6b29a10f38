"""Faces on their way to another contract: which are missing, which could not be carried, and the new templates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, exists, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from vultus.db.locks import lock_collection
from vultus.db.tables import CarryFailureRow, CropRow, FaceRow
from vultus.db.types import HalfVector
from vultus.domain import Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.sql.elements import ColumnElement

    from vultus.domain import FloatArray

_OWN = {"contract_id", "embedding", "code", "number"}
_COPIED = tuple(column for column in FaceRow.__table__.columns if column.name not in _OWN)


class Carrying:
    """Moves faces between the contracts of their collection."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def pending(self, collection_id: UUID, contract_id: str, after: UUID | None, limit: int) -> tuple[UUID, ...]:
        """Return faces without a template of a contract that nobody has tried to carry, those after the given id."""
        query = (
            select(FaceRow.id)
            .where(*_lacking(collection_id, contract_id), ~_failed(collection_id, contract_id))
            .order_by(FaceRow.id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(FaceRow.id > after)
        return tuple(await self._session.scalars(query))

    async def fail_without_crop(self, collection_id: UUID, contract_id: str) -> int:
        """Record that faces without a crop cannot be carried by themselves; return how many."""
        kept = exists().where(CropRow.collection_id == collection_id, CropRow.face_id == FaceRow.id)
        columns = ("collection_id", "face_id", "contract_id", "reason")
        failed = await self._session.execute(
            insert(CarryFailureRow)
            .from_select(
                columns,
                select(FaceRow.collection_id, FaceRow.id, literal(contract_id), literal("no_crop")).where(
                    *_lacking(collection_id, contract_id), ~kept
                ),
                include_defaults=False,
            )
            .on_conflict_do_nothing()
            .returning(CarryFailureRow.face_id)
        )
        return len(failed.all())

    async def fail(self, collection_id: UUID, face_id: UUID, contract_id: str, reason: str) -> None:
        """Record why a face could not be carried.

        Raises:
            NotFoundError: The face is gone.
        """
        values = {"collection_id": collection_id, "face_id": face_id, "contract_id": contract_id, "reason": reason}
        await self._session.execute(
            insert(CarryFailureRow)
            .values(**values)
            .on_conflict_do_update(constraint="pk_carry_failures", set_={"reason": reason, "at": func.now()})
        )

    async def forget_failures(self, collection_id: UUID) -> int:
        """Let faces that could not be carried be tried again; return how many."""
        gone = await self._session.execute(
            delete(CarryFailureRow)
            .where(CarryFailureRow.collection_id == collection_id)
            .returning(CarryFailureRow.face_id)
        )
        return len(gone.all())

    async def carry(self, collection_id: UUID, face_id: UUID, contract_id: str, vector: FloatArray) -> bool:
        """Give a face a template of a further contract, beside the one it has, with its quality, source and consent.

        Args:
            collection_id: Of the face; held from here on.
            face_id: Which face.
            contract_id: Of the vector.
            vector: (d,) float32 of length 1.

        Returns:
            False if the face is gone, its consent has ended, or it has such a template.
        """
        await lock_collection(self._session, collection_id)
        given = (literal(contract_id), bindparam("vector", vector, HalfVector))
        added = await self._session.execute(
            insert(FaceRow)
            .from_select(
                [*(column.name for column in _COPIED), "contract_id", "embedding"],
                select(*_COPIED, *given).where(
                    FaceRow.collection_id == collection_id,
                    FaceRow.id == face_id,
                    FaceRow.consent_expires_at > func.now(),
                ),
                include_defaults=False,
            )
            .on_conflict_do_nothing()
            .returning(FaceRow.id)
        )
        await self._session.execute(
            delete(CarryFailureRow).where(
                CarryFailureRow.collection_id == collection_id,
                CarryFailureRow.face_id == face_id,
                CarryFailureRow.contract_id == contract_id,
            )
        )
        return added.one_or_none() is not None

    async def sources(self, collection_id: UUID, digests: Sequence[str]) -> tuple[Source, ...]:
        """Return the faces that came from photos with these SHA-256, hexadecimal."""
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
            Source(face_id, digest.hex(), frozenset(contracts))
            for face_id, digest, contracts in await self._session.execute(query)
        )


def _lacking(collection_id: UUID, contract_id: str) -> tuple[ColumnElement[bool], ...]:
    """Return what holds for the rows of faces that have no template of a contract."""
    there = aliased(FaceRow)
    return (
        FaceRow.collection_id == collection_id,
        FaceRow.contract_id != contract_id,
        FaceRow.consent_expires_at > func.now(),
        ~exists().where(there.collection_id == collection_id, there.id == FaceRow.id, there.contract_id == contract_id),
    )


def _failed(collection_id: UUID, contract_id: str) -> ColumnElement[bool]:
    return exists().where(
        CarryFailureRow.collection_id == collection_id,
        CarryFailureRow.face_id == FaceRow.id,
        CarryFailureRow.contract_id == contract_id,
    )
