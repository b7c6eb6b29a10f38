"""Decision rules: pure functions from candidates, quality and policy to a `Decision`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from vultus.domain import Band, Calibration, Candidate, Decision, DecisionPolicy, Quality, QualityRule, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain.policies import RateCurve

DEFAULT_FPIR = 1e-2
"""One stranger in a hundred named by a search."""

LOOKALIKE_FPIR = 1e-2
"""Accepted rate of enrolments refused because of another person's face in the same gallery."""


def build_default_policy(enrol: QualityRule, recognize: QualityRule, calibration: Calibration) -> DecisionPolicy:
    """Return the policy of new collections in an embedding space with these quality rules and this calibration."""
    return DecisionPolicy(
        enrol=enrol, recognize=recognize, target_fmr=calibration.default_fmr, target_fpir=DEFAULT_FPIR
    )


@dataclass(frozen=True, slots=True)
class Threshold:
    """The cosine a candidate must reach, and its error rate.

    Attributes:
        cosine: The threshold.
        fmr: False match rate of one comparison at that cosine.
        anybody_fmr: That of any two persons, as a gallery holds them.
        beyond_measurement: Whether the policy requires a rate lower than the calibration's data can resolve; the
            strictest measured threshold is then used instead.
    """

    cosine: float
    fmr: float
    anybody_fmr: float
    beyond_measurement: bool = False


@lru_cache(maxsize=1024)  # called for every face, with the same arguments within a collection
def compute_threshold(policy: DecisionPolicy, calibration: Calibration, gallery_size: int | None) -> Threshold:
    """Return the threshold a policy requires.

    Args:
        policy: The collection's policy.
        calibration: Calibration of the collection's embedding space.
        gallery_size: Templates that a search compares; None for a comparison with one person.
    """
    anybody = calibration.anybody_curve
    if policy.threshold is not None:
        return Threshold(policy.threshold, calibration.get_fmr(policy.threshold), anybody.get_fmr(policy.threshold))
    required: list[tuple[RateCurve, float]] = [(calibration, policy.target_fmr or calibration.default_fmr)]
    if policy.target_fpir is not None and gallery_size is not None:
        required.append((anybody, compute_fmr(policy.target_fpir, gallery_size)))
    cosine = max(curve.get_threshold(fmr) for curve, fmr in required)
    return Threshold(
        cosine,
        calibration.get_fmr(cosine),
        anybody.get_fmr(cosine),
        beyond_measurement=any(fmr < curve.strictest_fmr for curve, fmr in required),
    )


def compute_lookalike_threshold(policy: DecisionPolicy, calibration: Calibration, gallery_size: int) -> float:
    """Return the cosine from which a new face counts as an already enrolled person.

    Never laxer than the collection's threshold, and strict enough that a gallery of this size wrongly refuses at most
    about `LOOKALIKE_FPIR` of new persons, as far as the calibration's data resolves it.
    """
    required = calibration.anybody_curve.get_threshold(compute_fmr(LOOKALIKE_FPIR, gallery_size))
    return max(compute_threshold(policy, calibration, gallery_size).cosine, required)


def compute_fpir(fmr: float, gallery_size: int) -> float:
    """Return the false positive identification rate of a search: 1 − (1 − FMR)^N for independent comparisons."""
    return 1.0 if fmr >= 1 and gallery_size else -math.expm1(gallery_size * math.log1p(-min(fmr, 1 - 1e-12)))


def compute_fmr(fpir: float, gallery_size: int) -> float:
    """Return the false match rate that gives `fpir` in a gallery of `gallery_size` templates."""
    return -math.expm1(math.log1p(-fpir) / max(1, gallery_size))


QUALITY_FAULTS = (
    "not_a_face",
    "low_detection_score",
    "too_small",
    "too_blurred",
    "too_dark",
    "too_bright",
    "poor_for_network",
    "extreme_pose",
)
"""What `find_quality_faults` returns some of."""

VERDICT_REASONS = (
    "above_threshold",
    "below_threshold",
    "gallery_empty",
    "no_candidate",
    "runner_up_too_close",
    "threshold_beyond_measurement",
)
"""Reasons of a verdict beside quality faults and attacks."""


