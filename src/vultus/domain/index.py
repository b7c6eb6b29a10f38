"""How a collection is searched, what an index of one-bit codes is made of, and what a graph loses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from vultus.domain.faces import FloatArray

NumberArray = NDArray[np.int64]  # the numbers of templates, which rise in the order of commits within a collection
CodeArray = NDArray[np.uint8]  # (n, width): a code a row, bits / 8 bytes and two more


@dataclass(frozen=True, slots=True, eq=False)
class Coding:
    """How a collection's templates of a contract are coded.

    Attributes:
        centre: (d,) float32, subtracted before the projections; what is stored, and so what holds, is its float16.
        bits: Of a code.
    """

    collection_id: UUID
    contract_id: str
    centre: FloatArray
    bits: int


class SearchMode(StrEnum):
    """How a collection is searched."""

    AUTO = "auto"  # in SQL, or from a size on by the candidate index
    EXACT = "exact"  # in SQL, whatever its size
    HNSW = "hnsw"  # along a graph, which misses some


@dataclass(frozen=True, slots=True)
class GraphLoss:
    """What a graph lost of what exact searches for enrolled faces, themselves left out, had first.

    Attributes:
        of: `mates`: other faces of the same person, above the collection's threshold; `neighbours`, where no search
            had one first: whoever was first.
        probes: Searches that had one first.
        lost: Of them, those that had somebody else, or nobody, first along the graph.
        low: Lower end of the share's 95 % interval, 0..1.
        high: Upper end.
        exact_ms: Median of an exact search, milliseconds.
        graph_ms: Median of one along the graph.
    """

    of: str
    probes: int
    lost: int
    low: float
    high: float
    exact_ms: float
    graph_ms: float

    @property
    def share(self) -> float:
        """Return lost / probes, 0..1."""
        return self.lost / self.probes


@dataclass(frozen=True, slots=True)
class Graph:
    """A collection's HNSW graph (Malkov and Yashunin 2018): its parameters and what it lost.

    Attributes:
        contract_id: Of the templates in it; those of another contract are searched as without it.
        m: Most neighbours of a face in a layer.
        ef_construction: Candidates for them while it is built.
        ef_search: Candidates of a search.
        measured_at: When the loss was.
        loss: On this collection, with these parameters.
    """

    contract_id: str
    m: int
    ef_construction: int
    ef_search: int
    measured_at: datetime
    loss: GraphLoss


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """Some templates: (n,) numbers and (n, width) codes."""

    numbers: NumberArray
    codes: CodeArray


@dataclass(frozen=True, slots=True)
class Size:
    """How large a collection is under a contract, from PostgreSQL's statistics.

    Attributes:
        rows: About how many templates: those of all its contracts together; seconds behind; after a crash of the
            server, as counted by its last ANALYZE or VACUUM, or the least that the file's size tells.
        deleted: Rises, seconds later, when templates went, and falls to 0 with a crash: another value than before
            means that it is time to look for what was erased.
    """

    collection_id: UUID
    contract_id: str
    rows: int
    deleted: int


@dataclass(frozen=True, slots=True, eq=False)
class Enrolled:
    """A face to search for: whose it is, and its (d,) float32 vector."""

    face_id: UUID
    person_id: UUID
    vector: FloatArray
