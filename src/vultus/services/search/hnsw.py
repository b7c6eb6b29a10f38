"""HNSW graphs of collections; a graph is searched only after its recall loss was measured on the enrolled faces."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import Collection, EnrolledFace, HnswGraph, HnswRecallLoss, Permission, Principal, Storage
from vultus.domain.decision import compute_threshold
from vultus.errors import ConflictError, InvalidInputError
from vultus.services.collections import CollectionService, get_calibration
from vultus.statistics.intervals import compute_wilson_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.db.database import Database
    from vultus.domain import SpaceRegistry

DEFAULT_ACCEPTED_LOSS = 0.001
DEFAULT_SAMPLE, MAX_SAMPLE = 1_000, 20_000
BATCH_SIZE = 20
"""Probes per snapshot of the database: a snapshot held for long keeps VACUUM from removing erased rows."""


@dataclass(frozen=True, slots=True)
class GraphRequest:
    """Parameters of a graph and of its measurement.

    Attributes:
        m: Maximum number of neighbours of a face per layer, 2..100.
        ef_construction: Candidates for neighbours while the graph is built, 2 m..1000.
        ef_search: Candidates of a search, 1..1000.
        accept_loss: Accepted recall loss against exact search, as a share of the probes, 0..1.
        sample: Maximum number of persons searched for.
    """

    m: int = 16
    ef_construction: int = 64
    ef_search: int = 100
    accept_loss: float = DEFAULT_ACCEPTED_LOSS
    sample: int = DEFAULT_SAMPLE


@dataclass(frozen=True, slots=True)
class _GraphProbe:
    """The persons nearest to an enrolled face by exact and by graph search, with cosines and search times."""

    face: EnrolledFace
    exact: tuple[UUID, float] | None
    approximate: tuple[UUID, float] | None
    exact_ms: float
    approximate_ms: float


class HnswBuilder:
    """Builds HNSW graphs, measures their recall loss and enables them."""

    def __init__(self, database: Database, spaces: SpaceRegistry, collections: CollectionService) -> None:
        self._database = database
        self._spaces = spaces
        self._collections = collections

    async def enable(self, principal: Principal, reference: str, request: GraphRequest) -> Collection:
        """Build a collection's graph, measure its recall loss and, if that is accepted, enable it.

        Repeated with another `ef_search`, this measures the existing graph with that value and enables it.

        Raises:
            NotFoundError: There is no such collection.
            PackNotLoadedError: The pack that produces its vectors is not loaded.
            InvalidInputError: The parameters contradict each other, the recall loss is too high, or nothing can be
                measured; the collection is searched as before.
            ConflictError: The collection has another graph, or another process is working on it.
        """
        if request.ef_construction < 2 * request.m:
            raise InvalidInputError(f"ef_construction must be at least 2 m, {2 * request.m} here.")
        collection = await self._get_collection(principal, reference)
        async with self._database.open_hnsw_maintenance(collection.id) as graphs:
            collection = await self._get_collection(principal, str(collection.id))
            already_built = _is_graph_built(collection, request)
            _check_open(collection)
            try:
                if not already_built:
                    dimension = self._spaces.get_space(collection.space_id).dimension
                    await graphs.build_index(collection.space_id, dimension, request.m, request.ef_construction)
                loss = await self._measure_loss(collection, request)
                _check_loss(collection, loss, request)
                graph = HnswGraph(
                    collection.space_id, request.m, request.ef_construction, request.ef_search, datetime.now(UTC), loss
                )
                return await self._collections.set_search_graph(principal, collection.id, graph)
            except BaseException:
                if not already_built:
                    await graphs.drop_index()
                raise

    async def _get_collection(self, principal: Principal, reference: str) -> Collection:
        async with self._database.transaction(read_only=True) as work:
            return await work.open(reference, principal, Permission.CONFIGURE)

    async def _measure_loss(self, collection: Collection, request: GraphRequest) -> HnswRecallLoss:
        """Search for one face per person with at least two faces; if that finds no mate, one face of any person."""
        space = self._spaces.get_space(collection.space_id)
        for min_faces, measured_on in ((2, "mates"), (1, "neighbours")):
            async with self._database.transaction(read_only=True) as work:
                size = await work.templates.count_templates(collection.id, collection.space_id)
                faces = await work.templates.sample_templates(
                    collection.id, collection.space_id, min_faces=min_faces, count=request.sample
                )
            threshold = compute_threshold(collection.policy, get_calibration(collection, space), size).cosine
            searched = await self._search_faces(collection, faces, request.ef_search)
            counted = [one for one in searched if one.exact and (min_faces == 1 or _is_mate(one, threshold))]
            if counted:
                lost = sum(
                    one.approximate is None or one.approximate[0] != one.exact[0] for one in counted if one.exact
                )
                rate = compute_wilson_rate(lost, len(counted))
                medians = median(one.exact_ms for one in searched), median(one.approximate_ms for one in searched)
                return HnswRecallLoss(measured_on, len(counted), lost, rate.low, rate.high, *medians)
        raise InvalidInputError(
            f"What a graph would lose cannot be measured: collection '{collection.name}' has no two faces under live "
            "consent."
        )

    async def _search_faces(
        self, collection: Collection, faces: Sequence[EnrolledFace], ef_search: int
    ) -> list[_GraphProbe]:
        searched = []
        for start in range(0, len(faces), BATCH_SIZE):
            async with self._database.transaction(read_only=True) as work:
                for face in faces[start : start + BATCH_SIZE]:
                    began = time.perf_counter()
                    exact = await work.templates.find_closest_other_face(collection.id, collection.space_id, face)
                    between = time.perf_counter()
                    approximate = await work.templates.find_closest_other_face(
                        collection.id, collection.space_id, face, ef_search=ef_search
                    )
                    ended = time.perf_counter()
                    searched.append(
                        _GraphProbe(face, exact, approximate, (between - began) * 1e3, (ended - between) * 1e3)
                    )
        return searched


def _is_graph_built(collection: Collection, request: GraphRequest) -> bool:
    """Return whether the requested graph exists.

    Raises:
        ConflictError: The collection has another one.
    """
    graph = collection.graph
    if graph is None:
        return False
    if (graph.contract_id, graph.m, graph.ef_construction) == (collection.space_id, request.m, request.ef_construction):
        return True
    raise ConflictError(
        f"Collection '{collection.name}' has a graph of contract '{graph.contract_id}' with m {graph.m} and "
        f"ef_construction {graph.ef_construction}. Set search to auto first: that drops it."
    )


def _check_open(collection: Collection) -> None:
    if collection.policy.storage is Storage.SEALED:
        raise ConflictError(
            f"Collection '{collection.name}' is sealed: an HNSW graph would hold its vectors in plain. It has an index "
            "in memory instead."
        )


def _is_mate(searched: _GraphProbe, threshold: float) -> bool:
    exact = searched.exact
    return exact is not None and exact[0] == searched.face.person_id and exact[1] >= threshold


def _check_loss(collection: Collection, loss: HnswRecallLoss, request: GraphRequest) -> None:
    if loss.share > request.accept_loss:
        raise InvalidInputError(
            f"Along this graph {loss.lost} of {loss.probes} {loss.of} that an exact search of '{collection.name}' has "
            f"first were lost: {100 * loss.share:.2f} % ({100 * loss.low:.2f} % to {100 * loss.high:.2f} %), and "
            f"{100 * request.accept_loss:.2f} % are accepted. Nothing was changed. Raise ef_search, then m and "
            "ef_construction, or accept the loss; or stay without a graph.",
            of=loss.of,
            probes=loss.probes,
            lost=loss.lost,
            exact_ms=round(loss.exact_ms, 2),
            graph_ms=round(loss.graph_ms, 2),
        )
