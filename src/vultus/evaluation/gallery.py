"""Identification: who is this? Searches of a gallery for people who are enrolled and for people who are not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vultus.domain import Calibration, DecisionPolicy, QualityRule, Verdict
from vultus.domain.decision import DEFAULT_FMR, decide, quality_faults
from vultus.evaluation.identification import (
    Fusion,
    Searches,
    Split,
    match_counts,
    one_to_one,
    open_set,
    quality_weights,
    search,
)
from vultus.evaluation.pairs import Drawing, draw
from vultus.statistics.intervals import Rate, clustered
from vultus.statistics.metrics import RESOLVED_ERRORS, at_fmr, at_threshold, curve_of, expected_errors

if TYPE_CHECKING:
    from vultus.evaluation.datasets import DataSet
    from vultus.evaluation.runner import Described
    from vultus.statistics.metrics import Flags, Indices

FPIRS = (1e-1, 1e-2, 1e-3)
FMRS = (1e-3, 1e-4)
RANKS = (1, 5, 10)
LONGEST_LIST = 50
ANSWERS = ("correct_match", "wrong_match", "ambiguous", "no_match", "low_quality", "no_face")


class Judging(Protocol):
    """What a pack says about decisions."""

    @property
    def calibration(self) -> Calibration:
        """Thresholds of the vector space."""
        ...

    @property
    def enrol_rule(self) -> QualityRule:
        """What a photo should reach to be enrolled."""
        ...

    @property
    def recognize_rule(self) -> QualityRule:
        """What a face should reach to be recognised."""
        ...


@dataclass(frozen=True, slots=True)
class SearchPoint:
    """The misses at the lowest threshold whose false positive identification rate does not exceed a target.

    Attributes:
        target_fpir: Wanted false positive identification rate.
        expected_errors: False positives it means among these non-mate searches.
        resolved: Whether they are enough for the threshold to be used elsewhere.
        threshold: Cosine; None where fewer than one false positive is expected.
        fpir: Reached rate; None without a threshold.
        fnir: False negative identification rate; None without a threshold.
    """

    target_fpir: float
    expected_errors: float
    resolved: bool
    threshold: float | None = None
    fpir: Rate | None = None
    fnir: Rate | None = None


@dataclass(frozen=True, slots=True)
class OneToOne:
    """Comparisons of probes with one enrolled person each, at a threshold.

    Attributes:
        target_fmr: Wanted false match rate; None at the threshold of the default decision.
        threshold: Cosine.
        fmr: Share of comparisons of strangers with a fully enrolled person that reach it.
        impostor: How many those are.
        tar: Share of mate searches whose own person reaches it.
    """

    target_fmr: float | None
    threshold: float
    fmr: float
    impostor: int
    tar: Rate


@dataclass(frozen=True, slots=True)
class GalleryResult:
    """Figures of all searches.

    Attributes:
        enrolled_persons: With at least one template.
        templates: Faces in the gallery.
        distractors: Enrolled persons, of those wanted, who are never searched.
        mate_searches: For persons who should be in the gallery.
        mate_persons: Different persons in them.
        stranger_searches: For persons who are not in the gallery.
        stranger_persons: Different persons in them.
        failed_to_enrol: Photos to enrol that show no face.
        failed_probes: Probes that show no face.
        unreachable: Mate searches for a person none of whose photos could be enrolled.
        identified: Share of mate searches with the mate among the best r, by r.
        points: Open-set operating points.
        decision_threshold: Cosine of the pack's default decision.
        decisions_mate: What the pack's default decision answers to mate searches.
        decisions_stranger: What it answers to non-mate searches.
        cmc: Share of mate searches with the mate among the best 1, 2, … candidates.
        drawing: Curve (threshold, FPIR, 1 − FNIR) and histogram of the scores that decide.
        verification: One-to-one comparisons of the same probes.
    """

    enrolled_persons: int
    templates: int
    distractors: int
    mate_searches: int
    mate_persons: int
    stranger_searches: int
    stranger_persons: int
    failed_to_enrol: int
    failed_probes: int
    unreachable: int
    identified: dict[int, Rate]
    points: tuple[SearchPoint, ...]
    decision_threshold: float
    decisions_mate: dict[str, Rate]
    decisions_stranger: dict[str, Rate]
    cmc: tuple[float, ...]
    drawing: Drawing
    verification: tuple[OneToOne, ...]


def evaluate_gallery(
    data: DataSet, parts: Split, described: Described, judging: Judging, fusion: Fusion = Fusion.BEST
) -> GalleryResult:
    """Enrol and search. Intervals come from leaving out one person at a time.

    Raises:
        InvalidInputError: No enrolled photo shows a face.
    """
    found, person = described.found, data.person
    weights = quality_weights(described.faces) if fusion is Fusion.QUALITY else None
    seek = partial(search, described.vectors, found, person, enrolled=parts.enrolled, fusion=fusion, weights=weights)
    mates, strangers = seek(probes=parts.mates), seek(probes=parts.strangers)
    tally = open_set(mates, strangers)
    curve = curve_of(tally)
    gallery = parts.enrolled[found[parts.enrolled]]
    enrolled = np.unique(person[gallery])
    cmc = match_counts(mates.rank, most=LONGEST_LIST) / len(parts.mates)
    kinds = (parts.mates, mates), (parts.strangers, strangers)
    decided = [_decisions(data, described, judging, probes, answers, len(gallery)) for probes, answers in kinds]

    def point(target: float) -> SearchPoint:
        expected = expected_errors(target, len(parts.strangers))
        resolved = expected >= RESOLVED_ERRORS
        if expected < 1:
            return SearchPoint(target, expected, resolved)
        limit = float(curve.thresholds[at_fmr(curve, target, len(parts.strangers))])
        missed = ~((mates.rank == 1) & (mates.mate >= limit))
        return SearchPoint(
            target,
            expected,
            resolved,
            limit,
            _rate(strangers.best >= limit, person[parts.strangers]),
            _rate(missed, person[parts.mates]),
        )

    return GalleryResult(
        enrolled_persons=len(enrolled),
        templates=len(gallery),
        distractors=parts.distractors,
        mate_searches=len(parts.mates),
        mate_persons=len(np.unique(person[parts.mates])),
        stranger_searches=len(parts.strangers),
        stranger_persons=len(np.unique(person[parts.strangers])),
        failed_to_enrol=len(parts.enrolled) - len(gallery),
        failed_probes=int((~found[parts.mates]).sum() + (~found[parts.strangers]).sum()),
        unreachable=int((~np.isin(person[parts.mates], enrolled)).sum()),
        identified={best: _rate((mates.rank > 0) & (mates.rank <= best), person[parts.mates]) for best in RANKS},
        points=tuple(map(point, FPIRS)),
        decision_threshold=judging.calibration.threshold_at(DEFAULT_FMR),
        decisions_mate=decided[0],
        decisions_stranger=decided[1],
        cmc=tuple(map(float, cmc)),
        drawing=draw(tally, curve),
        verification=_verification(mates, strangers, person[parts.mates], judging.calibration),
    )


def _verification(
    mates: Searches, strangers: Searches, person: Indices, calibration: Calibration
) -> tuple[OneToOne, ...]:
    tally = one_to_one(mates, strangers)
    if not tally.impostor_trials:  # no stranger shows a face
        return ()
    curve, impostors = curve_of(tally), tally.impostor_trials
    aims: list[tuple[float | None, float]] = [
        (rate, float(curve.thresholds[at_fmr(curve, rate, impostors)]))
        for rate in FMRS
        if expected_errors(rate, impostors) >= RESOLVED_ERRORS
    ]
    return tuple(
        OneToOne(
            target,
            limit,
            float(curve.fmr[at_threshold(curve, limit)]),
            impostors,
            _rate(mates.mate >= limit, person),
        )
        for target, limit in [*aims, (None, calibration.threshold_at(DEFAULT_FMR))]
    )


def _rate(hit: Flags, person: Indices) -> Rate:
    """Return the share of searches with an outcome, with persons as the unit of chance."""
    return clustered(np.bincount(person, weights=hit), np.bincount(person))


def _decisions(
    data: DataSet, described: Described, judging: Judging, probes: Indices, answers: Searches, templates: int
) -> dict[str, Rate]:
    """Return the share of each answer of the pack's default decision."""
    policy = DecisionPolicy(enrol=judging.enrol_rule, recognize=judging.recognize_rule)
    said = []
    for at, probe in enumerate(probes):
        face = described.faces[probe]
        if face is None:
            said.append("no_face")
            continue
        verdict = decide(
            [float(score) for score in (answers.best[at], answers.second[at]) if np.isfinite(score)],
            policy=policy,
            calibration=judging.calibration,
            gallery_size=templates,
            faults=quality_faults(face.quality, face.face.score, policy.recognize),
        ).verdict
        right = answers.found[at] == data.person[probe]
        said.append(("correct_match" if right else "wrong_match") if verdict is Verdict.MATCH else verdict.value)
    outcome = np.array(said)
    return {kind: _rate(outcome == kind, data.person[probes]) for kind in ANSWERS}
