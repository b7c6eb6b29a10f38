"""One policy under two contracts: cosines, margins and quality rules that mean the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vultus.errors import InvalidInputError
from vultus.services.collections import calibration_of

if TYPE_CHECKING:
    from vultus.domain import Collection, DecisionPolicy
    from vultus.models.pipelines import Pipelines

ROUNDING = 1e-6
"""Of a rate that was taken to its logarithm and back."""


def policy_under(home: Collection, contract_id: str, pipelines: Pipelines) -> DecisionPolicy:
    """Return what a collection's policy means under another contract.

    A fixed threshold becomes the one with the same false match rate, a fixed margin the same multiple of the measured
    one, and a quality rule that is its pack's own becomes the other pack's: the detector's score has another scale
    there. What the policy leaves to the calibration stays as it is. Where a calibration does not resolve the rate of a
    fixed threshold its strictest point stands in: enough to compare by, see `check_threshold` before deciding by it.
    """
    policy = home.policy
    here, there = pipelines.of(home.contract_id), pipelines.of(contract_id)
    ours, theirs = calibration_of(home, here), calibration_of(home, there)
    threshold, margin = policy.threshold, policy.margin
    if threshold is not None:
        threshold = theirs.threshold_at(ours.fmr_at(threshold))
    if margin is not None and ours.margin:
        margin = margin * theirs.margin / ours.margin
    return replace(
        policy,
        threshold=threshold,
        margin=margin,
        enrol=there.enrol_rule if policy.enrol == here.enrol_rule else policy.enrol,
        recognize=there.recognize_rule if policy.recognize == here.recognize_rule else policy.recognize,
    )


def check_threshold(home: Collection, contract_id: str, pipelines: Pipelines) -> None:
    """Refuse to carry a fixed threshold to a contract whose calibration would silently loosen it.

    Raises:
        InvalidInputError: One of the two calibrations does not resolve the threshold's false match rate.
    """
    threshold = home.policy.threshold
    if threshold is None:
        return
    ours, theirs = (calibration_of(home, pipelines.of(one)) for one in (home.contract_id, contract_id))
    rate, strictest = ours.fmr_at(threshold), ours.points[-1][1]
    if threshold <= strictest and rate >= theirs.strictest_fmr * (1 - ROUNDING):
        return
    below = f"below {ours.strictest_fmr:.0e}" if threshold > strictest else f"of {rate:.0e}"
    raise InvalidInputError(
        f"The fixed threshold {threshold} of '{home.name}' means a false match rate {below}: contract "
        f"'{home.contract_id}' was measured down to {ours.strictest_fmr:.0e}, '{contract_id}' down to "
        f"{theirs.strictest_fmr:.0e}. Change the policy first, to a target_fmr or target_fpir, which hold under both, "
        "or to a threshold with a rate that both resolve."
    )
