"""Searches templates that may be sealed: they are opened and compared in this process, and rank as they do in SQL.

The database is asked again before a result is given: who was erased or has expired meanwhile is nobody's candidate.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sqlalchemy import TextClause, text

from vultus.db.repositories.collections import get_partition_name
from vultus.db.templates import ranking as sql
from vultus.db.templates.sealed_rows import require_readable
from vultus.domain import Candidate, Fusion, GalleryState, LeaveOneOutResult, SearchResult
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from numpy.typing import NDArray

    from vultus.db.driver_session import StatementSession
    from vultus.db.templates.seal import OpenedTemplates
    from vultus.db.templates.sealed_rows import SealedRows
    from vultus.domain import FloatArray, NumberArray

DISTANCE_DIGITS = 9
"""Digits of a distance: more than SQL has, and so few that equal vectors have equal distances."""

MAX_ATTEMPTS = 3
"""Searches in which somebody whom they found was erased meanwhile, before they are only left out."""

LEAVE_ONE_OUT_PERSONS = 2


class RankedPerson(NamedTuple):
    """A person by their distance, 1 − cosine, and the closest of their faces."""

    distance: float
    person_id: UUID
    face_id: UUID


class Ranking:
    """The nearest persons to a probe, each by their closest face: as many as are asked for.

    Args:
        count: How many.
        left_out: A face that does not count.
    """

    def __init__(self, count: int, left_out: UUID | None = None) -> None:
        self._count = count
        self._left_out = left_out
        self._best: dict[UUID, RankedPerson] = {}
        self._limit = float("inf")

    def add(self, distances: NDArray[np.float64], found: OpenedTemplates) -> None:
        """Add templates at (n,) distances."""
        near = np.flatnonzero(distances <= self._limit)
        for at in near[np.argsort(distances[near], kind="stable")]:
            distance, row = float(distances[at]), found.rows[at]
            if len(self._best) >= self._count and distance > self._limit:
                break
            if row.face_id == self._left_out:
                continue
            ranked = RankedPerson(distance, row.person_id, row.face_id)
            self._best[row.person_id] = min(ranked, self._best.get(row.person_id, ranked))
            if len(self._best) == self._count:
                self._limit = max(one.distance for one in self._best.values())
        nearest = self.list_nearest()
        self._best = {one.person_id: one for one in nearest}
        if nearest and len(nearest) == self._count:
            self._limit = nearest[-1].distance

    def list_nearest(self) -> list[RankedPerson]:
        """Return the persons, nearest first."""
        return sorted(self._best.values())[: self._count]


class SealedSearches:
    """Searches of collections whose templates may be sealed.

    Args:
        session: Runs the statements.
        rows: Reads templates.
    """

    def __init__(self, session: StatementSession, rows: SealedRows) -> None:
        self._session = session
        self._rows = rows

    async def search_all(
        self, collection_id: UUID, space_id: str, probes: FloatArray, limit: int, fusion: Fusion
    ) -> tuple[SearchResult, ...]:
        """Compare probes with every template, as `TemplateSearches.search_exact` says; in blocks."""
        for attempt in range(MAX_ATTEMPTS):
            size, rankings = 0, _start_rankings(probes, limit, fusion)
            async for block in self._rows.read_blocks(collection_id, space_id):
                size += len(block.rows)
                _add_to_rankings(rankings, block, probes)
            found = await self._finish(
                collection_id, space_id, probes, limit, fusion, rankings, size, is_last=attempt == MAX_ATTEMPTS - 1
            )
            if found is not None:
                break
        return found or ()

    async def search_proposals(
        self,
        collection_id: UUID,
        space_id: str,
        probes: FloatArray,
        proposals: Sequence[NumberArray],
        after: int,
        limit: int,
        fusion: Fusion,
    ) -> tuple[SearchResult, ...]:
        """Compare probes with all proposals and newer templates, as `TemplateSearches.rescore_proposals` says."""
        numbers = np.unique(np.concatenate(proposals)).tolist()
        for attempt in range(MAX_ATTEMPTS):
            rankings = _start_rankings(probes, limit, fusion)
            compared = await self._rows.read_proposed(collection_id, space_id, numbers, after)
            there = np.array([row.number for row in compared.rows], np.int64)
            counting = [np.isin(there, proposed) | (there > after) for proposed in proposals]
            _add_to_rankings(rankings, compared, probes, counting)
            size = int((there > after).sum())
            found = await self._finish(
                collection_id, space_id, probes, limit, fusion, rankings, size, is_last=attempt == MAX_ATTEMPTS - 1
            )
            if found is not None:
                break
        return found or ()

    async def _finish(
        self,
        collection_id: UUID,
        space_id: str,
        probes: FloatArray,
        limit: int,
        fusion: Fusion,
        rankings: Sequence[Ranking],
        size: int,
        *,
        is_last: bool,
    ) -> tuple[SearchResult, ...] | None:
        """Return the results; None if somebody was erased meanwhile and the search is to be repeated."""
        nearest = [ranking.list_nearest() for ranking in rankings]
        if fusion is Fusion.MEAN:
            nearest = await self._rank_by_mean(collection_id, space_id, probes, nearest)
        nearest = [ranked[:limit] for ranked in nearest]
        everybody = [one for ranked in nearest for one in ranked]
        state = await load_gallery_state(
            self._session,
            collection_id,
            space_id,
            [one.person_id for one in everybody],
            [one.face_id for one in everybody],
        )
        if not is_last and any(one.face_id not in state.live_faces for one in everybody):
            return None
        results = []
        for ranked in nearest:
            candidates = [
                Candidate(one.person_id, *state.live_faces[one.face_id], one.face_id, 1 - one.distance)
                for one in ranked
                if one.face_id in state.live_faces
            ]
            results.append(SearchResult(tuple(candidates), size, state.changed_at))
        return tuple(results)

    async def _rank_by_mean(
        self, collection_id: UUID, space_id: str, probes: FloatArray, nearest: Sequence[Sequence[RankedPerson]]
    ) -> list[list[RankedPerson]]:
        """Return the persons nearest to each probe by the mean of all their faces."""
        persons = list({one.person_id for ranked in nearest for one in ranked})
        means = compute_means(await self._rows.read_of_persons(collection_id, space_id, persons))
        by_mean = []
        for probe, ranked in zip(probes, nearest, strict=True):
            there = [one for one in ranked if one.person_id in means]
            vectors = (
                np.stack([means[one.person_id] for one in there]) if there else np.empty((0, len(probe)), np.float32)
            )
            (distances,) = compute_distances(vectors, probe[None])
            by_mean.append(sorted(one._replace(distance=float(at)) for one, at in zip(there, distances, strict=True)))
        return by_mean

    async def search_leave_one_out(
        self, collection_id: UUID, space_id: str, face_ids: Sequence[UUID]
    ) -> dict[UUID, LeaveOneOutResult]:
        """Search for faces among all others, as `TemplateStore.search_leave_one_out` says; in blocks, twice."""
        wanted, owners, vectors = set(face_ids), {}, {}
        async for block in self._rows.read_blocks(collection_id, space_id):
            for row, vector in zip(require_readable(block).rows, block.vectors, strict=True):
                if row.face_id in wanted:
                    owners[row.face_id], vectors[row.face_id] = row.person_id, vector
        if not owners:
            return {}
        probes = np.stack(list(vectors.values()))
        rankings = [Ranking(LEAVE_ONE_OUT_PERSONS, face_id) for face_id in owners]
        photographed: dict[UUID, int] = {}
        async for block in self._rows.read_blocks(collection_id, space_id):
            _add_to_rankings(rankings, require_readable(block), probes)
            for row in block.rows:
                photographed[row.person_id] = photographed.get(row.person_id, 0) + 1
        found = {}
        for (face_id, person_id), ranking in zip(owners.items(), rankings, strict=True):
            candidates = tuple((one.person_id, 1 - one.distance) for one in ranking.list_nearest())
            has_mate = photographed.get(person_id, 0) > 1
            found[face_id] = LeaveOneOutResult(face_id, person_id, candidates, has_mate)
        return found


def compute_distances(vectors: FloatArray, probes: FloatArray) -> NDArray[np.float64]:
    """Return the (k, n) distances, 1 − cosine, of (n, d) vectors from (k, d) probes, which are rounded as SQL does."""
    if not len(vectors):
        return np.empty((len(probes), 0))
    rows, rounded = vectors.astype(np.float64), probes.astype(np.float16).astype(np.float64)
    lengths = np.linalg.norm(rounded, axis=1)[:, None] * np.linalg.norm(rows, axis=1)[None, :]
    distances: NDArray[np.float64] = np.round(1 - np.clip(rounded @ rows.T / lengths, -1, 1), DISTANCE_DIGITS)
    return distances


def compute_means(found: OpenedTemplates) -> dict[UUID, FloatArray]:
    """Return the mean of each person's templates, (d,), rounded to float16 as SQL does."""
    order = sorted(range(len(found.rows)), key=lambda at: found.rows[at].person_id)
    means = {}
    for person_id, places in groupby(order, key=lambda at: found.rows[at].person_id):
        mean = found.vectors[list(places)].astype(np.float64).mean(axis=0)
        means[person_id] = mean.astype(np.float32).astype(np.float16).astype(np.float32)
    return means


