"""What a search is asked for, and how exact its answer must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict
from uuid import UUID

from vultus.domain import FloatArray, Fusion, Graph, SearchMode
from vultus.domain.decision import threshold_for
from vultus.services.collections import calibration_of

if TYPE_CHECKING:
    from vultus.domain import Collection
    from vultus.models.pipeline import FacePipeline

Key = tuple[UUID, str, Graph | None]


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is searched, where, and how exact the answer must be.

    Attributes:
        probes: (k, d) float32, each row of length 1.
        limit: Candidates a probe.
        needed: Given the gallery's size, the cosine at which somebody counts as found, and the margin that the next
            person must be behind: what is below both decides nothing.
        exact: Whether it is searched in SQL, whatever the collection's size.
        graph: What it is searched along instead.
    """

    collection_id: UUID
    contract_id: str
    probes: FloatArray
    limit: int
    fusion: Fusion
    needed: Callable[[int], tuple[float, float]]
    exact: bool = False
    graph: Graph | None = None

    @property
    def key(self) -> Key:
        """Return what searches it: the graph, or the index of the contract's templates."""
        return self.collection_id, self.contract_id, self.graph


def query_of(home: Collection, pipeline: FacePipeline, probes: FloatArray, limit: int) -> Query:
    """Return the search of a collection whose answer its policy decides by.

    Args:
        home: Its policy as it is under the pipeline's contract.
        pipeline: Made the probes.
        probes: (k, d) float32, each row of length 1.
        limit: Candidates a probe.
    """
    policy, calibration = home.policy, calibration_of(home, pipeline)
    margin = policy.margin if policy.margin is not None else calibration.margin
    return Query(
        collection_id=home.id,
        contract_id=pipeline.contract.id,
        probes=probes,
        limit=limit,
        fusion=policy.fusion,
        needed=lambda size: (threshold_for(policy, calibration, size).cosine, margin),
        **ways(home, pipeline.contract.id),
    )


class Ways(TypedDict):
    """How a query is searched."""

    exact: bool
    graph: Graph | None


def ways(home: Collection, contract_id: str) -> Ways:
    """Return how a collection is searched for vectors of a contract; a graph holds those of one contract only."""
    graph = home.graph if home.graph and home.graph.contract_id == contract_id else None
    return {"exact": home.search is SearchMode.EXACT, "graph": graph}
