"""Policies of collections: their defaults, and how a change is merged into one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vultus.db.repositories.collections import parse_policy
from vultus.domain import DecisionPolicy, LivenessMode
from vultus.domain.decision import build_default_policy
from vultus.errors import LivenessNotLoadedError
from vultus.utils.merge_patch import merge_patch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vultus.domain import Collection, LoadedSpace

TARGET_FIELDS = ("target_fmr", "target_fpir")
THRESHOLD_FIELDS = ("threshold", *TARGET_FIELDS)


def build_collection_policy(space: LoadedSpace) -> DecisionPolicy:
    """Return the policy of a new collection in an embedding space."""
    return build_default_policy(space.enrol_rule, space.recognize_rule, space.calibration)


def merge_policy(current: DecisionPolicy, patch: Mapping[str, Any], *, default: DecisionPolicy) -> DecisionPolicy:
    """Return a policy with a JSON merge patch applied; what it removes takes the default.

    A fixed threshold and targets are alternatives: one that is set removes the other. What decides is never completed
    by the default: without a target for searches they follow that for comparisons, also where only that is removed.
    """
    merged = merge_patch(_build_document(current), _remove_alternatives(patch))
    if any(merged.get(name) is not None for name in THRESHOLD_FIELDS):
        merged = dict.fromkeys(THRESHOLD_FIELDS) | merged
    elif "target_fpir" in patch:
        merged = {"target_fpir": None} | merged
    return parse_policy(merge_patch(_build_document(default), merged))


def list_changed_settings(before: Collection, now: Collection) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two states of a collection differ, with both values, by dotted name in order."""
    old, new = (dict(_list_settings(state)) for state in (before, now))
    return {name: (old[name], new[name]) for name in sorted(new) if old[name] != new[name]}


def _list_settings(collection: Collection) -> Iterator[tuple[str, Any]]:
    for name in ("name", "retention_days", "unseen_days", "search"):
        yield name, getattr(collection, name)
    for name, value in asdict(collection.policy).items():
        if isinstance(value, dict):
            yield from ((f"policy.{name}.{member}", inner) for member, inner in value.items())
        else:
            yield f"policy.{name}", value


def _build_document(policy: DecisionPolicy) -> dict[str, Any]:
    return {name: value for name, value in asdict(policy).items() if value is not None}


def _remove_alternatives(patch: Mapping[str, Any]) -> dict[str, Any]:
    if patch.get("threshold") is not None:
        return {**patch, **dict.fromkeys(TARGET_FIELDS)}
    if any(patch.get(name) is not None for name in TARGET_FIELDS):
        return {**patch, "threshold": None}
    return dict(patch)


def check_liveness_policy(policy: Mapping[str, Any] | None, *, has_liveness: bool) -> None:
    """Refuse a policy under which every photo would be refused.

    Args:
        policy: Or changes to one.
        has_liveness: Whether a network is loaded that judges liveness.

    Raises:
        LivenessNotLoadedError: The policy asks for liveness, and none is.
    """
    mode = (policy or {}).get("liveness")
    if mode not in (None, LivenessMode.OFF) and not has_liveness:
        raise LivenessNotLoadedError(
            f"Liveness '{mode}' would refuse every photo: no network that judges it is loaded. Run vultus models pull "
            "minifasnet, set VULTUS_INFERENCE__LIVENESS=minifasnet and start again."
        )