def find_similarity(found: OpenedTemplates, probe: FloatArray, fusion: Fusion) -> tuple[float, UUID] | None:
    """Return the cosine of one person's templates to a (d,) probe and the closest face; None without a template."""
    if not found.rows:
        return None
    (distances,) = compute_distances(found.vectors, probe[None])
    faces = [row.face_id for row in found.rows]
    distance, face_id = min(zip(distances.tolist(), faces, strict=True), key=itemgetter(0, 1))
    if fusion is Fusion.MEAN:
        (mean,) = compute_means(found).values()
        ((distance,),) = compute_distances(mean[None], probe[None]).tolist()
    return 1 - distance, face_id


def _start_rankings(probes: FloatArray, limit: int, fusion: Fusion) -> list[Ranking]:
    shortlist = limit if fusion is Fusion.BEST else limit + sql.MEAN_SHORTLIST_SIZE
    return [Ranking(shortlist) for _ in probes]


def _add_to_rankings(
    rankings: Sequence[Ranking],
    found: OpenedTemplates,
    probes: FloatArray,
    counting: Sequence[NDArray[np.bool]] | None = None,
) -> None:
    """Add templates to the ranking of each probe; if `counting` is given, those of its (n,) that are true."""
    if not found.rows:
        return
    for place, distances in enumerate(compute_distances(found.vectors, probes)):
        near = distances if counting is None else np.where(counting[place], distances, np.nan)
        rankings[place].add(near, found)


