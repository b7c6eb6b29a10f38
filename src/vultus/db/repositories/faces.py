"""Stores the templates of faces and searches them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import ARRAY, Float, Select, Uuid, bindparam, delete, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on

from vultus.db.locks import lock_collection
from vultus.db.repositories import ranking
from vultus.db.repositories.collections import get_partition_name
from vultus.db.tables import FaceRow
from vultus.db.types import HalfVector
from vultus.domain import Face, FloatArray, Fusion, HnswGraph, NewFace, NumberArray, Quality
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.db.driver_session import StatementSession
    from vultus.domain import SearchResult

_QUALITY_COLUMNS = (
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
    *_QUALITY_COLUMNS,
)
_QUALITY_OFFSET = len(_COLUMNS) - len(_QUALITY_COLUMNS)


class FaceSearches:
    """Searches that need no transaction."""

    def __init__(self, session: StatementSession) -> None:
        self._session = session

    async def search_exact(
        self, collection_id: UUID, space_id: str, probes: FloatArray, limit: int, fusion: Fusion = Fusion.BEST
    ) -> tuple[SearchResult, ...]:
        """Compare probes with every live template of a collection in an embedding space.

        Args:
            collection_id: Collection to search.
            space_id: Embedding space of the probes.
            probes: (k, d) float32, each row of length 1.
            limit: Maximum number of candidates per probe.
            fusion: How a person with several faces is compared. For the mean, `limit` persons and
                `ranking.MEAN_SHORTLIST_SIZE` more, those with the closest faces, are rescored by their mean embedding.

        Returns:
            One result per probe, in their order. Similarities are cosines between float16 vectors: they differ from
            those between float32 vectors by at most 1e-3, typically 1e-4.
        """
        if not len(probes):
            return ()
        values = ranking.build_parameters(collection_id, space_id, probes, limit, fusion)
        return ranking.build_results(
            await self._session.execute(ranking.SEARCH_STATEMENTS[fusion], values), len(probes)
        )

    async def rescore_proposals(
        self,
        collection_id: UUID,
        space_id: str,
        probes: FloatArray,
        proposals: Sequence[NumberArray],
        after: int,
        limit: int,
        fusion: Fusion = Fusion.BEST,
    ) -> tuple[SearchResult, ...]:
        """Compare probes with the templates an index proposes and with all that are newer than the index.

        Proposals that are erased, expired or in another embedding space are ignored.

        Args:
            collection_id: Collection to search.
            space_id: Embedding space of the probes.
            probes: (k, d) float32, each row of length 1.
            proposals: (m,) int64 template numbers, one array per probe; m may differ.
            after: The greatest number the index contains; every template with a greater one is compared.
            limit: Maximum number of candidates per probe.
            fusion: As in `search_exact`, among the persons of the compared templates.

        Returns:
            The result of `search_exact`, if the proposals include the closest templates; its gallery size counts only
            the newer templates.

        Raises:
            NotFoundError: The collection has been deleted.
        """
        if not len(probes):
            return ()
        ends = np.cumsum([len(numbers) for numbers in proposals])
        values = ranking.build_parameters(collection_id, space_id, probes, limit, fusion) | {
            "after": after,
            "proposals": np.concatenate(proposals).tolist(),
            "ends": ends.tolist(),
        }
        statement = ranking.build_rescore_statement(get_partition_name(collection_id), fusion)
        return ranking.build_results(await self._session.execute(statement, values), len(probes))


class FaceRepository(FaceSearches):
    """Stores and searches templates."""

    _session: AsyncSession

    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session)

    async def add_faces(self, faces: Sequence[NewFace]) -> tuple[Face, ...]:
        """Enrol templates; all of them or, if one fails, none.

        Raises:
            AlreadyExistsError: A photo is already enrolled for the person.
            NotFoundError: A consent is not live, not the person's, or has another expiry.
        """
        if not faces:
            return ()
        for collection_id in sorted({face.collection_id for face in faces}):
            await lock_collection(self._session, collection_id)
        rows = await self._session.execute(
            insert(FaceRow).returning(*_COLUMNS, sort_by_parameter_order=True), [_build_values(face) for face in faces]
        )
        return tuple(map(_build_face, rows))

    async def get_face(self, collection_id: UUID, person_id: UUID, face_id: UUID, space_id: str) -> Face:
        """Return a person's face, with the quality of its template in an embedding space if it has one there.

        Raises:
            NotFoundError: The person has none with this id.
        """
        query = _select_distinct_faces(collection_id, person_id, space_id).where(FaceRow.id == face_id)
        row = (await self._session.execute(query)).one_or_none()
        if row is None:
            raise NotFoundError(f"The person has no face with id {face_id}.")
        return _build_face(row)

    async def list_faces(
        self, collection_id: UUID, person_id: UUID, space_id: str, after: UUID | None, limit: int
    ) -> tuple[Face, ...]:
        """Return a person's faces in order of enrolment, those after the given id, each once.

        A face with templates in two embedding spaces has the values of the given one.
        """
        query = _select_distinct_faces(collection_id, person_id, space_id)
        if after is not None:
            query = query.where(FaceRow.id > after)
        return tuple(map(_build_face, await self._session.execute(query.limit(limit))))

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

    async def count_templates(self, collection_id: UUID, space_id: str) -> int:
        """Return how many templates a search in an embedding space compares now."""
        query = select(func.count()).where(
            FaceRow.collection_id == collection_id,
            FaceRow.contract_id == space_id,
            FaceRow.consent_expires_at > func.now(),
        )
        return (await self._session.execute(query)).scalar_one()

    async def count_templates_by_person(self, collection_id: UUID, space_id: str) -> dict[UUID, int]:
        """Return how many templates a search in an embedding space compares now, by person, without zeros."""
        query = (
            select(FaceRow.person_id, func.count())
            .where(
                FaceRow.collection_id == collection_id,
                FaceRow.contract_id == space_id,
                FaceRow.consent_expires_at > func.now(),
            )
            .group_by(FaceRow.person_id)
        )
        return {row[0]: row[1] for row in await self._session.execute(query)}

    async def stream_templates(
        self, collection_id: UUID, space_id: str, persons: Sequence[UUID]
    ) -> AsyncIterator[tuple[UUID, FloatArray]]:
        """Yield person and (d,) float32 vector of every template of some persons that a search compares now.

        Grouped by person, in order of enrolment. Vectors leave the database for statistics only.
        """
        query = (
            select(FaceRow.person_id, FaceRow.embedding)
            .where(
                FaceRow.collection_id == collection_id,
                FaceRow.contract_id == space_id,
                FaceRow.consent_expires_at > func.now(),
                FaceRow.person_id == func.any(bindparam("persons", list(persons), ARRAY(Uuid))),
            )
            .order_by(FaceRow.person_id, FaceRow.id)
        )
        async for row in await self._session.stream(query):
            yield row[0], row[1]

    async def list_photo_digests(self, collection_id: UUID, person_id: UUID) -> set[str]:
        """Return the digests, hexadecimal, of a person's enrolled photos, in any embedding space."""
        query = select(FaceRow.source_sha256).where(
            FaceRow.collection_id == collection_id, FaceRow.person_id == person_id
        )
        return {digest.hex() for digest in await self._session.scalars(query)}

    async def search_graph(
        self, collection_id: UUID, graph: HnswGraph, probes: FloatArray, limit: int, fusion: Fusion = Fusion.BEST
    ) -> tuple[SearchResult, ...]:
        """Compare probes with the templates visited by the HNSW search, up to the candidate limit.

        Erased and expired templates are ignored. Templates not visited are not found, however close.

        Args:
            collection_id: Collection to search.
            graph: Graph of the collection.
            probes: (k, d) float32, each row of length 1, in the graph's embedding space.
            limit: Maximum number of candidates per probe.
            fusion: As in `search_exact`, among the persons of the visited templates.

        Returns:
            The result of `search_exact` among the visited templates; the gallery size is PostgreSQL's estimate for all
            embedding spaces together.
        """
        if not len(probes):
            return ()
        await self._session.execute(ranking.SET_GRAPH_PARAMETERS, {"ef_search": str(graph.ef_search)})
        values = ranking.build_parameters(collection_id, graph.contract_id, probes, limit, fusion)
        values["partition"] = get_partition_name(collection_id)
        statement = ranking.build_graph_statement(fusion, probes.shape[1])
        return ranking.build_results(await self._session.execute(statement, values), len(probes))

    async def find_person_similarity(
        self,
        collection_id: UUID,
        person_id: UUID,
        space_id: str,
        probe: FloatArray,
        fusion: Fusion = Fusion.BEST,
    ) -> tuple[float, UUID] | None:
        """Return a person's cosine to a (d,) probe and the id of their closest face; None without a live template."""
        probe_value = bindparam("probe", probe, HalfVector)
        distance = FaceRow.embedding.cosine_distance(probe_value)
        compared = (
            FaceRow.collection_id == collection_id,
            FaceRow.person_id == person_id,
            FaceRow.contract_id == space_id,
            FaceRow.consent_expires_at > func.now(),
        )
        fused = distance
        if fusion is Fusion.MEAN:
            mean = func.avg(FaceRow.embedding, type_=HalfVector())
            fused = select(mean.op("<=>", return_type=Float())(probe_value)).where(*compared).scalar_subquery()
        query = select((1 - fused).label("similarity"), FaceRow.id).where(*compared)
        row = (await self._session.execute(query.order_by(distance, FaceRow.id).limit(1))).one_or_none()
        return None if row is None else (row.similarity, row.id)


def _select_distinct_faces(collection_id: UUID, person_id: UUID, space_id: str) -> Select[*tuple[Any, ...]]:
    """Return the query of a person's faces, each once, preferring the template in the given embedding space."""
    space_ids = func.array_agg(FaceRow.contract_id).over(partition_by=FaceRow.id).label("contracts")
    return (
        select(*_COLUMNS, space_ids)
        .ext(distinct_on(FaceRow.id))
        .where(FaceRow.collection_id == collection_id, FaceRow.person_id == person_id)
        .order_by(FaceRow.id, FaceRow.contract_id != space_id)
    )


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
    }


def _build_face(row: Any) -> Face:
    return Face(
        id=row.id,
        collection_id=row.collection_id,
        person_id=row.person_id,
        consent_id=row.consent_id,
        contract_id=row.contract_id,
        quality=Quality(*row[_QUALITY_OFFSET : len(_COLUMNS)]),
        score=row.score,
        source_sha256=row.source_sha256.hex(),
        created_at=row.created_at,
        contracts=tuple(sorted(getattr(row, "contracts", (row.contract_id,)))),
    )
