"""Reads templates in a transaction: for one person, statistics, measurements and encoders."""

from __future__ import annotations

from contextlib import aclosing
from operator import itemgetter
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
from sqlalchemy import ARRAY, Float, Uuid, bindparam, func, select, text

from vultus.db.copying import convert_to_integers, convert_to_vectors, read_column_blocks, read_columns
from vultus.db.repositories.codes import PARTITIONS, ROW_COUNT_ESTIMATE
from vultus.db.repositories.collections import get_partition_name
from vultus.db.tables import FaceRow
from vultus.db.templates import leave_one_out, ranking
from vultus.db.templates.seal import OpenedTemplates, TemplateRow
from vultus.db.templates.sealed_rows import require_readable
from vultus.db.templates.sealed_search import find_similarity
from vultus.db.templates.searches import TemplateSearches
from vultus.db.types import HalfVector
from vultus.domain import EnrolledFace, FloatArray, Fusion, HnswGraph, LeaveOneOutResult, NumberArray

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.sql.elements import ColumnElement

    from vultus.db.copying import ColumnBytes
    from vultus.domain import SearchResult

STREAMED_ROWS = 1_000
_TEMPLATE_COLUMNS = (FaceRow.number, FaceRow.person_id, FaceRow.id, FaceRow.embedding, FaceRow.sealed)