def find_quality_faults(quality: Quality, score: float, rule: QualityRule) -> tuple[str, ...]:
    """Return which limits of a rule a face violates, as stable identifiers; empty if none."""
    faults = {
        "not_a_face": quality.face_score is not None and quality.face_score < rule.min_face_score,
        "low_detection_score": score < rule.min_score,
        "too_small": quality.size_px < rule.min_size_px,
        "too_blurred": quality.sharpness < rule.min_sharpness,
        "too_dark": quality.brightness < rule.min_brightness,
        "too_bright": quality.brightness > rule.max_brightness,
        "poor_for_network": quality.network_score is not None and quality.network_score < rule.min_network_score,
        "extreme_pose": abs(quality.yaw_deg) > rule.max_yaw_deg or abs(quality.pitch_deg) > rule.max_pitch_deg,
    }
    return tuple(name for name, present in faults.items() if present)


def decide_verdict(
    similarities: Sequence[float],
    *,
    policy: DecisionPolicy,
    calibration: Calibration,
    gallery_size: int,
    is_search: bool = True,
    faults: tuple[str, ...] = (),
    attack_reason: str | None = None,
) -> Decision:
    """Return the decision about one probe face.

    In this order: a presentation attack is `not_live`; a face below the collection's quality rule is `low_quality`;
    without a candidate at the threshold it is `no_match`; a best candidate less than the margin ahead of the next
    person is `ambiguous`; else `match`.

    Args:
        similarities: Cosines of the candidates, best first, one per person.
        policy: The collection's policy.
        calibration: Calibration of the collection's embedding space.
        gallery_size: Templates compared.
        is_search: Whether the probe was searched for, and not compared with one person.
        faults: The face's quality faults, from `find_quality_faults`.
        attack_reason: Why the face counts as a presentation attack, in which case it has no candidates; else None.
    """
    limit = compute_threshold(policy, calibration, gallery_size if is_search else None)
    needed = policy.margin if policy.margin is not None else calibration.margin
    margin = similarities[0] - similarities[1] if len(similarities) > 1 else None
    reasons: tuple[str, ...]
    if attack_reason:
        verdict, reasons = Verdict.NOT_LIVE, (attack_reason,)
    elif faults:
        verdict, reasons = Verdict.LOW_QUALITY, faults
    elif not similarities:
        verdict, reasons = Verdict.NO_MATCH, ("gallery_empty" if gallery_size == 0 else "no_candidate",)
    elif similarities[0] < limit.cosine:
        verdict, reasons = Verdict.NO_MATCH, ("below_threshold",)
    elif margin is not None and margin < needed:
        verdict, reasons = Verdict.AMBIGUOUS, ("runner_up_too_close",)
    else:
        verdict, reasons = Verdict.MATCH, ("above_threshold",)
    is_clear = bool(similarities) and similarities[0] - limit.cosine >= calibration.margin
    return Decision(
        verdict=verdict,
        threshold=limit.cosine,
        fmr=limit.fmr,
        worst_group_fmr=calibration.get_worst_group_fmr(limit.cosine),
        fpir=compute_fpir(limit.anybody_fmr, gallery_size),
        gallery_size=gallery_size,
        margin=margin,
        reasons=(*reasons, "threshold_beyond_measurement") if limit.beyond_measurement else reasons,
        band=(Band.CLEAR if is_clear else Band.NEAR_THRESHOLD) if verdict is Verdict.MATCH else None,
    )


def assign_persons_to_faces(lists: Sequence[Sequence[Candidate]], threshold: float) -> list[tuple[Candidate, ...]]:
    """Assign every person to at most one face of a photo.

    Chooses the assignment of faces to persons with the greatest total of cosine above the threshold (rectangular
    assignment problem; Crouse 2016, as implemented by SciPy), then removes from every face's list the persons assigned
    to another face.

    Args:
        lists: Candidates of each face, best first.
        threshold: Pairs below it are never assigned.

    Returns:
        The lists, shortened, in the same order.
    """
    persons = list({c.person_id: None for candidates in lists for c in candidates})
    column = {person: index for index, person in enumerate(persons)}
    gain = np.zeros((len(lists), len(persons)))
    for row, candidates in enumerate(lists):
        for candidate in candidates:
            if candidate.similarity >= threshold:
                # A pair exactly at the threshold must still gain more than no pair.
                gain[row, column[candidate.person_id]] = candidate.similarity - threshold + 1e-9
    owner = {
        persons[person]: face
        for face, person in zip(*linear_sum_assignment(gain, maximize=True), strict=True)
        if gain[face, person] > 0
    }
    return [tuple(c for c in candidates if owner.get(c.person_id, row) == row) for row, candidates in enumerate(lists)]
