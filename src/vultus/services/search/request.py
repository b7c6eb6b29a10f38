"""Search queries, and how exact their results must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict
from uuid import UUID

from vultus.domain import FloatArray, Fusion, HnswGraph, SearchMode
from vultus.domain.decision import compute_threshold
from vultus.services.collections import get_calibration

if TYPE_CHECKING:
    from vultus.domain import Collection, LoadedSpace

SearchKey = tuple[UUID, str, HnswGraph | None]


@dataclass(frozen=True, slots=True, eq=False)
class SearchQuery:
    """A search of a collection.

    Attributes:
        probes: (k, d) float32, each row of length 1.
        limit: Maximum number of candidates per probe.
        get_floor: Maps the gallery's size to the cosine from which a person is a match, and the margin by which the
            runner-up must be behind; candidates below both do not affect the decision.
        exact: Whether to search in SQL, whatever the collection's size.
        graph: The HNSW graph to search through; None without one.
    """

    collection_id: UUID
    space_id: str
    probes: FloatArray
    limit: int
    fusion: Fusion
    get_floor: Callable[[int], tuple[float, float]]
    exact: bool = False
    graph: HnswGraph | None = None

    @property
    def key(self) -> SearchKey:
        """Return the key of the graph, or of the index of the embedding space, that serves the query."""
        return self.collection_id, self.space_id, self.graph


def build_query(collection: Collection, space: LoadedSpace, probes: FloatArray, limit: int) -> SearchQuery:
    """Return the query whose results a collection's policy decides on.

    Args:
        collection: The collection, its policy converted to the embedding space.
        space: The embedding space of the probes.
        probes: (k, d) float32, each row of length 1.
        limit: Maximum number of candidates per probe.
    """
    policy, calibration = collection.policy, get_calibration(collection, space)
    margin = policy.margin if policy.margin is not None else calibration.margin
    return SearchQuery(
        collection_id=collection.id,
        space_id=space.id,
        probes=probes,
        limit=limit,
        fusion=policy.fusion,
        get_floor=lambda size: (compute_threshold(policy, calibration, size).cosine, margin),
        **get_search_method(collection, space.id),
    )


class SearchMethod(TypedDict):
    """The fields of a `SearchQuery` that select how it is searched."""

    exact: bool
    graph: HnswGraph | None


def get_search_method(collection: Collection, space_id: str) -> SearchMethod:
    """Return how a collection is searched in an embedding space; a graph holds the vectors of one space only."""
    graph = collection.graph if collection.graph and collection.graph.contract_id == space_id else None
    return {"exact": collection.search is SearchMode.EXACT, "graph": graph}
