"""Stores the templates of faces, compares probes with them, and reads their vectors.

Everything else knows a template by its face or its number. So how templates lie in the database is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import ARRAY, Float, Uuid, bindparam, delete, func, insert, literal, select, text
from sqlalchemy.dialects import postgresql

from vultus.db.copying import (
    ColumnBytes,
    build_fixed_length_rows,
    convert_to_integers,
    convert_to_vectors,
    encode_timestamp,
    encode_vectors,
    read_columns,
    write_rows,
)
from vultus.db.locks import lock_collection
from vultus.db.repositories.codes import PARTITIONS, ROW_COUNT_ESTIMATE
from vultus.db.repositories.collections import get_partition_name
from vultus.db.repositories.faces import FACE_COLUMNS, build_face
from vultus.db.tables import FaceRow
from vultus.db.templates import leave_one_out, ranking
from vultus.db.templates.searches import TemplateSearches
from vultus.db.types import HalfVector
from vultus.domain import (
    CodeArray,
    EnrolledFace,
    Face,
    FloatArray,
    Fusion,
    HnswGraph,
    LeaveOneOutResult,
    NewFace,
    NumberArray,
)
from vultus.utils.ids import new_ids

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.sql.elements import ColumnElement

    from vultus.domain import SearchResult

DELETE_BATCH_SIZE = 20_000
_UNKNOWN_QUALITY_COLUMNS = ("size_px", "sharpness", "brightness", "yaw_deg", "pitch_deg", "roll_deg", "score")
"""Quality columns that need a photo; stored as 0 for imported vectors."""
_TEMPLATE_COLUMNS = {"contract_id", "embedding", "code", "number"}
_SHARED_COLUMNS = tuple(column for column in FaceRow.__table__.columns if column.name not in _TEMPLATE_COLUMNS)
"""Columns whose values the templates of a face share."""


class TemplateStore(TemplateSearches):
    """Stores templates, compares probes with them, and hands their vectors to statistics and encoders."""

    _session: AsyncSession

    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session)

    async def add_templates(self, faces: Sequence[NewFace]) -> tuple[Face, ...]:
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
            insert(FaceRow).returning(*FACE_COLUMNS, sort_by_parameter_order=True),
            [_build_values(face) for face in faces],
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
            codes: (n, width) codes of the vectors, for an index; None leaves them to be computed later.

        Raises:
            AlreadyExistsError: A source is already enrolled for its person.
            NotFoundError: A consent is not live, not the person's, or has another expiry.
        """
        await lock_collection(self._session, collection_id)
        columns: dict[str, ColumnBytes | bytes | None] = {
            "collection_id": collection_id.bytes,
            "id": new_ids(len(vectors)),
            "person_id": persons,
            "consent_id": consents,
            "consent_expires_at": encode_timestamp(expires_at),
            "contract_id": space_id.encode(),
            "embedding": encode_vectors(vectors),
            "source_sha256": sources,
            "code": codes,
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
        given = (literal(space_id), bindparam("vector", vector, HalfVector))
        added = await self._session.execute(
            postgresql.insert(FaceRow)
            .from_select(
                [*(column.name for column in _SHARED_COLUMNS), "contract_id", "embedding"],
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

    async def count_templates(self, collection_id: UUID, space_id: str) -> int:
        """Return how many templates a search in an embedding space compares now."""
        query = select(func.count()).where(*_build_live_filter(collection_id, space_id))
        return (await self._session.execute(query)).scalar_one()

    async def count_templates_by_person(self, collection_id: UUID, space_id: str) -> dict[UUID, int]:
        """Return how many templates a search in an embedding space compares now, by person, without zeros."""
        query = (
            select(FaceRow.person_id, func.count())
            .where(*_build_live_filter(collection_id, space_id))
            .group_by(FaceRow.person_id)
        )
        return {row[0]: row[1] for row in await self._session.execute(query)}

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
        compared = (*_build_live_filter(collection_id, space_id), FaceRow.person_id == person_id)
        fused = distance
        if fusion is Fusion.MEAN:
            mean = func.avg(FaceRow.embedding, type_=HalfVector())
            fused = select(mean.op("<=>", return_type=Float())(probe_value)).where(*compared).scalar_subquery()
        query = select((1 - fused).label("similarity"), FaceRow.id).where(*compared)
        row = (await self._session.execute(query.order_by(distance, FaceRow.id).limit(1))).one_or_none()
        return None if row is None else (row.similarity, row.id)

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

    async def search_leave_one_out(
        self, collection_id: UUID, space_id: str, face_ids: Sequence[UUID]
    ) -> dict[UUID, LeaveOneOutResult]:
        """Search for each of some faces among all other faces of the collection; return results by face id."""
        values = {"collection": collection_id, "contract": space_id, "faces": list(face_ids)}
        found: dict[UUID, LeaveOneOutResult] = {}
        for row in await self._session.execute(leave_one_out.SEARCH_STATEMENT, values):
            before = found.get(row.face_id)
            candidates = before.candidates if before else ()
            if row.candidate_id is not None:
                candidates = (*candidates, (row.candidate_id, row.similarity))
            found[row.face_id] = LeaveOneOutResult(row.face_id, row.person_id, candidates, row.has_mate)
        return found

    async def find_closest_other_face(
        self, collection_id: UUID, space_id: str, face: EnrolledFace, *, ef_search: int | None = None
    ) -> tuple[UUID, float] | None:
        """Return person and cosine of the closest other face; None if there is none.

        Args:
            collection_id: Collection to search.
            space_id: Embedding space of the templates.
            face: The probe, excluded from the gallery.
            ef_search: Candidates of an HNSW search; None compares every face.
        """
        values = {"collection": collection_id, "contract": space_id, "face": face.face_id, "probe": face.vector}
        cast = ""
        if ef_search is not None:
            await self._session.execute(ranking.SET_GRAPH_PARAMETERS, {"ef_search": str(ef_search)})
            cast = f"::halfvec({len(face.vector)})"
        row = (await self._session.execute(leave_one_out.build_closest_other_statement(cast), values)).one_or_none()
        return None if row is None else (row.person_id, row.similarity)

    async def stream_templates(
        self, collection_id: UUID, space_id: str, persons: Sequence[UUID]
    ) -> AsyncIterator[tuple[UUID, FloatArray]]:
        """Yield person and (d,) float32 vector of every template of some persons that a search compares now.

        Grouped by person, in order of enrolment. Vectors leave the database for statistics only.
        """
        query = (
            select(FaceRow.person_id, FaceRow.embedding)
            .where(
                *_build_live_filter(collection_id, space_id),
                FaceRow.person_id == func.any(bindparam("persons", list(persons), ARRAY(Uuid))),
            )
            .order_by(FaceRow.person_id, FaceRow.id)
        )
        async for row in await self._session.stream(query):
            yield row[0], row[1]

    async def list_person_templates(
        self, collection_id: UUID, person_id: UUID
    ) -> tuple[tuple[UUID, str, FloatArray], ...]:
        """Return face, embedding space and (d,) float32 vector of a person's live templates, for their export."""
        query = (
            select(FaceRow.id, FaceRow.contract_id, FaceRow.embedding)
            .where(
                FaceRow.collection_id == collection_id,
                FaceRow.person_id == person_id,
                FaceRow.consent_expires_at > func.now(),
            )
            .order_by(FaceRow.id, FaceRow.contract_id)
        )
        return tuple((row[0], row[1], row[2]) for row in await self._session.execute(query))

    async def sample_templates(
        self, collection_id: UUID, space_id: str, *, min_faces: int, count: int
    ) -> tuple[EnrolledFace, ...]:
        """Return a deterministic pseudo-random sample: one face per person with at least `min_faces` live faces."""
        values = {"collection": collection_id, "contract": space_id, "least": min_faces, "count": count}
        rows = await self._session.execute(leave_one_out.SAMPLE_STATEMENT, values)
        return tuple(EnrolledFace(*row) for row in rows)

    async def sample_vectors(self, collection_id: UUID, space_id: str, count: int) -> FloatArray:
        """Return a random sample of up to (count, d) float32 vectors of a collection; (0, 0) if it has none."""
        rows = max((await self._session.execute(_ESTIMATE_ROWS, {"collection": collection_id})).scalar_one(), 1)
        percent = min(100.0, 200.0 * count / rows)
        # SYSTEM samples whole pages: twice as many rows as needed are drawn, then chosen at random.
        columns = await read_columns(
            self._session,
            f"SELECT embedding FROM faces TABLESAMPLE SYSTEM ({percent:.6f}) WHERE collection_id = $1"  # noqa: S608  a number
            " AND contract_id = $2 ORDER BY random() LIMIT $3",
            collection_id,
            space_id,
            count,
        )
        return convert_to_vectors(columns[0]) if columns else np.empty((0, 0), np.float32)

    async def list_uncoded_templates(
        self, collection_id: UUID, space_id: str, after: int, limit: int
    ) -> tuple[NumberArray, FloatArray]:
        """Return (n,) numbers and (n, d) float32 vectors of templates without a code, in ascending order of number.

        Only templates with a number above `after`; (0,) and (0, 0) without any.
        """
        query = (  # the partition is queried directly; see `ranking.py`
            f"SELECT number, embedding FROM {get_partition_name(collection_id)} WHERE contract_id = $1"  # noqa: S608
            " AND number > $2 AND code IS NULL ORDER BY number LIMIT $3"
        )
        columns = await read_columns(self._session, query, space_id, after, limit)
        if not columns:
            return np.empty(0, np.int64), np.empty((0, 0), np.float32)
        return convert_to_integers(columns[0]), convert_to_vectors(columns[1])


def _build_live_filter(collection_id: UUID, space_id: str) -> tuple[ColumnElement[bool], ...]:
    """Return the filter for the templates that a search in an embedding space compares now."""
    return (
        FaceRow.collection_id == collection_id,
        FaceRow.contract_id == space_id,
        FaceRow.consent_expires_at > func.now(),
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


_ESTIMATE_ROWS = text(
    f"SELECT {ROW_COUNT_ESTIMATE} FROM {PARTITIONS}"  # noqa: S608
    " WHERE relname = 'faces_' || replace(CAST(:collection AS uuid)::text, '-', '')"
).bindparams(bindparam("collection", type_=Uuid))
