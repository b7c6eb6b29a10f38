"""Faces: the templates, and the exact search among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import ARRAY, Float, Select, Uuid, bindparam, delete, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on

from vultus.db.locks import lock_collection
from vultus.db.repositories import ranking
from vultus.db.repositories.collections import partition_of
from vultus.db.tables import FaceRow
from vultus.db.types import HalfVector
from vultus.domain import Face, FloatArray, Fusion, Graph, NewFace, NumberArray, Quality
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.domain import SearchResult

_QUALITY = (
    FaceRow.size_px,
    FaceRow.sharpness,
    FaceRow.brightness,
    FaceRow.yaw_deg,
    FaceRow.pitch_deg,
    FaceRow.roll_deg,
)
_COLUMNS = (
    FaceRow.id,
    FaceRow.collection_id,
    FaceRow.person_id,
    FaceRow.consent_id,
    FaceRow.contract_id,
    FaceRow.score,
    FaceRow.source_sha256,
    FaceRow.created_at,
    *_QUALITY,
)
_AT_QUALITY = len(_COLUMNS) - len(_QUALITY)


class Faces:
    """The templates of the collections."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_many(self, faces: Sequence[NewFace]) -> tuple[Face, ...]:
        """Enrol templates; all of them or, when one fails, none.

        Raises:
            AlreadyExistsError: A photo is already enrolled for the person.
            NotFoundError: A consent is not live, not the person's, or ends at another moment.
        """
        if not faces:
            return ()
        for collection_id in sorted({face.collection_id for face in faces}):
            await lock_collection(self._session, collection_id)
        rows = await self._session.execute(
            insert(FaceRow).returning(*_COLUMNS, sort_by_parameter_order=True), [_values(face) for face in faces]
        )
        return tuple(map(_face, rows))

    async def get(self, collection_id: UUID, person_id: UUID, face_id: UUID, contract_id: str) -> Face:
        """Return a face of a person, with the quality it has under a contract if it has a template of it.

        Raises:
            NotFoundError: The person has none with this id.
        """
        query = _each_once(collection_id, person_id, contract_id).where(FaceRow.id == face_id)
        row = (await self._session.execute(query)).one_or_none()
        if row is None:
            raise NotFoundError(f"The person has no face with id {face_id}.")
        return _face(row)

    async def page(
        self, collection_id: UUID, person_id: UUID, contract_id: str, after: UUID | None, limit: int
    ) -> tuple[Face, ...]:
        """Return a person's faces in order of enrolment, those after the given id, each once.

        A face with templates of two contracts is that of the given contract.
        """
        query = _each_once(collection_id, person_id, contract_id)
        if after is not None:
            query = query.where(FaceRow.id > after)
        return tuple(map(_face, await self._session.execute(query.limit(limit))))

    async def delete(self, collection_id: UUID, person_id: UUID, face_id: UUID) -> None:
        """Remove a face, whatever contracts it has templates of.

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

    async def delete_by_consent(self, collection_id: UUID, consent_id: UUID) -> int:
        """Remove the faces that rest on a consent; return how many."""
        gone = await self._session.execute(
            delete(FaceRow)
            .where(FaceRow.collection_id == collection_id, FaceRow.consent_id == consent_id)
            .returning(FaceRow.id)
        )
        return len(set(gone.scalars()))

    async def count(self, collection_id: UUID, contract_id: str) -> int:
        """Return how many templates of a contract a search compares now."""
        query = select(func.count()).where(
            FaceRow.collection_id == collection_id,
            FaceRow.contract_id == contract_id,
            FaceRow.consent_expires_at > func.now(),
        )
        return (await self._session.execute(query)).scalar_one()

    async def per_person(self, collection_id: UUID, contract_id: str) -> dict[UUID, int]:
        """Return how many templates of a contract a search compares now, by person; persons without any are absent."""
        query = (
            select(FaceRow.person_id, func.count())
            .where(
                FaceRow.collection_id == collection_id,
                FaceRow.contract_id == contract_id,
                FaceRow.consent_expires_at > func.now(),
            )
            .group_by(FaceRow.person_id)
        )
        return {row[0]: row[1] for row in await self._session.execute(query)}

    async def templates(
        self, collection_id: UUID, contract_id: str, persons: Sequence[UUID]
    ) -> AsyncIterator[tuple[UUID, FloatArray]]:
        """Yield person and (d,) float32 vector of every template of some persons that a search compares now.

        The faces of a person follow each other, in order of enrolment. Vectors leave the database for statistics only.
        """
        query = (
            select(FaceRow.person_id, FaceRow.embedding)
            .where(
                FaceRow.collection_id == collection_id,
                FaceRow.contract_id == contract_id,
                FaceRow.consent_expires_at > func.now(),
                FaceRow.person_id == func.any(bindparam("persons", list(persons), ARRAY(Uuid))),
            )
            .order_by(FaceRow.person_id, FaceRow.id)
        )
        async for row in await self._session.stream(query):
            yield row[0], row[1]

    async def sources_of(self, collection_id: UUID, person_id: UUID) -> set[str]:
        """Return the digests, hexadecimal, of the photos enrolled for a person, under whatever contract."""
        query = select(FaceRow.source_sha256).where(
            FaceRow.collection_id == collection_id, FaceRow.person_id == person_id
        )
        return {digest.hex() for digest in await self._session.scalars(query)}

    async def search(
        self, collection_id: UUID, contract_id: str, probes: FloatArray, limit: int, fusion: Fusion = Fusion.BEST
    ) -> tuple[SearchResult, ...]:
        """Compare probes with every template of a contract in a collection whose consent has not ended.

        Args:
            collection_id: Where to search.
            contract_id: Of the probes.
            probes: (k, d) float32, each row of length 1.
            limit: Candidates a probe.
            fusion: How a person with several faces is compared. For the mean, the `ranking.SHORTLIST` persons more than
                `limit` with the closest faces are compared with the mean of their faces.

        Returns:
            One result a probe, in their order. Similarities are cosines between float16 vectors: 1e-3 at worst, 1e-4
            as a rule, from those between float32 vectors.
        """
        if not len(probes):
            return ()
        values = ranking.values(collection_id, contract_id, probes, limit, fusion)
        return ranking.results(await self._session.execute(ranking.SEARCH[fusion], values), len(probes))

    async def rescore(
        self,
        collection_id: UUID,
        contract_id: str,
        probes: FloatArray,
        proposals: Sequence[NumberArray],
        after: int,
        limit: int,
        fusion: Fusion = Fusion.BEST,
    ) -> tuple[SearchResult, ...]:
        """Compare probes with the templates an index proposes and with all that are newer than the index.

        What is proposed but erased, expired or of another contract is left out.

        Args:
            collection_id: Where to search.
            contract_id: Of the probes.
            probes: (k, d) float32, each row of length 1.
            proposals: (m,) int64 numbers of templates, one array a probe; m may differ.
            after: The greatest number the index has seen; every template with a greater one is compared.
            limit: Candidates a probe.
            fusion: As in `search`, with the persons of the templates that are compared.

        Returns:
            What `search` returns, if the proposals hold the closest templates; its gallery size counts only the newer
            templates.

        Raises:
            NotFoundError: The collection is gone.
        """
        if not len(probes):
            return ()
        ends = np.cumsum([len(numbers) for numbers in proposals])
        values = ranking.values(collection_id, contract_id, probes, limit, fusion) | {
            "after": after,
            "proposals": np.concatenate(proposals).tolist(),
            "ends": ends.tolist(),
        }
        statement = ranking.rescore_in(partition_of(collection_id), fusion)
        return ranking.results(await self._session.execute(statement, values), len(probes))

    async def search_along(
        self, collection_id: UUID, graph: Graph, probes: FloatArray, limit: int, fusion: Fusion = Fusion.BEST
    ) -> tuple[SearchResult, ...]:
        """Compare probes with the templates that are met along a collection's graph, as many as a search wants.

        What is erased or expired is left out. Whoever is not met is not found, however close.

        Args:
            collection_id: Where to search.
            graph: Of the collection.
            probes: (k, d) float32, each row of length 1, of the graph's contract.
            limit: Candidates a probe.
            fusion: As in `search`, with the persons of the templates that are met.

        Returns:
            What `search` returns, of those met; the gallery size is PostgreSQL's estimate for all contracts together.
        """
        if not len(probes):
            return ()
        await self._session.execute(ranking.SET_UP, {"ef_search": str(graph.ef_search)})
        values = ranking.values(collection_id, graph.contract_id, probes, limit, fusion)
        values["partition"] = partition_of(collection_id)
        statement = ranking.search_along(fusion, probes.shape[1])
        return ranking.results(await self._session.execute(statement, values), len(probes))

    async def best_of_person(
        self,
        collection_id: UUID,
        person_id: UUID,
        contract_id: str,
        probe: FloatArray,
        fusion: Fusion = Fusion.BEST,
    ) -> tuple[float, UUID] | None:
        """Return a person's cosine to a (d,) probe and the id of their closest face; None if none can be compared."""
        asked = bindparam("probe", probe, HalfVector)
        distance = FaceRow.embedding.cosine_distance(asked)
        compared = (
            FaceRow.collection_id == collection_id,
            FaceRow.person_id == person_id,
            FaceRow.contract_id == contract_id,
            FaceRow.consent_expires_at > func.now(),
        )
        fused = distance
        if fusion is Fusion.MEAN:
            mean = func.avg(FaceRow.embedding, type_=HalfVector())
            fused = select(mean.op("<=>", return_type=Float())(asked)).where(*compared).scalar_subquery()
        query = select((1 - fused).label("similarity"), FaceRow.id).where(*compared)
        row = (await self._session.execute(query.order_by(distance, FaceRow.id).limit(1))).one_or_none()
        return None if row is None else (row.similarity, row.id)


