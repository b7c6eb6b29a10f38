"""What a bundle must be beyond its format, so that nothing in it is refused after the first person was added."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import msgspec

from vultus.domain import Calibration, DecisionPolicy, Storage
from vultus.errors import InvalidInputError
from vultus.services.bundles.arrivals import list_ids
from vultus.services.policies import merge_policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from uuid import UUID

    from vultus.services.bundles.records import BundledCollection, BundledPerson

ADVICE = "Nothing was imported: have the bundle written anew."
_POLICY_LIMITS = {"threshold": (-1, 1), "target_fmr": (1e-12, 1), "target_fpir": (1e-12, 1), "margin": (0, 2)}


def build_policy(moved: BundledCollection, default: DecisionPolicy, storage: Storage | None) -> DecisionPolicy:
    """Return the policy of a collection that is to be created.

    Args:
        moved: The collection of the bundle.
        default: What its policy does not say.
        storage: How templates are to lie here, if another way than its policy says.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        merged = merge_policy(default, moved.policy, default=default)
        policy = msgspec.convert(msgspec.to_builtins(merged), DecisionPolicy)
        for name, (low, high) in _POLICY_LIMITS.items():
            if (value := getattr(policy, name)) is not None and not low <= value <= high:
                raise ValueError(f"{name} is {value}")
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(f"The policy of collection '{moved.name}' is none: {error}. {ADVICE}") from None
    return policy if storage is None else replace(policy, storage=storage)


def build_calibration(moved: BundledCollection) -> Calibration | None:
    """Return the calibration of a collection that is to be created.

    Raises:
        InvalidInputError: It is none.
    """
    if moved.calibration is None:
        return None
    try:
        found = msgspec.convert(asdict(Calibration.from_document(moved.calibration)), Calibration)
        curves = (*found.points, *found.anybody, *found.worst_group, *found.missed)
        if not found.points or not all(0 < rate <= 1 and -1 <= cosine <= 1 for rate, cosine in curves):
            raise ValueError("its points are no rates and cosines")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(f"The calibration of collection '{moved.name}' is none: {error}. {ADVICE}") from None
    return found


class Distinction:
    """Refuses a bundle that has something twice.

    Args:
        file: The bundle.
        collection_id: Where some may have other ids, which must be distinct too.
    """

    def __init__(self, file: Path, collection_id: UUID) -> None:
        self._file = file
        self._collection_id = collection_id
        self._seen: defaultdict[str, set[object]] = defaultdict(set)

    def add(self, people: Sequence[BundledPerson]) -> None:
        """Look at the persons of a part.

        Raises:
            InvalidInputError: One of them, or something of theirs, was there before.
        """
        consents = [consent.id for person in people for consent in person.consents]
        self._add("person", self._list_ids([person.id for person in people]))
        self._add("external id", [person.external_id for person in people if person.external_id is not None])
        self._add("consent", self._list_ids(consents))
        self._add("face", [face.id.bytes for person in people for face in person.faces])

    def _list_ids(self, given: Sequence[UUID]) -> list[bytes]:
        return [one.bytes for given_id in given for one in list_ids(self._collection_id, given_id)]

    def _add(self, kind: str, ids: Sequence[object]) -> None:
        if len(set(ids)) < len(ids) or not self._seen[kind].isdisjoint(ids):
            raise InvalidInputError(f"{self._file} has the same {kind} twice. {ADVICE}")
        self._seen[kind].update(ids)
