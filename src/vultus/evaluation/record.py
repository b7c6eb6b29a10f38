"""What a report records; `report.json` is these values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.evaluation.gallery import GalleryResult
from vultus.evaluation.identification import Fusion
from vultus.evaluation.liveness import LivenessResult
from vultus.evaluation.pairs import AllResult, ListedResult
from vultus.evaluation.provenance import Provenance
from vultus.evaluation.runner import Failure, Timing
from vultus.statistics.groups import GroupsResult

if TYPE_CHECKING:
    from vultus.evaluation.datasets import DataSet
    from vultus.evaluation.runner import Described

PAIRS_SCHEMA = "vultus.evaluation.pairs/1"
GALLERY_SCHEMA = "vultus.evaluation.gallery/1"
LIVENESS_SCHEMA = "vultus.evaluation.liveness/1"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What was measured on: figures both kinds of report share.

    Attributes:
        data: Name of the data set's folder.
        persons: With at least one photo.
        photos: All of them.
        without_face: Photos without an embedding.
        several_faces: Photos in which more than one face was found.
        failures: Photos without an embedding, and why.
        timing: How long describing took.
        provenance: Program and machine.
    """

    data: str
    persons: int
    photos: int
    without_face: int
    several_faces: int
    failures: tuple[Failure, ...]
    timing: Timing
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class PairsReport:
    """Verification. Members are only added to a schema; a change of meaning makes a new one.

    Attributes:
        evaluated: On what, by what.
        listed: Figures on the listed pairs; None without a list.
        all: Figures on all pairs.
        groups: Error rates by group, a division each.
        schema: Names this structure.
    """

    evaluated: Evaluated
    listed: ListedResult | None
    all: AllResult
    groups: tuple[GroupsResult, ...] = ()
    schema: str = PAIRS_SCHEMA


@dataclass(frozen=True, slots=True)
class GalleryReport:
    """Identification.

    Attributes:
        evaluated: On what, by what.
        enrol: Photos enrolled a person.
        held_out: Share of persons who were not enrolled.
        seed: Of the split.
        result: The figures.
        fusion: How persons with several templates were compared.
        schema: Names this structure.
    """

    evaluated: Evaluated
    enrol: int
    held_out: float
    seed: int
    result: GalleryResult
    fusion: Fusion = Fusion.BEST
    schema: str = GALLERY_SCHEMA


@dataclass(frozen=True, slots=True)
class LivenessReport:
    """Presentation attack detection.

    Attributes:
        data: Name of the data set's folder.
        photos: By kind: `live`, then the species of attacks.
        failures: Photos that were not judged, and why.
        photos_per_s: Of all threads together, reading of files included.
        workers: Threads.
        networks: SHA-256 of each file of weights.
        provenance: Program and machine.
        result: The figures.
        schema: Names this structure.
    """

    data: str
    photos: dict[str, int]
    failures: tuple[Failure, ...]
    photos_per_s: float
    workers: int
    networks: dict[str, str]
    provenance: Provenance
    result: LivenessResult
    schema: str = LIVENESS_SCHEMA


Report = PairsReport | GalleryReport | LivenessReport


def evaluated(data: DataSet, described: Described, source: Provenance) -> Evaluated:
    """Sum up what was measured on."""
    return Evaluated(
        data=data.root.resolve().name,
        persons=int((data.counts > 0).sum()),
        photos=len(data.photos),
        without_face=len(described.failures),
        several_faces=described.several,
        failures=described.failures,
        timing=described.timing,
        provenance=source,
    )