async def load_gallery_state(
    session: StatementSession, collection_id: UUID, space_id: str, persons: Sequence[UUID], faces: Sequence[UUID]
) -> GalleryState:
    """Return what results of a search depend on: `TemplateSearches.get_gallery_state` of persons and their faces.

    Raises:
        NotFoundError: The collection has been deleted.
    """
    statement = _build_state_statement(get_partition_name(collection_id))
    values = {"collection": collection_id, "contract": space_id, "persons": persons, "faces": faces}
    rows = list(await session.execute(statement, values))
    if not rows:
        raise NotFoundError(f"There is no collection with id {collection_id}.")
    live = {row.face_id: (row.external_id, row.name) for row in rows if row.face_id is not None}
    return GalleryState(rows[0].changed_at, rows[0].last_number or 0, live)


@lru_cache(maxsize=1024)
def _build_state_statement(partition: str) -> TextClause:
    """Return the statement that reads what results depend on.

    It names the partition and the persons, so that it takes the indexes on numbers and persons whether or not
    PostgreSQL has statistics of the partition.
    """
    return text(
        f"""
        SELECT collections.updated_at AS changed_at, newest.number AS last_number,
               live.id AS face_id, persons.external_id, persons.name
        FROM collections
        CROSS JOIN (SELECT max(number) AS number FROM {partition}) AS newest
        LEFT JOIN (
            SELECT id, person_id FROM {partition}
            WHERE collection_id = CAST(:collection AS uuid) AND person_id = ANY (CAST(:persons AS uuid[]))
                AND id = ANY (CAST(:faces AS uuid[])) AND contract_id = :contract AND consent_expires_at > now()
        ) AS live ON true
        LEFT JOIN persons ON persons.id = live.person_id
        WHERE collections.id = CAST(:collection AS uuid)
        """  # noqa: S608  made of the id
    )
