"""Identification: who is this? Searches of a gallery for people who are enrolled and for people who are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vultus.domain import Calibration, DecisionPolicy, QualityRule, Verdict
from vultus.domain.decision import build_default_policy, compute_threshold, decide_verdict, find_quality_faults
from vultus.evaluation.identification import (
    GallerySplit,
    SearchOutcomes,
    TemplateFusion,
    build_one_to_one_tally,
    build_open_set_tally,
    compute_quality_weights,
    count_matches_by_rank,
    search_gallery,
)
from vultus.evaluation.pairs import PlotData, build_plot_data
from vultus.statistics.intervals import Rate, compute_clustered_rate
from vultus.statistics.metrics import (
    RESOLVED_ERRORS,
    compute_expected_errors,
    compute_roc_curve,
    find_position_at_fmr,
    find_position_at_threshold,
)

if TYPE_CHECKING:
    from vultus.evaluation.datasets import DataSet
    from vultus.evaluation.runner import DescribedPhotos
    from vultus.statistics.metrics import Flags, Indices, RocCurve

TARGET_FPIRS = (1e-1, 1e-2, 1e-3)
TARGET_FMRS = (1e-3, 1e-4)
RANKS = (1, 5, 10)
POLICY_TARGETS = ((1e-3, None), (1e-4, None), (1e-5, None), (None, 1e-1), (None, 1e-2), (None, 1e-3))
"""Targets of the policies compared, FMR and FPIR, beside the default policy and that without a margin."""
MAX_RANK = 50
DECISION_OUTCOMES = ("correct_match", "wrong_match", "ambiguous", "no_match", "low_quality", "no_face")


class DecisionDefaults(Protocol):
    """Default decision parameters of a pack."""

    @property
    def calibration(self) -> Calibration:
        """Thresholds of the embedding space."""
        ...

    @property
    def enrol_rule(self) -> QualityRule:
        """Quality a photo should reach to be enrolled."""
        ...

    @property
    def recognize_rule(self) -> QualityRule:
        """Quality a face should reach to be recognised."""
        ...


@dataclass(frozen=True, slots=True)
class IdentificationPoint:
    """The misses at the lowest threshold whose false positive identification rate does not exceed a target.

    Attributes:
        target_fpir: Target false positive identification rate.
        expected_errors: False positives it means among these non-mate searches.
        resolved: Whether they suffice for the threshold to transfer to other data.
        threshold: Cosine; None where fewer than one false positive is expected.
        fpir: Measured rate; None without a threshold.
        fnir: False negative identification rate; None without a threshold.
    """

    target_fpir: float
    expected_errors: float
    resolved: bool
    threshold: float | None = None
    fpir: Rate | None = None
    fnir: Rate | None = None


@dataclass(frozen=True, slots=True)
class OneToOnePoint:
    """Comparisons of probes with one enrolled person each, at a threshold.

    Attributes:
        target_fmr: Target false match rate; None at the threshold of the default decision.
        threshold: Cosine.
        fmr: Share of comparisons of non-mates with a fully enrolled person that reach it.
        impostor: How many those are.
        tar: Share of mate searches whose own person reaches it.
    """

    target_fmr: float | None
    threshold: float
    fmr: float
    impostor: int
    tar: Rate


@dataclass(frozen=True, slots=True)
class PolicyOutcome:
    """What a policy does to the same searches; photos of low quality are decided too.

    Attributes:
        target_fmr: As in `DecisionPolicy`.
        target_fpir: As in `DecisionPolicy`.
        margin: Lead over the runner-up, as cosine.
        threshold: Cosine it means in this gallery.
        right: Share of mate searches that name the right person.
        wrong: Share of mate searches that name somebody else.
        named: Share of non-mate searches that name somebody.
    """

    target_fmr: float | None
    target_fpir: float | None
    margin: float
    threshold: float
    right: Rate
    wrong: Rate
    named: Rate


@dataclass(frozen=True, slots=True)
class GalleryResult:
    """Figures of all searches.

    Attributes:
        enrolled_persons: With at least one template.
        templates: Faces in the gallery.
        distractors: Persons to enrol who are never searched.
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
        policies: What other policies would do.
        decisions_mate: Rate of each outcome of the pack's default decision in mate searches.
        decisions_stranger: The same in non-mate searches.
        cmc: Share of mate searches with the mate among the best 1, 2, … candidates.
        drawing: Curve (threshold, FPIR, 1 − FNIR) and histogram of the decision scores.
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
    points: tuple[IdentificationPoint, ...]
    decision_threshold: float
    policies: tuple[PolicyOutcome, ...]
    decisions_mate: dict[str, Rate]
    decisions_stranger: dict[str, Rate]
    cmc: tuple[float, ...]
    drawing: PlotData
    verification: tuple[OneToOnePoint, ...]


