"""Statements that rank persons by their faces: exactly, among an index's proposals, or by HNSW index."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import TextClause, text

from vultus.db.driver_session import CUSTOM_PLAN, GENERIC_PLAN, PLAN_CACHE_MODE
from vultus.db.repositories.codes import ROW_COUNT_ESTIMATE
from vultus.db.types import encode_halfvec
from vultus.domain import Candidate, FloatArray, Fusion, SearchResult

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

MEAN_SHORTLIST_SIZE = 100
"""Additional persons whose mean embedding is rescored: on LFW no first place by mean was below rank 96 by best face."""


LIVE_TEMPLATES = (
    "faces WHERE collection_id = CAST(:collection AS uuid) AND contract_id = :contract AND consent_expires_at > now()"
)
_FUSED_DISTANCES = {
    Fusion.BEST: "best.distance",
    Fusion.MEAN: f"(SELECT avg(embedding) <=> probe.vector FROM {LIVE_TEMPLATES} AND person_id = best.person_id)",  # noqa: S608
}

# Each probe reads the partition once and keeps the `deep` nearest faces. Their persons, in order of first appearance,
# are the nearest persons: if there are `shortlist` of them, or no more faces than these, that is the result. Only when
# few persons own all of the nearest faces is every person's closest distance computed, which takes three times as
# long. The gallery is counted once for all probes; the outer joins keep a row for a probe without candidates, so that
# its size is returned even then. Means are computed for the shortlist only: those of all persons take ten times the
# whole search.
_COUNT_ALL = f"SELECT count(*) FROM {LIVE_TEMPLATES}"  # noqa: S608
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
            FROM {LIVE_TEMPLATES} AND NOT (SELECT so FROM enough) ORDER BY person_id, distance, id
        )
        ORDER BY distance, person_id LIMIT :shortlist
    )
"""  # noqa: S608  constants of this file
_NEAREST = f"""
    SELECT person_id, id, embedding <=> probe.vector AS distance FROM {LIVE_TEMPLATES} ORDER BY distance, id LIMIT :deep
"""  # noqa: S608

# The planner uses the HNSW index where the expression is exactly the index's and only the distance orders. The size of
# the gallery is PostgreSQL's estimate of rows in all embedding spaces together: counting takes longer than the search.
_ESTIMATE_ALL = f"SELECT {ROW_COUNT_ESTIMATE} FROM pg_class AS partition WHERE oid = to_regclass(:partition)"  # noqa: S608
_NEAREST_IN_GRAPH = f"""
    SELECT person_id, id, embedding::halfvec({{dimension}}) <=> probe.vector AS distance
    FROM {LIVE_TEMPLATES} ORDER BY distance LIMIT :deep
"""  # noqa: S608

# The index on numbers must be used whether or not PostgreSQL has statistics of the partition, which it lacks for about
# a minute after a bulk import: it would then prefer to read the whole partition by its primary key. Querying the
# partition directly leaves only the index on numbers, because all others begin with the collection; the embedding space
# is compared by an expression that no index has, because PostgreSQL 18 skips leading columns; and a range with two ends
# is estimated at a two-hundredth of the rows, one with a single end at a third.
PARTITION_TEMPLATES = "{partition} WHERE contract_id || '' = :contract AND consent_expires_at > now()"
NEWER_THAN_INDEX = f"number > :after AND number < {2**63 - 1}"
_COUNT_NEWER = f"SELECT count(*) FROM {PARTITION_TEMPLATES} AND {NEWER_THAN_INDEX}"  # noqa: S608
_BEST_OF_PROPOSED = f"""
    WITH compared AS (
        SELECT person_id, id, embedding <=> probe.vector AS distance FROM {PARTITION_TEMPLATES} AND (
            number = ANY (
                (CAST(:proposals AS bigint[]))[coalesce((CAST(:ends AS int[]))[probe.number - 1], 0) + 1
                                               :(CAST(:ends AS int[]))[probe.number]]
            ) OR {NEWER_THAN_INDEX}
        )
    ), best AS (
        SELECT * FROM (
            SELECT DISTINCT ON (person_id) person_id, id AS face_id, distance FROM compared
            ORDER BY person_id, distance, id
        ) AS each ORDER BY distance, person_id LIMIT :shortlist
    )
"""  # noqa: S608


