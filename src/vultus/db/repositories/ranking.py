"""The statements that rank persons by their faces: among all, among those an index proposes, or along a graph."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import TextClause, text

from vultus.db.driver_session import ANEW, ONCE, PLANS
from vultus.db.repositories.codes import COUNTED
from vultus.db.types import encode_halfvec
from vultus.domain import Candidate, FloatArray, Fusion, SearchResult

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

SHORTLIST = 100
"""Persons beyond those asked for whose mean is compared: on LFW nobody's mean was first from further down than 96th."""


COMPARED = (
    "faces WHERE collection_id = CAST(:collection AS uuid) AND contract_id = :contract AND consent_expires_at > now()"
)
_FUSED = {
    Fusion.BEST: "best.distance",
    Fusion.MEAN: f"(SELECT avg(embedding) <=> probe.vector FROM {COMPARED} AND person_id = best.person_id)",  # noqa: S608
}

# Each probe reads the partition once and keeps the `deep` nearest faces. Their persons, in order of first appearance,
# are the nearest persons: if there are `shortlist` of them, or no more faces than these, that is the answer. Only when
# few persons own all of the nearest faces is every person's closest distance worked out, which takes three times as
# long. The gallery is counted once for all probes; the outer joins keep a row for a probe without candidates, so that
# its size arrives even then. Means are worked out for the shortlist only: everybody's take ten times the whole search.
_ALL = f"SELECT count(*) FROM {COMPARED}"  # noqa: S608
_BEST_OF_NEAREST = f"""
    WITH nearest AS MATERIALIZED (
        {{nearest}}
    ), enough AS MATERIALIZED (
        SELECT count(DISTINCT person_id) >= :shortlist OR count(*) < :deep AS so FROM nearest
    ), best AS (
        (
            SELECT DISTINCT ON (person_id) person_id, id AS face_id, distance FROM nearest
            WHERE (SELECT so FROM enough) ORDER BY person_id, distance, id
        ) UNION ALL (
            SELECT DISTINCT ON (person_id) person_id, id, embedding <=> probe.vector AS distance
            FROM {COMPARED} AND NOT (SELECT so FROM enough) ORDER BY person_id, distance, id
        )
        ORDER BY distance, person_id LIMIT :shortlist
    )
"""  # noqa: S608  constants of this file
_NEAREST = f"""
    SELECT person_id, id, embedding <=> probe.vector AS distance FROM {COMPARED} ORDER BY distance, id LIMIT :deep
"""  # noqa: S608

# The planner takes the graph where the expression is the graph's, to the letter, and nothing but the distance orders.
# The gallery's size is PostgreSQL's count of rows, those of all contracts together: counting them takes longer than the
# search.
_ABOUT_ALL = f"SELECT {COUNTED} FROM pg_class AS partition WHERE oid = to_regclass(:partition)"  # noqa: S608
_NEAREST_ALONG = f"""
    SELECT person_id, id, embedding::halfvec({{dimension}}) <=> probe.vector AS distance
    FROM {COMPARED} ORDER BY distance LIMIT :deep
"""  # noqa: S608

# What is found by number must be so whether or not PostgreSQL has statistics of the partition, which it has not for a
# minute after a bulk import: then it would rather read the whole partition by its primary key. Named by itself, the
# partition leaves it no other index than that of the numbers, for all others begin with the collection; the contract is
# compared in a way that no index knows, for PostgreSQL 18 skips over leading columns; and a range with two ends is
# taken for a two-hundredth of the rows, one with a single end for a third.
_NUMBERED = "{partition} WHERE contract_id || '' = :contract AND consent_expires_at > now()"
_NEWER = f"number > :after AND number < {2**63 - 1}"
_SIZE_OF_NEWER = f"SELECT count(*) FROM {_NUMBERED} AND {_NEWER}"  # noqa: S608
_BEST_OF_PROPOSED = f"""
    WITH compared AS (
        SELECT person_id, id, embedding <=> probe.vector AS distance FROM {_NUMBERED} AND (
            number = ANY (
                (CAST(:proposals AS bigint[]))[coalesce((CAST(:ends AS int[]))[probe.number - 1], 0) + 1
                                               :(CAST(:ends AS int[]))[probe.number]]
            ) OR {_NEWER}
        )
    ), best AS (
        SELECT * FROM (
            SELECT DISTINCT ON (person_id) person_id, id AS face_id, distance FROM compared
            ORDER BY person_id, distance, id
        ) AS each ORDER BY distance, person_id LIMIT :shortlist
    )
"""  # noqa: S608