def evaluate_gallery(
    data: DataSet,
    split: GallerySplit,
    described: DescribedPhotos,
    defaults: DecisionDefaults,
    fusion: TemplateFusion = TemplateFusion.BEST,
) -> GalleryResult:
    """Enrol and search. Intervals by the leave-one-person-out jackknife.

    Raises:
        InvalidInputError: No enrolled photo shows a face.
    """
    found, person = described.has_vector, data.person_indices
    weights = compute_quality_weights(described.faces) if fusion is TemplateFusion.QUALITY else None
    search_probes = partial(
        search_gallery, described.vectors, found, person, enrolled=split.enrolled, fusion=fusion, weights=weights
    )
    mates, strangers = search_probes(probes=split.mates), search_probes(probes=split.strangers)
    tally = build_open_set_tally(mates, strangers)
    curve = compute_roc_curve(tally)
    gallery = split.enrolled[found[split.enrolled]]
    enrolled = np.unique(person[gallery])
    cmc = count_matches_by_rank(mates.mate_rank, max_rank=MAX_RANK) / len(split.mates)
    default_policy = build_default_policy(defaults.enrol_rule, defaults.recognize_rule, defaults.calibration)
    kinds = (split.mates, mates), (split.strangers, strangers)
    decided = [
        _compute_decision_rates(data, described, defaults, default_policy, probes, answers, len(gallery))
        for probes, answers in kinds
    ]

    return GalleryResult(
        enrolled_persons=len(enrolled),
        templates=len(gallery),
        distractors=split.distractor_count,
        mate_searches=len(split.mates),
        mate_persons=len(np.unique(person[split.mates])),
        stranger_searches=len(split.strangers),
        stranger_persons=len(np.unique(person[split.strangers])),
        failed_to_enrol=len(split.enrolled) - len(gallery),
        failed_probes=int((~found[split.mates]).sum() + (~found[split.strangers]).sum()),
        unreachable=int((~np.isin(person[split.mates], enrolled)).sum()),
        identified={
            best: _compute_rate((mates.mate_rank > 0) & (mates.mate_rank <= best), person[split.mates])
            for best in RANKS
        },
        points=tuple(_build_point(target, curve, mates, strangers, split, person) for target in TARGET_FPIRS),
        decision_threshold=compute_threshold(default_policy, defaults.calibration, len(gallery)).cosine,
        policies=tuple(
            _evaluate_policy(policy, defaults.calibration, data, split, mates, strangers, len(gallery))
            for policy in _list_policies(default_policy, defaults.calibration)
        ),
        decisions_mate=decided[0],
        decisions_stranger=decided[1],
        cmc=tuple(map(float, cmc)),
        drawing=build_plot_data(tally, curve),
        verification=_evaluate_one_to_one(mates, strangers, person[split.mates], defaults.calibration),
    )


def _build_point(
    target: float,
    curve: RocCurve,
    mates: SearchOutcomes,
    strangers: SearchOutcomes,
    split: GallerySplit,
    person: Indices,
) -> IdentificationPoint:
    """Return the threshold of a target FPIR and its rates; without them where less than one error is expected."""
    expected = compute_expected_errors(target, len(split.strangers))
    resolved = expected >= RESOLVED_ERRORS
    if expected < 1:
        return IdentificationPoint(target, expected, resolved)
    limit = float(curve.thresholds[find_position_at_fmr(curve, target, len(split.strangers))])
    missed = ~((mates.mate_rank == 1) & (mates.mate_score >= limit))
    return IdentificationPoint(
        target,
        expected,
        resolved,
        limit,
        _compute_rate(strangers.best_score >= limit, person[split.strangers]),
        _compute_rate(missed, person[split.mates]),
    )


