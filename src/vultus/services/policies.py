"""One policy under two contracts: cosines, margins and quality rules that mean the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vultus.services.collections import calibration_of

if TYPE_CHECKING:
    from vultus.domain import Collection, DecisionPolicy
    from vultus.models.pipelines import Pipelines


def policy_under(home: Collection, contract_id: str, pipelines: Pipelines) -> DecisionPolicy:
    """Return what a collection's policy means under another contract.

    A fixed threshold becomes the one with the same false match rate, a fixed margin the same multiple of the measured
    one, and a quality rule that is its pack's own becomes the other pack's: sharpness and score have another scale
    there. What the policy leaves to the calibration stays as it is.
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
