"""Compares probes with the templates of a collection, without a transaction: the hot path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vultus.db.repositories.collections import get_partition_name
from vultus.db.templates import ranking
from vultus.db.templates.sealed_rows import SealedRows
from vultus.db.templates.sealed_search import SealedSearches, load_gallery_state
from vultus.domain import FloatArray, Fusion, GalleryState, NumberArray

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from uuid import UUID

    from vultus.db.driver_session import StatementSession
    from vultus.db.templates.seal import TemplateSeal
    from vultus.domain import Candidate, SearchResult


class TemplateSearches:
    """Searches that need no transaction.

    An open collection is searched in SQL, whose answer says whether it is sealed: a sealed one never is open again, so
    that from then on it is searched in this process.
    """

    def __init__(self, session: StatementSession, seal: TemplateSeal, *, is_snapshot: bool = False) -> None:
        self._session = session
        self._seal = seal
        self._rows = SealedRows(session, seal, is_snapshot=is_snapshot)
        self._sealed_searches = SealedSearches(session, self._rows)

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
        if collection_id not in self._seal.known:
            values = ranking.build_parameters(collection_id, space_id, probes, limit, fusion)
            rows = list(await self._session.execute(ranking.SEARCH_STATEMENTS[fusion], values))
            if not self._note_sealed(collection_id, rows):
                return ranking.build_results(rows, len(probes))
        return await self._sealed_searches.search_all(collection_id, space_id, probes, limit, fusion)

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
        persons, faces = [one.person_id for one in candidates], [one.face_id for one in candidates]
        return await load_gallery_state(self._session, collection_id, space_id, persons, faces)

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
        if collection_id not in self._seal.known:
            ends = np.cumsum([len(numbers) for numbers in proposals])
            values = ranking.build_parameters(collection_id, space_id, probes, limit, fusion) | {
                "after": after,
                "proposals": np.concatenate(proposals).tolist(),
                "ends": ends.tolist(),
            }
            statement = ranking.build_rescore_statement(get_partition_name(collection_id), fusion)
            rows = list(await self._session.execute(statement, values))
            if not self._note_sealed(collection_id, rows):
                return ranking.build_results(rows, len(probes))
        return await self._sealed_searches.search_proposals(
            collection_id, space_id, probes, proposals, after, limit, fusion
        )

    async def list_vectors(
        self, collection_id: UUID, space_id: str, numbers: NumberArray
    ) -> tuple[NumberArray, FloatArray]:
        """Return (n,) numbers and (n, d) vectors of those of some templates that are live and open."""
        if not len(numbers):
            return numbers, np.empty((0, 0), np.float32)
        found = await self._rows.read_numbered(collection_id, space_id, numbers.tolist())
        return np.array([row.number for row in found.rows], np.int64), found.vectors

    def _note_sealed(self, collection_id: UUID, rows: Sequence[Any]) -> bool:
        """Return whether the rows of a statement say that the collection is sealed: what SQL found is incomplete."""
        if not any(row.is_sealed for row in rows):
            return False
        self._seal.known.add(collection_id)
        return True
