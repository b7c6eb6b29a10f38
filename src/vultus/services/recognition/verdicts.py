"""From the candidates of every face of a photo to verdicts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vultus.domain import Analysis, Calibration, Candidate, Collection, Decision, DescribedFace, LivenessMode
from vultus.domain.decision import assign_unique, decide, quality_faults, threshold_for
from vultus.services.collections import calibration_of
from vultus.services.photo_analysis import rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import SearchResult
    from vultus.models.pipeline import FacePipeline


@dataclass(frozen=True, slots=True)
class NamedFace:
    """A face of a photo with its verdict and candidates, best first, one entry a person."""

    described: DescribedFace
    decision: Decision
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Recognition:
    """What was recognised in a photo, faces left to right."""

    collection: Collection
    analysis: Analysis
    faces: tuple[NamedFace, ...]


def name_faces(
    home: Collection,
    pipeline: FacePipeline,
    analysis: Analysis,
    found: Sequence[SearchResult],
    limit: int,
    *,
    unique_per_image: bool = False,
    liveness: LivenessMode = LivenessMode.OFF,
) -> tuple[NamedFace, ...]:
    """Decide about every face of a photo.

    Args:
        home: Its policy decides.
        pipeline: Described the faces.
        analysis: The photo.
        found: One result a face, deep enough for the runner-up.
        limit: Candidates kept a face.
        unique_per_image: Give every person to at most one face.
        liveness: Whether a face must be live to have candidates.
    """
    calibration = calibration_of(home, pipeline)
    faults = [quality_faults(face.quality, face.face.score, home.policy.recognize) for face in analysis.faces]
    attacks = [rejected(face, liveness) for face in analysis.faces]
    lists = [() if attack else result.candidates for attack, result in zip(attacks, found, strict=True)]
    if unique_per_image and found:
        limit_cosine = threshold_for(home.policy, calibration, found[0].gallery_size).cosine
        # A face that cannot be trusted must not take a person from one that can.
        contenders = [() if fault else candidates for fault, candidates in zip(faults, lists, strict=True)]
        unique = assign_unique(contenders, limit_cosine)
        lists = [full if fault else mine for fault, full, mine in zip(faults, lists, unique, strict=True)]
    return tuple(
        NamedFace(
            face,
            decide(
                [candidate.similarity for candidate in candidates],
                policy=home.policy,
                calibration=calibration,
                gallery_size=result.gallery_size,
                faults=fault,
                not_live=attack,
            ),
            with_probability(candidates[:limit], calibration),
        )
        for face, fault, attack, candidates, result in zip(analysis.faces, faults, attacks, lists, found, strict=True)
    )


def with_probability(candidates: tuple[Candidate, ...], calibration: Calibration) -> tuple[Candidate, ...]:
    """Return candidates with the probability that their cosine stands for."""
    return tuple(replace(one, probability=calibration.probability(one.similarity)) for one in candidates)