def _build_statement(
    size_query: str, best_query: str, fused_distance: str, plan_cache_mode: str = CUSTOM_PLAN
) -> TextClause:
    statement = text(
        f"""
        SELECT probe.number AS probe, coalesce(({size_query}), 0) AS gallery_size, closest.person_id, closest.face_id,
               1 - closest.distance AS similarity, persons.external_id, persons.name,
               collections.updated_at AS changed_at, collections.policy ->> 'storage' = 'sealed' AS is_sealed
        FROM unnest(CAST(:probes AS halfvec[])) WITH ORDINALITY AS probe (vector, number)
        LEFT JOIN collections ON collections.id = CAST(:collection AS uuid)
        LEFT JOIN LATERAL (
            {best_query}
            SELECT person_id, face_id, {fused_distance} AS distance FROM best ORDER BY 3, person_id LIMIT :limit
        ) AS closest ON true
        LEFT JOIN persons ON persons.id = closest.person_id
        ORDER BY probe.number, closest.distance, closest.person_id
        """  # noqa: S608
    )
    return statement.execution_options(**{PLAN_CACHE_MODE: plan_cache_mode})


SEARCH_STATEMENTS = {
    fusion: _build_statement(_COUNT_ALL, _BEST_OF_NEAREST.format(nearest=_NEAREST), fused)
    for fusion, fused in _FUSED_DISTANCES.items()
}


@lru_cache(maxsize=1024)
def build_rescore_statement(partition: str, fusion: Fusion) -> TextClause:
    """Return the statement that compares probes with an index's proposals in a partition and with newer templates."""
    size, best = (part.replace("{partition}", partition) for part in (_COUNT_NEWER, _BEST_OF_PROPOSED))
    # Planning takes as long as execution; but for a mean the statement also reads `faces` itself, not the partition.
    return _build_statement(
        size, best, _FUSED_DISTANCES[fusion], GENERIC_PLAN if fusion is Fusion.BEST else CUSTOM_PLAN
    )


@cache
def build_graph_statement(fusion: Fusion, dimension: int) -> TextClause:
    """Return the statement that searches by the HNSW index of vectors of this length; without one it compares all."""
    nearest = _NEAREST_IN_GRAPH.format(dimension=dimension)
    return _build_statement(_ESTIMATE_ALL, _BEST_OF_NEAREST.format(nearest=nearest), _FUSED_DISTANCES[fusion])


# Strict order: faces rejected by the filter do not count, and the next ones arrive sorted. No sort: among few faces the
# planner would compare all, and a measurement among few would not hold for the search among many.
SET_GRAPH_PARAMETERS = text(
    "SELECT set_config('hnsw.ef_search', CAST(:ef_search AS text), true),"
    " set_config('hnsw.iterative_scan', 'strict_order', true), set_config('enable_sort', 'off', true)"
)


def build_parameters(
    collection_id: UUID, space_id: str, probes: FloatArray, limit: int, fusion: Fusion
) -> dict[str, Any]:
    """Return the parameters common to all of these statements."""
    shortlist = limit if fusion is Fusion.BEST else limit + MEAN_SHORTLIST_SIZE
    return {
        "collection": collection_id,
        "contract": space_id,
        "probes": [encode_halfvec(probe) for probe in probes],
        "limit": limit,
        "shortlist": shortlist,
        "deep": 4 * shortlist + 16,
    }


def build_results(rows: Iterable[Any], probe_count: int) -> tuple[SearchResult, ...]:
    """Return one result per probe from the rows of a statement."""
    found: list[list[Candidate]] = [[] for _ in range(probe_count)]
    size, changed_at = 0, None
    for row in rows:
        size, changed_at = row.gallery_size, row.changed_at
        if row.person_id is not None:
            found[row.probe - 1].append(
                Candidate(row.person_id, row.external_id, row.name, row.face_id, row.similarity)
            )
    return tuple(SearchResult(tuple(candidates), size, changed_at) for candidates in found)
