"""Values of an online model migration."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Source:
    """A face that came from a photo, and the contracts it has templates of."""

    face_id: UUID
    source_sha256: str
    contracts: frozenset[str]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A face searched for among all others.

    Attributes:
        person_id: Whose face it is.
        candidates: The two closest persons with the cosine of their closest face, best first.
        has_mate: Whether the person has another face to be found by.
    """

    face_id: UUID
    person_id: UUID
    candidates: tuple[tuple[UUID, float], ...]
    has_mate: bool


@dataclass(frozen=True, slots=True)
class ShadowDisagreement:
    """A recognition that two contracts answered differently; `answers` holds a mapping a contract."""

    at: datetime
    kind: str
    answers: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Transition:
    """A collection that changes its network.

    Attributes:
        contract_id: Where it goes, whichever contract is searched now.
        shadow_share: Share, 0..1, of recognitions that are answered by both contracts and compared.
        switched_at: When the contract that is searched changed last; None before the first time.
        policies: The collection's policy before and after that, so that the way back restores it.
    """

    collection_id: UUID
    contract_id: str
    shadow_share: float
    begun_at: datetime
    switched_at: datetime | None
    policies: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Side:
    """How complete a contract is in a collection; faces and persons whose consent has ended are not counted.

    Attributes:
        faces: Faces with a template of it.
        missing: Faces without one.
        failed: Of these by reason, those that could not be carried over.
        persons_missing: Persons with faces, but none that a search of this contract can find.
    """

    contract_id: str
    faces: int
    missing: int
    failed: dict[str, int]
    persons_missing: int

    @property
    def pending(self) -> int:
        """Faces that nobody has tried to carry over yet."""
        return self.missing - sum(self.failed.values())


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """A person no search of a contract can find.

    Attributes:
        id: The person's.
        faces: How many faces they have under another contract.
        reasons: Why these were not carried over; empty for those not yet tried.
    """

    id: UUID
    external_id: str | None
    name: str | None
    faces: int
    reasons: tuple[str, ...]
