"""An HNSW graph for a living collection, searched only after what it loses was measured on the faces enrolled there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import Actor, Collection, Enrolled, Graph, GraphLoss
from vultus.domain.decision import threshold_for
from vultus.errors import ConflictError, InvalidInputError
from vultus.services.collections import Collections, calibration_of, find_collection
from vultus.statistics.intervals import wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.db.database import Database
    from vultus.models.pipelines import Pipelines

ACCEPTED_LOSS = 0.001
DEFAULT_SAMPLE, MOST_SAMPLE = 1_000, 20_000
IN_ONE_VIEW = 20
"""Faces searched for in one view of the database: one held for long keeps VACUUM from what was erased meanwhile."""


@dataclass(frozen=True, slots=True)
class GraphWanted:
    """What a graph is asked for.

    Attributes:
        m: Most neighbours of a face in a layer, 2..100.
        ef_construction: Candidates for them while it is built, 2 m..1000.
        ef_search: Candidates of a search, 1..1000.
        accept_loss: Share of mates that may be lost, 0..1.
        sample: Most persons searched for.
    """

    m: int = 16
    ef_construction: int = 64
    ef_search: int = 100
    accept_loss: float = ACCEPTED_LOSS
    sample: int = DEFAULT_SAMPLE


@dataclass(frozen=True, slots=True)
class _Searched:
    """The persons closest to an enrolled face, with their cosines, and how long it took to find them."""

    face: Enrolled
    exact: tuple[UUID, float] | None
    along: tuple[UUID, float] | None
    exact_ms: float
    along_ms: float


class OwnGraph:
    """Builds graphs, measures them and has collections searched along them."""

    def __init__(self, database: Database, pipelines: Pipelines, collections: Collections) -> None:
        self._database = database
        self._pipelines = pipelines
        self._collections = collections

    async def turn_on(self, reference: str, wanted: GraphWanted, *, actor: Actor) -> Collection:
        """Build a collection's graph, measure what it loses and, if that is accepted, search along it from then on.

        Again, with another `ef_search`, the graph that is there is measured and searched so.

        Raises:
            NotFoundError: There is no such collection.
            PackNotLoadedError: The pack that makes its vectors is not loaded.
            InvalidInputError: The parameters do not fit each other, too much was lost, or nothing can be measured; the
                collection is searched as before.
            ConflictError: The collection has another graph, or another process is at it.
        """
        if wanted.ef_construction < 2 * wanted.m:
            raise InvalidInputError(f"ef_construction must be at least 2 m, {2 * wanted.m} here.")
        home = await self._home(reference)
        async with self._database.graph_work(home.id) as graphs:
            home = await self._home(str(home.id))
            there = _is_there(home, wanted)
            try:
                if not there:
                    dimension = self._pipelines.of(home.contract_id).contract.dimension
                    await graphs.build(home.contract_id, dimension, wanted.m, wanted.ef_construction)
                loss = await self._measure(home, wanted)
                _check_loss(home, loss, wanted)
                graph = Graph(
                    home.contract_id, wanted.m, wanted.ef_construction, wanted.ef_search, datetime.now(UTC), loss
                )
                return await self._collections.search_along(home.id, graph, actor=actor)
            except BaseException:
                if not there:
                    await graphs.drop()
                raise

    async def _home(self, reference: str) -> Collection:
        async with self._database.work(read_only=True) as work:
            return await find_collection(work, reference)

    async def _measure(self, home: Collection, wanted: GraphWanted) -> GraphLoss:
        """Search for a face each of persons with two, or, if no mate is found so, of any."""
        pipeline = self._pipelines.of(home.contract_id)
        for least, of in ((2, "mates"), (1, "neighbours")):
            async with self._database.work(read_only=True) as work:
                size = await work.faces.count(home.id, home.contract_id)
                faces = await work.graphs.sample(home.id, home.contract_id, least_faces=least, count=wanted.sample)
            threshold = threshold_for(home.policy, calibration_of(home, pipeline), size).cosine
            searched = await self._search(home, faces, wanted.ef_search)
            had = [one for one in searched if one.exact and (least == 1 or _is_mate(one, threshold))]
            if had:
                lost = sum(one.along is None or one.along[0] != one.exact[0] for one in had if one.exact)
                rate = wilson(lost, len(had))
                medians = median(one.exact_ms for one in searched), median(one.along_ms for one in searched)
                return GraphLoss(of, len(had), lost, rate.low, rate.high, *medians)
        raise InvalidInputError(
            f"What a graph would lose cannot be measured: collection '{home.name}' has no two faces under live consent."
        )

    async def _search(self, home: Collection, faces: Sequence[Enrolled], ef_search: int) -> list[_Searched]:
        searched = []
        for start in range(0, len(faces), IN_ONE_VIEW):
            async with self._database.work(read_only=True) as work:
                for face in faces[start : start + IN_ONE_VIEW]:
                    began = time.perf_counter()
                    exact = await work.graphs.closest_other(home.id, home.contract_id, face)
                    between = time.perf_counter()
                    along = await work.graphs.closest_other(home.id, home.contract_id, face, ef_search=ef_search)
                    ended = time.perf_counter()
                    searched.append(_Searched(face, exact, along, (between - began) * 1e3, (ended - between) * 1e3))
        return searched


def _is_there(home: Collection, wanted: GraphWanted) -> bool:
    """Say whether the graph is built, and refuse to replace another one."""
    graph = home.graph
    if graph is None:
        return False
    if (graph.contract_id, graph.m, graph.ef_construction) == (home.contract_id, wanted.m, wanted.ef_construction):
        return True
    raise ConflictError(
        f"Collection '{home.name}' has a graph of contract '{graph.contract_id}' with m {graph.m} and ef_construction "
        f"{graph.ef_construction}. Set search to auto first: that drops it."
    )


def _is_mate(searched: _Searched, threshold: float) -> bool:
    exact = searched.exact
    return exact is not None and exact[0] == searched.face.person_id and exact[1] >= threshold


def _check_loss(home: Collection, loss: GraphLoss, wanted: GraphWanted) -> None:
    if loss.share > wanted.accept_loss:
        raise InvalidInputError(
            f"Along this graph {loss.lost} of {loss.probes} {loss.of} that an exact search of '{home.name}' has first "
            f"were lost: {100 * loss.share:.2f} % ({100 * loss.low:.2f} % to {100 * loss.high:.2f} %), and "
            f"{100 * wanted.accept_loss:.2f} % are accepted. Nothing was changed. Raise ef_search, then m and "
            "ef_construction, or accept the loss; or stay without a graph.",
            of=loss.of,
            probes=loss.probes,
            lost=loss.lost,
            exact_ms=round(loss.exact_ms, 2),
            graph_ms=round(loss.graph_ms, 2),
        )
