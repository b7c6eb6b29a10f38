"""Conversion of a policy between embedding spaces: equivalent thresholds, margins and quality rules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vultus.errors import InvalidInputError
from vultus.services.collections import get_calibration

if TYPE_CHECKING:
    from vultus.domain import Calibration, Collection, DecisionPolicy, SpaceRegistry
    from vultus.domain.policies import RateCurve

RATE_TOLERANCE = 1e-6
"""Relative rounding error of a rate converted to its logarithm and back."""


def convert_policy(collection: Collection, space_id: str, spaces: SpaceRegistry) -> DecisionPolicy:
    """Return a collection's policy converted to another embedding space.

    A fixed threshold becomes the lowest one at which no false match rate, of matched strangers or of any two people, is
    higher; a fixed margin the same multiple of the measured one. A target rate or a quality rule that is its pack's
    default becomes the other pack's, because networks differ in what they can keep, and detector scores in scale. What
    the policy leaves to the calibration stays. Where a calibration does not resolve the rate of a fixed threshold, its
    strictest point stands in: sufficient for comparisons; before a cutover, call
    `check_threshold_resolved`. Where no loaded pack makes the collection's vectors any more, what is neither a fixed
    threshold nor a fixed margin stays.

    Raises:
        PackNotLoadedError: A fixed threshold or margin is one of an embedding space that is not loaded.
    """
    policy = collection.policy
    if policy.threshold is None and policy.margin is None and spaces.find_space(collection.space_id) is None:
        return policy
    current_space, target_space = spaces.get_space(collection.space_id), spaces.get_space(space_id)
    current_calibration, target_calibration = (
        get_calibration(collection, current_space),
        get_calibration(collection, target_space),
    )
    defaults = (current_space.enrol_rule, current_space.recognize_rule, *current_space.earlier_rules)
    threshold, target_fmr, margin = policy.threshold, policy.target_fmr, policy.margin
    if threshold is not None:
        threshold = max(
            target.get_threshold(current.get_fmr(threshold))
            for current, target in _pair_curves(current_calibration, target_calibration)
        )
    if target_fmr == current_calibration.default_fmr:
        target_fmr = target_calibration.default_fmr
    if margin is not None and current_calibration.margin:
        margin = margin * target_calibration.margin / current_calibration.margin
    return replace(
        policy,
        threshold=threshold,
        target_fmr=target_fmr,
        margin=margin,
        enrol=target_space.enrol_rule if policy.enrol in defaults else policy.enrol,
        recognize=target_space.recognize_rule if policy.recognize in defaults else policy.recognize,
    )


def _pair_curves(current: Calibration, target: Calibration) -> tuple[tuple[RateCurve, RateCurve], ...]:
    """Return the curves of both calibrations: of their points, and of any two people."""
    return (current, target), (current.anybody_curve, target.anybody_curve)


def check_threshold_resolved(collection: Collection, space_id: str, spaces: SpaceRegistry) -> None:
    """Raise unless a fixed threshold can be converted to another embedding space without loosening it silently.

    Raises:
        InvalidInputError: One of the two calibrations does not resolve the threshold's false match rate.
    """
    threshold = collection.policy.threshold
    if threshold is None:
        return
    current_calibration, target_calibration = (
        get_calibration(collection, spaces.get_space(one)) for one in (collection.space_id, space_id)
    )
    rate, strictest = current_calibration.get_fmr(threshold), current_calibration.points[-1][1]
    is_resolved = all(
        current.get_fmr(threshold) >= target.strictest_fmr * (1 - RATE_TOLERANCE)
        for current, target in _pair_curves(current_calibration, target_calibration)
    )
    if threshold <= strictest and is_resolved:
        return
    below = f"below {current_calibration.strictest_fmr:.0e}" if threshold > strictest else f"of {rate:.0e}"
    raise InvalidInputError(
        f"The fixed threshold {threshold} of '{collection.name}' means a false match rate {below}: contract "
        f"'{collection.space_id}' was measured down to {current_calibration.strictest_fmr:.0e}, '{space_id}' down to "
        f"{target_calibration.strictest_fmr:.0e}. Change the policy first, to a target_fmr or target_fpir, which hold "
        "under both, or to a threshold with a rate that both resolve."
    )
