"""Records of the reports; `report.json` holds their fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.evaluation.gallery import GalleryResult
from vultus.evaluation.identification import TemplateFusion
from vultus.evaluation.liveness import LivenessResult
from vultus.evaluation.pairs import AllPairsResult, ListedPairsResult
from vultus.evaluation.provenance import Provenance
from vultus.evaluation.runner import PhotoFailure, Timing
from vultus.statistics.groups import GroupsResult
from vultus.statistics.matched import MatchedImpostors

if TYPE_CHECKING:
    from vultus.evaluation.datasets import DataSet
    from vultus.evaluation.runner import DescribedPhotos

PAIRS_SCHEMA = "vultus.evaluation.pairs/1"
GALLERY_SCHEMA = "vultus.evaluation.gallery/1"
LIVENESS_SCHEMA = "vultus.evaluation.liveness/1"
IMPOSTORS_SCHEMA = "vultus.evaluation.impostors/1"


@dataclass(frozen=True, slots=True)
class EvaluationContext:
    """Conditions of an evaluation on faces with embeddings.

    Attributes:
        data: Name of the data set's folder.
        persons: With at least one photo.
        photos: All of them.
        without_face: Photos without an embedding.
        several_faces: Photos in which more than one face was found.
        failures: Photos without an embedding, and why.
        timing: Time of detection and embedding.
        provenance: Program and machine.
    """

    data: str
    persons: int
    photos: int
    without_face: int
    several_faces: int
    failures: tuple[PhotoFailure, ...]
    timing: Timing
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class PairsReport:
    """Verification. Members are only added to a schema; a change of meaning makes a new one.

    Attributes:
        evaluated: Conditions of the evaluation.
        listed: Figures on the listed pairs; None without a list.
        all: Figures on all pairs.
        groups: Error rates by group, one result per grouping.
        schema: Names this structure.
    """

    evaluated: EvaluationContext
    listed: ListedPairsResult | None
    all: AllPairsResult
    groups: tuple[GroupsResult, ...] = ()
    schema: str = PAIRS_SCHEMA


@dataclass(frozen=True, slots=True)
class GalleryReport:
    """Identification.

    Attributes:
        evaluated: Conditions of the evaluation.
        enrol: Photos enrolled per person.
        held_out: Share of persons who were not enrolled.
        seed: Of the split.
        result: The figures.
        fusion: How persons with several templates were compared.
        schema: Names this structure.
    """

    evaluated: EvaluationContext
    enrol: int
    held_out: float
    seed: int
    result: GalleryResult
    fusion: TemplateFusion = TemplateFusion.BEST
    schema: str = GALLERY_SCHEMA


@dataclass(frozen=True, slots=True)
class LivenessReport:
    """Presentation attack detection.

    Attributes:
        data: Name of the data set's folder.
        photos: By kind: `live`, then the species of attacks.
        failures: Photos that were not assessed, and why.
        photos_per_s: Of all threads together, reading of files included.
        workers: Threads.
        networks: SHA-256 of each file of weights.
        provenance: Program and machine.
        result: The figures.
        network: Name of the liveness network, or of the ensemble.
        schema: Names this structure.
    """

    data: str
    photos: dict[str, int]
    failures: tuple[PhotoFailure, ...]
    photos_per_s: float
    workers: int
    networks: dict[str, str]
    provenance: Provenance
    result: LivenessResult
    network: str = "minifasnet"
    schema: str = LIVENESS_SCHEMA


@dataclass(frozen=True, slots=True)
class ImpostorsReport:
    """False match rates among people of one sex and one age band.

    Attributes:
        evaluated: Conditions of the evaluation.
        stated: The pack's pairs of false match rate and threshold.
        result: The figures.
        schema: Names this structure.
    """

    evaluated: EvaluationContext
    stated: tuple[tuple[float, float], ...]
    result: MatchedImpostors
    schema: str = IMPOSTORS_SCHEMA


Report = PairsReport | GalleryReport | LivenessReport | ImpostorsReport


def build_evaluation_context(data: DataSet, described: DescribedPhotos, provenance: Provenance) -> EvaluationContext:
    """Summarize the conditions of the evaluation."""
    return EvaluationContext(
        data=data.root.resolve().name,
        persons=int((data.photo_counts > 0).sum()),
        photos=len(data.photos),
        without_face=len(described.failures),
        several_faces=described.multi_face_count,
        failures=described.failures,
        timing=described.timing,
        provenance=provenance,
    )