def _each_once(collection_id: UUID, person_id: UUID, contract_id: str) -> Select[*tuple[Any, ...]]:
    """Select a person's faces, each once, the template of the given contract first, with all contracts it has."""
    contracts = func.array_agg(FaceRow.contract_id).over(partition_by=FaceRow.id).label("contracts")
    return (
        select(*_COLUMNS, contracts)
        .ext(distinct_on(FaceRow.id))
        .where(FaceRow.collection_id == collection_id, FaceRow.person_id == person_id)
        .order_by(FaceRow.id, FaceRow.contract_id != contract_id)
    )


def _values(face: NewFace) -> dict[str, Any]:
    quality = face.quality
    return {
        "id": face.id,
        "collection_id": face.collection_id,
        "person_id": face.person_id,
        "consent_id": face.consent_id,
        "consent_expires_at": face.consent_expires_at,
        "contract_id": face.contract_id,
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
    }


def _face(row: Any) -> Face:
    return Face(
        id=row.id,
        collection_id=row.collection_id,
        person_id=row.person_id,
        consent_id=row.consent_id,
        contract_id=row.contract_id,
        quality=Quality(*row[_AT_QUALITY : len(_COLUMNS)]),
        score=row.score,
        source_sha256=row.source_sha256.hex(),
        created_at=row.created_at,
        contracts=tuple(sorted(getattr(row, "contracts", (row.contract_id,)))),
    )
