"""Leave-one-out recall measurement of the HNSW graph against exact search."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import TextClause, Uuid, bindparam, text

from vultus.db.repositories import ranking
from vultus.db.types import HalfVector
from vultus.domain import EnrolledFace

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

SEARCH_DEPTH = 36
"""Faces that a search for five persons examines."""


class HnswEvaluationRepository:
    """Searches for enrolled faces among all others, exactly or by HNSW index."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def sample_faces(
        self, collection_id: UUID, space_id: str, *, min_faces: int, count: int
    ) -> tuple[EnrolledFace, ...]:
        """Return a deterministic pseudo-random sample: one face per person with at least `min_faces` live faces."""
        values = {"collection": collection_id, "contract": space_id, "least": min_faces, "count": count}
        rows = await self._session.execute(_SAMPLE_FACES, values)
        return tuple(EnrolledFace(*row) for row in rows)

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
        row = (await self._session.execute(_build_closest_other_query(cast), values)).one_or_none()
        return None if row is None else (row.person_id, row.similarity)


_SAMPLE_FACES = text(
    f"""
    SELECT id, person_id, embedding FROM (
        SELECT DISTINCT ON (person_id) id, person_id, embedding, count(*) OVER (PARTITION BY person_id) AS faces
        FROM {ranking.LIVE_TEMPLATES} ORDER BY person_id, md5(id::text)
    ) AS one_each WHERE faces >= :least ORDER BY md5(person_id::text) LIMIT :count
    """  # noqa: S608  a constant
)


@cache
def _build_closest_other_query(cast: str) -> TextClause:
    """Return the search statement; with the cast of the HNSW index's expression the planner uses the index."""
    return text(
        f"""
        SELECT person_id, 1 - distance AS similarity FROM (
            SELECT id, person_id, embedding{cast} <=> CAST(:probe AS halfvec) AS distance
            FROM {ranking.LIVE_TEMPLATES} ORDER BY distance LIMIT {SEARCH_DEPTH}
        ) AS nearest WHERE id <> :face ORDER BY distance, id LIMIT 1
        """  # noqa: S608  constants and a whole number
    ).bindparams(bindparam("face", type_=Uuid), bindparam("probe", type_=HalfVector))
