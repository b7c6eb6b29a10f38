"""Compares probes with the templates of a collection, without a transaction: the hot path."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import TextClause, text

from vultus.db.repositories.collections import get_partition_name
from vultus.db.templates import ranking
from vultus.domain import FloatArray, Fusion, GalleryState, NumberArray
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from uuid import UUID

    from vultus.db.driver_session import StatementSession
    from vultus.domain import Candidate, SearchResult


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


class TemplateSearches:
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

    async def get_gallery_state(
        self, collection_id: UUID, space_id: str, candidates: Collection[Candidate]
    ) -> GalleryState:
        """Return what earlier results of searches depend on.

        Args:
            collection_id: The collection searched.
            space_id: Embedding space of the faces.
            candidates: Persons, with their faces, that results rest on.

        Raises:
            NotFoundError: The collection has been deleted.
        """
        values = {
            "collection": collection_id,
            "contract": space_id,
            "persons": [one.person_id for one in candidates],
            "faces": [one.face_id for one in candidates],
        }
        statement = _build_state_statement(get_partition_name(collection_id))
        rows = list(await self._session.execute(statement, values))
        if not rows:
            raise NotFoundError(f"There is no collection with id {collection_id}.")
        live = {row.face_id: (row.external_id, row.name) for row in rows if row.face_id is not None}
        return GalleryState(rows[0].changed_at, rows[0].last_number or 0, live)

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