def _evaluate_one_to_one(
    mates: SearchOutcomes, strangers: SearchOutcomes, person: Indices, calibration: Calibration
) -> tuple[OneToOnePoint, ...]:
    tally = build_one_to_one_tally(mates, strangers)
    if not tally.impostor_trials:  # no non-mate probe shows a face
        return ()
    curve, impostors = compute_roc_curve(tally), tally.impostor_trials
    targets: list[tuple[float | None, float]] = [
        (rate, float(curve.thresholds[find_position_at_fmr(curve, rate, impostors)]))
        for rate in TARGET_FMRS
        if compute_expected_errors(rate, impostors) >= RESOLVED_ERRORS
    ]
    return tuple(
        OneToOnePoint(
            target,
            limit,
            float(curve.fmr[find_position_at_threshold(curve, limit)]),
            impostors,
            _compute_rate(mates.mate_score >= limit, person),
        )
        for target, limit in [*targets, (None, calibration.get_threshold(calibration.default_fmr))]
    )


def _compute_rate(has_outcome: Flags, person: Indices) -> Rate:
    """Return the share of searches with an outcome, with persons as the clusters of the jackknife."""
    return compute_clustered_rate(np.bincount(person, weights=has_outcome), np.bincount(person))


def _compute_decision_rates(
    data: DataSet,
    described: DescribedPhotos,
    defaults: DecisionDefaults,
    policy: DecisionPolicy,
    probes: Indices,
    answers: SearchOutcomes,
    templates: int,
) -> dict[str, Rate]:
    """Return the rate of each outcome of the pack's default decision."""
    outcomes = []
    for at, probe in enumerate(probes):
        face = described.faces[probe]
        if face is None:
            outcomes.append("no_face")
            continue
        verdict = decide_verdict(
            [float(score) for score in (answers.best_score[at], answers.second_score[at]) if np.isfinite(score)],
            policy=policy,
            calibration=defaults.calibration,
            gallery_size=templates,
            faults=find_quality_faults(face.quality, face.face.score, policy.recognize),
        ).verdict
        right = answers.best_person[at] == data.person_indices[probe]
        outcomes.append(("correct_match" if right else "wrong_match") if verdict is Verdict.MATCH else verdict.value)
    outcome = np.array(outcomes)
    return {kind: _compute_rate(outcome == kind, data.person_indices[probes]) for kind in DECISION_OUTCOMES}


def _list_policies(default: DecisionPolicy, calibration: Calibration) -> list[DecisionPolicy]:
    default = replace(default, margin=calibration.margin)
    others = [replace(default, target_fmr=fmr, target_fpir=fpir) for fmr, fpir in POLICY_TARGETS]
    return [default, replace(default, margin=0.0), *others]


def _evaluate_policy(
    policy: DecisionPolicy,
    calibration: Calibration,
    data: DataSet,
    split: GallerySplit,
    mates: SearchOutcomes,
    strangers: SearchOutcomes,
    templates: int,
) -> PolicyOutcome:
    threshold, margin = compute_threshold(policy, calibration, templates).cosine, policy.margin or 0.0

    def find_matches(found: SearchOutcomes) -> Flags:
        matches: Flags = (found.best_score >= threshold) & (found.second_score <= found.best_score - margin)
        return matches

    person = data.person_indices
    matched, is_right = find_matches(mates), mates.best_person == person[split.mates]
    return PolicyOutcome(
        policy.target_fmr,
        policy.target_fpir,
        margin,
        threshold,
        right=_compute_rate(matched & is_right, person[split.mates]),
        wrong=_compute_rate(matched & ~is_right, person[split.mates]),
        named=_compute_rate(find_matches(strangers), person[split.strangers]),
    )