def _ranked(size: str, best: str, fused: str, plans: str = ANEW) -> TextClause:
    statement = text(
        f"""
        SELECT probe.number AS probe, coalesce(({size}), 0) AS gallery_size, closest.person_id, closest.face_id,
               1 - closest.distance AS similarity, persons.external_id, persons.name,
               (SELECT updated_at FROM collections WHERE id = :collection) AS changed_at
        FROM unnest(CAST(:probes AS halfvec[])) WITH ORDINALITY AS probe (vector, number)
        LEFT JOIN LATERAL (
            {best}
            SELECT person_id, face_id, {fused} AS distance FROM best ORDER BY 3, person_id LIMIT :limit
        ) AS closest ON true
        LEFT JOIN persons ON persons.id = closest.person_id
        ORDER BY probe.number, closest.distance, closest.person_id
        """  # noqa: S608
    )
    return statement.execution_options(**{PLANS: plans})


SEARCH = {fusion: _ranked(_ALL, _BEST_OF_NEAREST.format(nearest=_NEAREST), fused) for fusion, fused in _FUSED.items()}


@lru_cache(maxsize=1024)
def rescore_in(partition: str, fusion: Fusion) -> TextClause:
    """Return the statement that compares with what an index proposes of a partition, and with what is newer."""
    size, best = (part.replace("{partition}", partition) for part in (_SIZE_OF_NEWER, _BEST_OF_PROPOSED))
    # Planning takes as long as the rest; for a mean it also reads faces by their collection, not from their partition.
    return _ranked(size, best, _FUSED[fusion], ONCE if fusion is Fusion.BEST else ANEW)


@cache
def search_along(fusion: Fusion, dimension: int) -> TextClause:
    """Return the statement that searches along a graph of vectors of some length; without one, it compares all."""
    nearest = _NEAREST_ALONG.format(dimension=dimension)
    return _ranked(_ABOUT_ALL, _BEST_OF_NEAREST.format(nearest=nearest), _FUSED[fusion])


# Strict order: faces the filter rejects do not count, and the next ones come sorted. No sort: among few faces the
# planner would compare all, and what was measured among few would not be what is searched once there are many.
SET_UP = text(
    "SELECT set_config('hnsw.ef_search', CAST(:ef_search AS text), true),"
    " set_config('hnsw.iterative_scan', 'strict_order', true), set_config('enable_sort', 'off', true)"
)


def values(collection_id: UUID, contract_id: str, probes: FloatArray, limit: int, fusion: Fusion) -> dict[str, Any]:
    """Return what both kinds of statement are given."""
    shortlist = limit if fusion is Fusion.BEST else limit + SHORTLIST
    return {
        "collection": collection_id,
        "contract": contract_id,
        "probes": [encode_halfvec(probe) for probe in probes],
        "limit": limit,
        "shortlist": shortlist,
        "deep": 4 * shortlist + 16,
    }


def results(rows: Iterable[Any], probes: int) -> tuple[SearchResult, ...]:
    """Return a result a probe from the rows of a statement."""
    found: list[list[Candidate]] = [[] for _ in range(probes)]
    size, changed_at = 0, None
    for row in rows:
        size, changed_at = row.gallery_size, row.changed_at
        if row.person_id is not None:
            found[row.probe - 1].append(
                Candidate(row.person_id, row.external_id, row.name, row.face_id, row.similarity)
            )
    return tuple(SearchResult(tuple(candidates), size, changed_at) for candidates in found)
