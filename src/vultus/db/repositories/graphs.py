"""What a graph is measured on: enrolled faces, searched for exactly and along it, each itself left out."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import TextClause, Uuid, bindparam, text

from vultus.db.repositories import ranking
from vultus.db.types import HalfVector
from vultus.domain import Enrolled

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

DEEP = 36
"""Faces that a search for five persons looks at."""


class Graphs:
    """Searches for enrolled faces."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def sample(
        self, collection_id: UUID, contract_id: str, *, least_faces: int, count: int
    ) -> tuple[Enrolled, ...]:
        """Return a face each of persons with so many that a search compares now: any, but every time the same ones."""
        values = {"collection": collection_id, "contract": contract_id, "least": least_faces, "count": count}
        rows = await self._session.execute(_SAMPLE, values)
        return tuple(Enrolled(*row) for row in rows)

    async def closest_other(
        self, collection_id: UUID, contract_id: str, face: Enrolled, *, ef_search: int | None = None
    ) -> tuple[UUID, float] | None:
        """Return person and cosine of the closest other face; None if there is none.

        Args:
            collection_id: Where to search.
            contract_id: Of the templates.
            face: Left out.
            ef_search: Candidates of a search along the graph; None compares every face.
        """
        values = {"collection": collection_id, "contract": contract_id, "face": face.face_id, "probe": face.vector}
        cast = ""
        if ef_search is not None:
            await self._session.execute(ranking.SET_UP, {"ef_search": str(ef_search)})
            cast = f"::halfvec({len(face.vector)})"
        row = (await self._session.execute(_closest_other(cast), values)).one_or_none()
        return None if row is None else (row.person_id, row.similarity)


_SAMPLE = text(
    f"""
    SELECT id, person_id, embedding FROM (
        SELECT DISTINCT ON (person_id) id, person_id, embedding, count(*) OVER (PARTITION BY person_id) AS faces
        FROM {ranking.COMPARED} ORDER BY person_id, md5(id::text)
    ) AS one_each WHERE faces >= :least ORDER BY md5(person_id::text) LIMIT :count
    """  # noqa: S608  a constant
)


@cache
def _closest_other(cast: str) -> TextClause:
    """Return the statement that compares what is cast so: as the graph has it, the planner goes along the graph."""
    return text(
        f"""
        SELECT person_id, 1 - distance AS similarity FROM (
            SELECT id, person_id, embedding{cast} <=> CAST(:probe AS halfvec) AS distance
            FROM {ranking.COMPARED} ORDER BY distance LIMIT {DEEP}
        ) AS nearest WHERE id <> :face ORDER BY distance, id LIMIT 1
        """  # noqa: S608  constants and a whole number
    ).bindparams(bindparam("face", type_=Uuid), bindparam("probe", type_=HalfVector))