class TemplateReader(TemplateSearches):
    """Compares probes with templates, and hands their vectors to statistics and encoders."""

    _session: AsyncSession

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
        """Return a person's cosine to a (d,) probe and the id of their closest face; None without a live template.

        Raises:
            KeyRingError: A template of theirs is sealed and cannot be opened.
        """
        probe_value = bindparam("probe", probe, HalfVector)
        distance = FaceRow.embedding.cosine_distance(probe_value)
        compared = (*_build_live_filter(collection_id, space_id), FaceRow.person_id == person_id)
        fused = distance
        if fusion is Fusion.MEAN:
            mean = func.avg(FaceRow.embedding, type_=HalfVector())
            fused = select(mean.op("<=>", return_type=Float())(probe_value)).where(*compared).scalar_subquery()
        sealed = func.count(FaceRow.sealed).over().label("sealed")
        query = select((1 - fused).label("similarity"), FaceRow.id, sealed).where(*compared)
        row = (await self._session.execute(query.order_by(distance, FaceRow.id).limit(1))).one_or_none()
        if row is None or not row.sealed:
            return None if row is None else (row.similarity, row.id)
        found = await self._rows.read_of_persons(collection_id, space_id, [person_id])
        return find_similarity(require_readable(found), probe, fusion)

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
        """Search for each of some faces among all other faces of the collection; return results by face id.

        Raises:
            KeyRingError: A template is sealed and cannot be opened.
        """
        if await self._rows.is_sealed(collection_id):
            return await self._sealed_searches.search_leave_one_out(collection_id, space_id, face_ids)
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

        Raises:
            KeyRingError: One is sealed and cannot be opened.
        """
        query = (
            select(*_TEMPLATE_COLUMNS)
            .where(
                *_build_live_filter(collection_id, space_id),
                FaceRow.person_id == func.any(bindparam("persons", list(persons), ARRAY(Uuid))),
            )
            .order_by(FaceRow.person_id, FaceRow.id)
        )
        async for rows in (await self._session.stream(query)).partitions(STREAMED_ROWS):
            opened = await self._rows.open(collection_id, space_id, [TemplateRow(*row) for row in rows])
            found = require_readable(opened)
            for row, vector in _list_in_order(found):
                yield row.person_id, vector

    async def list_person_templates(
        self, collection_id: UUID, person_id: UUID
    ) -> tuple[tuple[UUID, str, FloatArray], ...]:
        """Return face, embedding space and (d,) float32 vector of a person's live templates, for their export.

        Raises:
            KeyRingError: One is sealed and cannot be opened.
        """
        query = select(FaceRow.contract_id, *_TEMPLATE_COLUMNS).where(
            FaceRow.collection_id == collection_id,
            FaceRow.person_id == person_id,
            FaceRow.consent_expires_at > func.now(),
        )
        by_space: dict[str, list[TemplateRow]] = {}
        for row in await self._session.execute(query):
            by_space.setdefault(row[0], []).append(TemplateRow(*row[1:]))
        listed = []
        for space_id, rows in by_space.items():
            found = require_readable(await self._rows.open(collection_id, space_id, rows))
            listed += [(row.face_id, space_id, vector) for row, vector in _list_in_order(found)]
        return tuple(sorted(listed, key=itemgetter(0, 1)))

    async def list_templates_of(
        self, collection_id: UUID, space_id: str, persons: Sequence[UUID]
    ) -> dict[UUID, FloatArray]:
        """Return the (d,) float32 vectors of the live templates of some persons, by face, for a bundle.

        Raises:
            KeyRingError: One is sealed and cannot be opened.
        """
        query = select(*_TEMPLATE_COLUMNS).where(
            *_build_live_filter(collection_id, space_id),
            FaceRow.person_id == func.any(bindparam("persons", list(persons), ARRAY(Uuid))),
        )
        rows = [TemplateRow(*row) for row in await self._session.execute(query)]
        found = require_readable(await self._rows.open(collection_id, space_id, rows))
        return {row.face_id: vector for row, vector in zip(found.rows, found.vectors, strict=True)}

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
        if await self._rows.is_sealed(collection_id):
            drawn = text(_SAMPLE_ROWS.format(partition=get_partition_name(collection_id), percent=percent))
            sample = await self._session.execute(drawn, {"contract": space_id, "count": count})
            opened = await self._rows.open(collection_id, space_id, [TemplateRow(*row) for row in sample])
            return opened.vectors
        # SYSTEM samples whole pages: twice as many rows as needed are drawn, then chosen at random.
        columns = await read_columns(
            self._session,
            f"SELECT embedding FROM faces TABLESAMPLE SYSTEM ({percent:.6f}) WHERE collection_id = $1"  # noqa: S608  a number
            " AND contract_id = $2 AND sealed IS NULL ORDER BY random() LIMIT $3",
            collection_id,
            space_id,
            count,
        )
        return convert_to_vectors(columns[0]) if columns else np.empty((0, 0), np.float32)

    async def list_uncoded_templates(
        self, collection_id: UUID, space_id: str, after: int, limit: int
    ) -> tuple[NumberArray, FloatArray]:
        """Return (n,) numbers and (n, d) float32 vectors of templates without a code, in ascending order of number.

        Only templates with a number above `after`; (0,) and (0, 0) without any. A sealed one never has a code.
        """
        query = (  # the partition is queried directly; see `ranking.py`
            f"SELECT number, embedding FROM {get_partition_name(collection_id)} WHERE contract_id = $1"  # noqa: S608
            " AND number > $2 AND code IS NULL AND sealed IS NULL ORDER BY number LIMIT $3"
        )
        columns = await read_columns(self._session, query, space_id, after, limit)
        if not columns:
            return np.empty(0, np.int64), np.empty((0, 0), np.float32)
        return convert_to_integers(columns[0]), convert_to_vectors(columns[1])

    async def stream_vectors(
        self, collection_id: UUID, space_id: str, after: int
    ) -> AsyncGenerator[tuple[NumberArray, FloatArray, NumberArray]]:
        """Yield (n,) numbers and (n, d) vectors of templates of either kind, with numbers above `after`, in any order.

        The third array has the numbers of those that did not open; in a snapshot, of a person who was erased or has
        another key by now. Two COPYs: the transaction has no statement timeout from here on.
        """
        templates = f"FROM {get_partition_name(collection_id)} WHERE contract_id = $1 AND number > $2"
        values = space_id, after
        async with aclosing(
            read_column_blocks(self._session, f"SELECT number, embedding {templates} AND sealed IS NULL", *values)
        ) as blocks:
            async for numbers, vectors in blocks:
                yield convert_to_integers(numbers), convert_to_vectors(vectors), np.empty(0, np.int64)
        query = f"SELECT number, person_id, id, sealed {templates} AND sealed IS NOT NULL"
        async with aclosing(read_column_blocks(self._session, query, *values)) as blocks:
            async for block in blocks:
                found = await self._seal.open(collection_id, space_id, _build_rows(block))
                opened, unreadable = (
                    np.array([row.number for row in rows], np.int64) for rows in (found.rows, found.unreadable)
                )
                yield opened, found.vectors, unreadable


def _build_live_filter(collection_id: UUID, space_id: str) -> tuple[ColumnElement[bool], ...]:
    """Return the filter for the templates that a search in an embedding space compares now."""
    return (
        FaceRow.collection_id == collection_id,
        FaceRow.contract_id == space_id,
        FaceRow.consent_expires_at > func.now(),
    )


def _build_rows(columns: Sequence[ColumnBytes]) -> list[TemplateRow]:
    numbers, persons, faces, sealed = columns
    return [
        TemplateRow(number, UUID(bytes=person), UUID(bytes=face), None, value)
        for number, person, face, value in zip(
            convert_to_integers(numbers).tolist(),
            map(bytes, persons),
            map(bytes, faces),
            map(bytes, sealed),
            strict=True,
        )
    ]


def _list_in_order(found: OpenedTemplates) -> list[tuple[TemplateRow, FloatArray]]:
    """Return templates with their vectors by person, and in order of enrolment."""
    pairs = zip(found.rows, found.vectors, strict=True)
    return sorted(pairs, key=lambda pair: (pair[0].person_id, pair[0].face_id))


_SAMPLE_ROWS = """
    SELECT number, person_id, id, embedding, sealed FROM {partition} TABLESAMPLE SYSTEM ({percent:.6f})
    WHERE contract_id = :contract ORDER BY random() LIMIT :count
"""
_ESTIMATE_ROWS = text(
    f"SELECT {ROW_COUNT_ESTIMATE} FROM {PARTITIONS}"  # noqa: S608
    " WHERE relname = 'faces_' || replace(CAST(:collection AS uuid)::text, '-', '')"
).bindparams(bindparam("collection", type_=Uuid))
