"""Conversion of a policy between embedding spaces: equivalent thresholds, margins and quality rules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vultus.errors import InvalidInputError
from vultus.services.collections import get_calibration

if TYPE_CHECKING:
    from vultus.domain import Collection, DecisionPolicy, SpaceRegistry

RATE_TOLERANCE = 1e-6
"""Relative rounding error of a rate converted to its logarithm and back."""


def convert_policy(collection: Collection, space_id: str, spaces: SpaceRegistry) -> DecisionPolicy:
    """Return a collection's policy converted to another embedding space.

    A fixed threshold becomes the one with the same false match rate, a fixed margin the same multiple of the measured
    one, and a quality rule that is its pack's default becomes the other pack's, because detector scores differ in
    scale. What the policy leaves to the calibration stays. Where a calibration does not resolve the rate of a fixed
    threshold, its strictest point stands in: sufficient for comparisons; before a cutover, call
    `check_threshold_resolved`.
    """
    policy = collection.policy
    current_space, target_space = (
        spaces.get_space(collection.space_id),
        spaces.get_space(space_id),
    )
    current_calibration, target_calibration = (
        get_calibration(collection, current_space),
        get_calibration(collection, target_space),
    )
    threshold, margin = policy.threshold, policy.margin
    if threshold is not None:
        threshold = target_calibration.get_threshold(current_calibration.get_fmr(threshold))
    if margin is not None and current_calibration.margin:
        margin = margin * target_calibration.margin / current_calibration.margin
    return replace(
        policy,
        threshold=threshold,
        margin=margin,
        enrol=target_space.enrol_rule if policy.enrol == current_space.enrol_rule else policy.enrol,
        recognize=target_space.recognize_rule if policy.recognize == current_space.recognize_rule else policy.recognize,
    )


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
    if threshold <= strictest and rate >= target_calibration.strictest_fmr * (1 - RATE_TOLERANCE):
        return
    below = f"below {current_calibration.strictest_fmr:.0e}" if threshold > strictest else f"of {rate:.0e}"
    raise InvalidInputError(
        f"The fixed threshold {threshold} of '{collection.name}' means a false match rate {below}: contract "
        f"'{collection.space_id}' was measured down to {current_calibration.strictest_fmr:.0e}, '{space_id}' down to "
        f"{target_calibration.strictest_fmr:.0e}. Change the policy first, to a target_fmr or target_fpir, which hold "
        "under both, or to a threshold with a rate that both resolve."
    )
