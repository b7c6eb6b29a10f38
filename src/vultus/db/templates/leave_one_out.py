"""Statements that search for enrolled faces among all others: what a network or an HNSW graph would find of them."""

from __future__ import annotations

from functools import cache

from sqlalchemy import TextClause, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

from vultus.db.templates.ranking import LIVE_TEMPLATES
from vultus.db.types import HalfVector

SEARCH_DEPTH = 36
"""Faces that a search for five persons examines."""

SEARCH_STATEMENT = text(
    f"""
    SELECT probe.id AS face_id, probe.person_id, closest.person_id AS candidate_id,
           1 - closest.distance AS similarity,
           EXISTS (SELECT FROM {LIVE_TEMPLATES} AND person_id = probe.person_id AND id <> probe.id) AS has_mate
    FROM (SELECT id, person_id, embedding FROM {LIVE_TEMPLATES} AND id = ANY(:faces)) AS probe
    LEFT JOIN LATERAL (
        SELECT person_id, distance FROM (
            SELECT DISTINCT ON (person_id) person_id, embedding <=> probe.embedding AS distance
            FROM {LIVE_TEMPLATES} AND id <> probe.id ORDER BY person_id, distance
        ) AS persons ORDER BY distance, person_id LIMIT 2
    ) AS closest ON true
    ORDER BY probe.id, closest.distance, closest.person_id
    """  # noqa: S608  constants
).bindparams(bindparam("faces", type_=ARRAY(Uuid)))

SAMPLE_STATEMENT = text(
    f"""
    SELECT id, person_id, embedding FROM (
        SELECT DISTINCT ON (person_id) id, person_id, embedding, count(*) OVER (PARTITION BY person_id) AS faces
        FROM {LIVE_TEMPLATES} ORDER BY person_id, md5(id::text)
    ) AS one_each WHERE faces >= :least ORDER BY md5(person_id::text) LIMIT :count
    """  # noqa: S608  a constant
)


@cache
def build_closest_other_statement(cast: str) -> TextClause:
    """Return the search for the closest other face; with the cast of an HNSW index's expression it uses the index."""
    return text(
        f"""
        SELECT person_id, 1 - distance AS similarity FROM (
            SELECT id, person_id, embedding{cast} <=> CAST(:probe AS halfvec) AS distance
            FROM {LIVE_TEMPLATES} ORDER BY distance LIMIT {SEARCH_DEPTH}
        ) AS nearest WHERE id <> :face ORDER BY distance, id LIMIT 1
        """  # noqa: S608  constants and a whole number
    ).bindparams(bindparam("face", type_=Uuid), bindparam("probe", type_=HalfVector))
