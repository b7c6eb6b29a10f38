"""Search modes, the binary quantization index, and the HNSW graph with its recall loss."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from vultus.domain.faces import FloatArray

NumberArray = NDArray[np.int64]  # template numbers, which ascend in commit order within a collection
CodeArray = NDArray[np.uint8]  # (n, width): one code per row, bits / 8 bytes and two more


@dataclass(frozen=True, slots=True, eq=False)
class QuantizerParameters:
    """Quantizer parameters of a collection's templates in an embedding space.

    Attributes:
        centre: (d,) float32, subtracted before the projections; stored as float16, and the stored value is in effect.
        bits: Bits of a code.
    """

    collection_id: UUID
    space_id: str
    centre: FloatArray
    bits: int


class SearchMode(StrEnum):
    """How a collection is searched."""

    AUTO = "auto"  # in SQL, or above some size by the candidate index
    EXACT = "exact"  # in SQL, whatever its size
    HNSW = "hnsw"  # by HNSW index, with recall loss


@dataclass(frozen=True, slots=True)
class HnswRecallLoss:
    """Recall loss of an HNSW graph against exact search, measured by leave-one-out searches for enrolled faces.

    Attributes:
        of: The expected first result: `mates`, other faces of the same person above the collection's threshold; or
            `neighbours`, any face, if no exact search had a mate first.
        probes: Searches whose exact first result was such a face.
        lost: Of them, those with another first result, or none, by HNSW.
        low: Lower end of the share's 95 % interval, 0..1.
        high: Upper end.
        exact_ms: Median of an exact search, milliseconds.
        graph_ms: Median of an HNSW search, milliseconds.
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
        """The share lost / probes, 0..1."""
        return self.lost / self.probes


@dataclass(frozen=True, slots=True)
class HnswGraph:
    """A collection's HNSW graph (Malkov and Yashunin 2018): its parameters and recall loss.

    Attributes:
        contract_id: Embedding space of its templates; other spaces are searched without it.
        m: Maximum number of neighbours of a face per layer.
        ef_construction: Candidates for neighbours during the build.
        ef_search: Candidates of a search.
        measured_at: Time of the measurement.
        loss: Recall loss on this collection with these parameters.
    """

    contract_id: str
    m: int
    ef_construction: int
    ef_search: int
    measured_at: datetime
    loss: HnswRecallLoss


@dataclass(frozen=True, slots=True, eq=False)
class CodeBlock:
    """A block of templates: (n,) numbers and (n, width) codes."""

    numbers: NumberArray
    codes: CodeArray


@dataclass(frozen=True, slots=True)
class SpaceStatistics:
    """Size of a collection in an embedding space, from PostgreSQL's statistics, and how far erasures have come.

    Attributes:
        rows: Estimated number of templates in all its embedding spaces together, seconds behind; after a crash of the
            server the count of the last ANALYZE or VACUUM, or the minimum for the file's size.
        last_tombstone: Number of its last tombstone; 0 without any.
        is_sealed: Whether its templates are sealed, or are being sealed.
    """

    collection_id: UUID
    space_id: str
    rows: int
    last_tombstone: int
    is_sealed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class EnrolledFace:
    """An enrolled face as a probe: its person and its (d,) float32 vector."""

    face_id: UUID
    person_id: UUID
    vector: FloatArray
