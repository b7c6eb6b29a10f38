"""Stores the templates of faces, compares probes with them, and reads their vectors.

Everything else knows a template by its face or its number. So how templates lie in the database is decided here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from sqlalchemy import bindparam, delete, func, insert, literal, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA

from vultus.db.copying import ColumnBytes, build_fixed_length_rows, encode_timestamp, encode_vectors, write_rows
from vultus.db.locks import lock_collection
from vultus.db.repositories.collections import get_partition_name
from vultus.db.repositories.faces import FACE_COLUMNS, build_face
from vultus.db.tables import FaceRow
from vultus.db.templates.reading import TemplateReader
from vultus.db.templates.seal import TemplateRow, seal_vectors
from vultus.db.templates.sealed_rows import require_readable
from vultus.db.types import HalfVector
from vultus.utils.ids import new_ids

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.db.repositories.person_keys import PersonKeyRepository
    from vultus.db.templates.seal import TemplateSeal
    from vultus.domain import CodeArray, Face, FloatArray, NewFace
    from vultus.sealing.person_keys import PersonKey

DELETE_BATCH_SIZE = 20_000
_UNKNOWN_QUALITY_COLUMNS = ("size_px", "sharpness", "brightness", "yaw_deg", "pitch_deg", "roll_deg", "score")
"""Quality columns that need a photo; stored as 0 for imported vectors."""
_TEMPLATE_COLUMNS = {"contract_id", "embedding", "sealed", "code", "number"}
_SHARED_COLUMNS = tuple(column for column in FaceRow.__table__.columns if column.name not in _TEMPLATE_COLUMNS)
"""Columns whose values the templates of a face share."""


class TemplateStore(TemplateReader):
    """Stores templates: as vectors or, in a sealed collection, sealed by keys of their persons, whom it gives them."""

    def __init__(
        self, session: AsyncSession, seal: TemplateSeal, person_keys: PersonKeyRepository, *, is_snapshot: bool = False
    ) -> None:
        super().__init__(session, seal, is_snapshot=is_snapshot)
        self._person_keys = person_keys

    async def add_templates(self, faces: Sequence[NewFace]) -> tuple[Face, ...]:
        """Enrol templates; all of them or, if one fails, none.

        Raises:
            AlreadyExistsError: A photo is already enrolled for the person.
            NotFoundError: A consent is not live, not the person's, or has another expiry.
            KeyRingError: The collection is sealed, and the keys cannot be used.
        """
        if not faces:
            return ()
        values = [_build_values(face) for face in faces]
        for collection_id in sorted({face.collection_id for face in faces}):
            await lock_collection(self._session, collection_id)
            if await self._rows.is_sealed(collection_id):
                there = [at for at, face in enumerate(faces) if face.collection_id == collection_id]
                keys = await self._person_keys.ensure_keys([faces[at].person_id for at in there])
                for at in there:
                    values[at] |= _seal_face(faces[at], keys)
        rows = await self._session.execute(
            insert(FaceRow).returning(*FACE_COLUMNS, sort_by_parameter_order=True), values
        )
        return tuple(map(build_face, rows))

    async def import_templates(
        self,
        collection_id: UUID,
        space_id: str,
        *,
        persons: ColumnBytes,
        consents: ColumnBytes,
        expires_at: datetime | None,
        vectors: FloatArray,
        sources: ColumnBytes,
        codes: CodeArray | None = None,
    ) -> None:
        """Enrol one template per row, without quality measurements.

        Args:
            collection_id: The collection; its lock is held from here on.
            space_id: Embedding space of the vectors.
            persons: (n, 16) person ids.
            consents: (n, 16) ids of a live consent of each person.
            expires_at: Expiry of these consents; None for no end.
            vectors: (n, d) float32, each row of length 1; stored as float16.
            sources: (n, 32) SHA-256 of each vector's source.
            codes: (n, width) codes of the vectors, for an index; None leaves them to be computed later. A sealed
                collection keeps none.

        Raises:
            KeyRingError: The collection is sealed, and the keys cannot be used.
            AlreadyExistsError: A source is already enrolled for its person.
            NotFoundError: A consent is not live, not the person's, or has another expiry.
        """
        await lock_collection(self._session, collection_id)
        ids = new_ids(len(vectors))
        stored: dict[str, ColumnBytes | None]
        if await self._rows.is_sealed(collection_id):
            stored = {"sealed": await self._seal_columns(collection_id, space_id, persons, ids, vectors)}
        else:
            stored = {"embedding": encode_vectors(vectors), "code": codes}
        columns: dict[str, ColumnBytes | bytes | None] = {
            "collection_id": collection_id.bytes,
            "id": ids,
            "person_id": persons,
            "consent_id": consents,
            "consent_expires_at": encode_timestamp(expires_at),
            "contract_id": space_id.encode(),
            "source_sha256": sources,
            **stored,
            **dict.fromkeys(_UNKNOWN_QUALITY_COLUMNS, bytes(4)),
        }
        await write_rows(self._session, "faces", columns, build_fixed_length_rows(columns.values()))

    async def add_second_template(self, collection_id: UUID, face_id: UUID, space_id: str, vector: FloatArray) -> bool:
        """Add a face's template in a further embedding space, with its quality, source and consent.

        Args:
            collection_id: Collection of the face; its lock is held from here on.
            face_id: The face.
            space_id: Embedding space of the vector.
            vector: (d,) float32 of length 1.

        Returns:
            False if the face has been deleted, its consent has ended, or it already has such a template.
        """
        await lock_collection(self._session, collection_id)
        stored: dict[str, Any] = {"embedding": bindparam("vector", vector, HalfVector)}
        if await self._rows.is_sealed(collection_id):
            owner = select(FaceRow.person_id).where(FaceRow.collection_id == collection_id, FaceRow.id == face_id)
            person_id = (await self._session.execute(owner.limit(1))).scalar_one_or_none()
            if person_id is None:
                return False
            keys = await self._person_keys.ensure_keys([person_id])
            (sealed,) = seal_vectors(collection_id, space_id, [(person_id, face_id)], vector[None], keys)
            stored = {"sealed": literal(sealed, BYTEA)}
        given = (literal(space_id), *stored.values())
        added = await self._session.execute(
            postgresql.insert(FaceRow)
            .from_select(
                [*(column.name for column in _SHARED_COLUMNS), "contract_id", *stored],
                select(*_SHARED_COLUMNS, *given).where(
                    FaceRow.collection_id == collection_id,
                    FaceRow.id == face_id,
                    FaceRow.consent_expires_at > func.now(),
                ),
                include_defaults=False,
            )
            .on_conflict_do_nothing()
            .returning(FaceRow.id)
        )
        return added.one_or_none() is not None

    async def delete_templates(self, collection_id: UUID, space_id: str) -> int:
        """Delete the templates of an embedding space, in batches; return how many."""
        in_space = (FaceRow.collection_id == collection_id, FaceRow.contract_id == space_id)
        deleted_count = 0
        while True:  # in batches, so that a large gallery does not exceed the statement timeout
            batch = select(FaceRow.id).where(*in_space).limit(DELETE_BATCH_SIZE)
            deleted = await self._session.execute(
                delete(FaceRow).where(*in_space, FaceRow.id.in_(batch)).returning(FaceRow.id)
            )
            deleted_count += (batch_count := len(deleted.all()))
            if batch_count < DELETE_BATCH_SIZE:
                return deleted_count

    async def delete_sealed_templates(self, collection_id: UUID, person_id: UUID) -> list[UUID]:
        """Delete what is sealed of a person's templates; return the faces that have none any more."""
        of_person = (FaceRow.collection_id == collection_id, FaceRow.person_id == person_id)
        deleted = await self._session.execute(
            delete(FaceRow).where(*of_person, FaceRow.sealed.is_not(None)).returning(FaceRow.id)
        )
        faces = set(deleted.scalars())
        return sorted(faces.difference((await self._session.execute(select(FaceRow.id).where(*of_person))).scalars()))

    async def seal_open_templates(self, collection_id: UUID, after: int, limit: int) -> tuple[int, int]:
        """Seal templates that were stored before their collection was sealed, in ascending order of number.

        Args:
            collection_id: A sealed collection; its lock is held from here on.
            after: Those with greater numbers.
            limit: How many at most.

        Returns:
            How many were sealed, and the number of the last; (0, after) if none is left.

        Raises:
            KeyRingError: The keys cannot be used.
        """
        await lock_collection(self._session, collection_id)
        partition = get_partition_name(collection_id)
        query = text(
            f"SELECT contract_id, number, person_id, id, embedding, sealed FROM {partition}"  # noqa: S608
            " WHERE number > :after AND sealed IS NULL ORDER BY number LIMIT :limit"
        )
        found = list(await self._session.execute(query, {"after": after, "limit": limit}))
        if not found:
            return 0, after
        keys = await self._person_keys.ensure_keys([row.person_id for row in found])
        for space_id in {row.contract_id for row in found}:
            rows = [TemplateRow(*row[1:]) for row in found if row.contract_id == space_id]
            vectors = np.stack([row.vector for row in rows if row.vector is not None])
            await self._update_sealed(collection_id, space_id, rows, vectors, keys)
        return len(found), found[-1].number

    async def reseal_templates(
        self, collection_id: UUID, changes: Mapping[UUID, tuple[PersonKey, PersonKey]]
    ) -> dict[UUID, int]:
        """Seal the sealed templates of persons, expired ones too, by their new keys; return how many each has.

        Args:
            collection_id: Their collection; its lock is held from here on.
            changes: The old and the new key of each person.

        Raises:
            KeyRingError: One cannot be opened, or the keys cannot be used.
        """
        await lock_collection(self._session, collection_id)
        query = text(
            "SELECT contract_id, number, person_id, id, embedding, sealed"  # noqa: S608  made of the id
            f" FROM {get_partition_name(collection_id)} WHERE collection_id = CAST(:collection AS uuid)"
            " AND person_id = ANY (CAST(:persons AS uuid[])) AND sealed IS NOT NULL"
        )
        found = list(await self._session.execute(query, {"collection": collection_id, "persons": list(changes)}))
        counts = dict.fromkeys(changes, 0)
        keys = {person_id: new for person_id, (_, new) in changes.items()}
        for space_id in {row.contract_id for row in found}:
            rows = [TemplateRow(*row[1:]) for row in found if row.contract_id == space_id]
            opened = require_readable(await self._seal.open(collection_id, space_id, rows))
            await self._update_sealed(collection_id, space_id, opened.rows, opened.vectors, keys)
            for row in rows:
                counts[row.person_id] += 1
        return counts

    async def _update_sealed(
        self,
        collection_id: UUID,
        space_id: str,
        rows: Sequence[TemplateRow],
        vectors: FloatArray,
        keys: Mapping[UUID, PersonKey],
    ) -> None:
        faces = [(row.person_id, row.face_id) for row in rows]
        sealed = await asyncio.to_thread(seal_vectors, collection_id, space_id, faces, vectors, keys)
        statement = text(_UPDATE_SEALED.format(partition=get_partition_name(collection_id)))
        await self._session.execute(
            statement.bindparams(bindparam("sealed", type_=ARRAY(BYTEA))),
            {"numbers": [row.number for row in rows], "sealed": sealed},
        )

    async def _seal_columns(
        self, collection_id: UUID, space_id: str, persons: ColumnBytes, ids: ColumnBytes, vectors: FloatArray
    ) -> ColumnBytes:
        """Return the column of many sealed templates."""
        owners, faces = ([UUID(bytes=bytes(one)) for one in column] for column in (persons, ids))
        keys = await self._person_keys.ensure_keys(owners)
        pairs = list(zip(owners, faces, strict=True))
        sealed = await asyncio.to_thread(seal_vectors, collection_id, space_id, pairs, vectors, keys)
        return np.frombuffer(b"".join(sealed), np.uint8).reshape(len(sealed), -1)


