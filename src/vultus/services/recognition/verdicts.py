"""Verdicts for the faces of a photo, from their candidates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from vultus.domain import (
    Analysis,
    Calibration,
    Candidate,
    Collection,
    Decision,
    DescribedFace,
    Liveness,
    LivenessMode,
    Verdict,
)
from vultus.domain.decision import assign_persons_to_faces, compute_threshold, decide_verdict, find_quality_faults
from vultus.domain.decision_records import Answer
from vultus.services.collections import get_calibration
from vultus.services.photo_analysis import find_attack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import LoadedSpace, SearchResult


@dataclass(frozen=True, slots=True)
class RecognizedFace:
    """A face of a photo with its verdict.

    Attributes:
        described: The face.
        decision: The verdict and its reasons.
        best: The closest person, whatever the verdict; None if nobody was compared.
        candidates: The closest persons, best first, one entry per person; None if none were requested.
    """

    described: DescribedFace
    decision: Decision
    best: Candidate | None
    candidates: tuple[Candidate, ...] | None

    @property
    def person(self) -> Candidate | None:
        """The person that the verdict names: only a match names somebody."""
        return self.best if self.decision.verdict is Verdict.MATCH else None

    def build_answer(self) -> Answer:
        """Return what is recorded of it."""
        return build_answer(self.decision, self.person, self.described.liveness)

    def hide_scores(self) -> Self:
        """Return the face with nobody but the person whom its verdict names, and without scores."""
        return replace(self, decision=self.decision.hide_scores(), best=self.person, candidates=None)


@dataclass(frozen=True, slots=True)
class Recognition:
    """The recognized faces of a photo, left to right."""

    collection: Collection
    analysis: Analysis
    faces: tuple[RecognizedFace, ...]

    def hide_scores(self) -> Self:
        """Return the recognition without scores."""
        return replace(self, faces=tuple(face.hide_scores() for face in self.faces))


@dataclass(frozen=True, slots=True)
class VectorSearch:
    """The decision about a vector.

    Attributes:
        collection: The collection as it was searched.
        person: Whom the verdict names; None unless it is a match.
        candidates: The closest persons, best first; None if none were requested.
    """

    collection: Collection
    decision: Decision
    person: Candidate | None
    candidates: tuple[Candidate, ...] | None


def decide_faces(
    collection: Collection,
    space: LoadedSpace,
    analysis: Analysis,
    results: Sequence[SearchResult],
    limit: int,
    *,
    unique_per_image: bool = False,
    liveness: LivenessMode = LivenessMode.OFF,
) -> tuple[RecognizedFace, ...]:
    """Return the verdict for every face of a photo, in the order of the faces.

    Args:
        collection: The collection whose policy decides.
        space: The embedding space of the faces.
        analysis: The analysis of the photo.
        results: One result per face, in the same order, deep enough to include the runner-up.
        limit: Maximum number of candidates returned per face; 0 for None.
        unique_per_image: Assign every person to at most one face.
        liveness: Whether a face must be live to have candidates.
    """
    calibration = get_calibration(collection, space)
    faults = [
        find_quality_faults(face.quality, face.face.score, collection.policy.recognize) for face in analysis.faces
    ]
    attacks = [find_attack(face, liveness) for face in analysis.faces]
    lists = [() if attack else result.candidates for attack, result in zip(attacks, results, strict=True)]
    if unique_per_image and results:
        limit_cosine = compute_threshold(collection.policy, calibration, results[0].gallery_size).cosine
        # A face of insufficient quality must not take a person from one of sufficient quality.
        contenders = [() if fault else candidates for fault, candidates in zip(faults, lists, strict=True)]
        unique = assign_persons_to_faces(contenders, limit_cosine)
        lists = [full if fault else assigned for fault, full, assigned in zip(faults, lists, unique, strict=True)]
    return tuple(
        RecognizedFace(
            face,
            decide_verdict(
                [candidate.similarity for candidate in candidates],
                policy=collection.policy,
                calibration=calibration,
                gallery_size=result.gallery_size,
                faults=fault,
                attack_reason=attack,
            ),
            next(iter(candidates), None),
            add_probabilities(candidates[:limit], calibration) if limit else None,
        )
        for face, fault, attack, candidates, result in zip(analysis.faces, faults, attacks, lists, results, strict=True)
    )


def build_answer(decision: Decision, person: Candidate | None, liveness: Liveness | None = None) -> Answer:
    """Return what is recorded of a decision about a probe, and of the person it names."""
    if person is None:
        return Answer(decision=decision, liveness=liveness)
    return Answer(
        decision=decision,
        person_id=person.person_id,
        face_id=person.face_id,
        similarity=person.similarity,
        liveness=liveness,
    )


def add_probabilities(candidates: tuple[Candidate, ...], calibration: Calibration) -> tuple[Candidate, ...]:
    """Return candidates with the probability of a match that corresponds to their cosine."""
    return tuple(replace(one, probability=calibration.compute_probability(one.similarity)) for one in candidates)
