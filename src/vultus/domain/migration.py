"""Values of an online model migration."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class FaceSource:
    """A face with the digest of its photo and the embedding spaces of its templates."""

    face_id: UUID
    source_sha256: str
    space_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class LeaveOneOutResult:
    """Result of a search for an enrolled face among all others.

    Attributes:
        person_id: Person of the face.
        candidates: The two closest persons with the cosine of their closest face, best first.
        has_mate: Whether the person has another face.
    """

    face_id: UUID
    person_id: UUID
    candidates: tuple[tuple[UUID, float], ...]
    has_mate: bool


@dataclass(frozen=True, slots=True)
class ShadowDisagreement:
    """A recognition with different results in two embedding spaces; `answers` has one mapping per space."""

    at: datetime
    kind: str
    answers: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Migration:
    """An active migration of a collection.

    Attributes:
        target_space_id: Target embedding space, whichever space is searched now.
        shadow_share: Share, 0..1, of recognitions that are made in both embedding spaces and compared.
        switched_at: Time of the last cutover or rollback; None before the first.
        policies: The collection's policy before and after the cutover, so that a rollback restores it.
    """

    collection_id: UUID
    target_space_id: str
    shadow_share: float
    begun_at: datetime
    switched_at: datetime | None
    policies: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """Coverage of an embedding space in a collection; faces whose consent has ended are not counted.

    Attributes:
        faces: Faces with a template in it.
        missing: Faces without one.
        failed: Of the missing faces, those that could not be backfilled, by reason.
        persons_missing: Persons with faces but without a template in it.
    """

    contract_id: str
    faces: int
    missing: int
    failed: dict[str, int]
    persons_missing: int

    @property
    def pending(self) -> int:
        """Faces whose backfill has not yet been attempted."""
        return self.missing - sum(self.failed.values())


@dataclass(frozen=True, slots=True)
class UnmigratedPerson:
    """A person that no search in an embedding space can find.

    Attributes:
        id: Id of the person.
        faces: Number of their faces with templates in another embedding space.
        reasons: Why these could not be backfilled; empty if not yet attempted.
    """

    id: UUID
    external_id: str | None
    name: str | None
    faces: int
    reasons: tuple[str, ...]