# The number stays: an index that holds it holds the same vector.
_UPDATE_SEALED = """
    UPDATE {partition} SET embedding = NULL, code = NULL, sealed = given.sealed
    FROM unnest(CAST(:numbers AS bigint[]), CAST(:sealed AS bytea[])) AS given (number, sealed)
    WHERE {partition}.number = given.number
"""


def _seal_face(face: NewFace, keys: Mapping[UUID, PersonKey]) -> dict[str, bytes | None]:
    """Return the columns by which the row of a sealed collection differs."""
    faces, vectors = [(face.person_id, face.id)], face.vector[None]
    (sealed,) = seal_vectors(face.collection_id, face.space_id, faces, vectors, keys)
    return {"embedding": None, "code": None, "sealed": sealed}


def _build_values(face: NewFace) -> dict[str, Any]:
    quality = face.quality
    return {
        "id": face.id,
        "collection_id": face.collection_id,
        "person_id": face.person_id,
        "consent_id": face.consent_id,
        "consent_expires_at": face.consent_expires_at,
        "contract_id": face.space_id,
        "embedding": face.vector,
        "size_px": quality.size_px,
        "sharpness": quality.sharpness,
        "brightness": quality.brightness,
        "yaw_deg": quality.yaw_deg,
        "pitch_deg": quality.pitch_deg,
        "roll_deg": quality.roll_deg,
        "score": face.score,
        "source_sha256": bytes.fromhex(face.source_sha256),
        "code": face.code,
        **({} if face.created_at is None else {"created_at": face.created_at}),
    }
