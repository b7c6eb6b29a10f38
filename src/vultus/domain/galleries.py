"""Collections, persons, consents and enrolled faces."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from vultus.domain.faces import Quality
from vultus.domain.index import HnswGraph, SearchMode
from vultus.domain.policies import Calibration, DecisionPolicy
from vultus.utils.moments import format_moment

SEEN_INTERVAL = timedelta(days=1)
"""How often it is written at most that a person was seen."""


@dataclass(frozen=True, slots=True)
class Collection:
    """An isolated gallery: it pins one embedding space, one decision policy and one retention rule.

    Attributes:
        space_id: Embedding space that is searched.
        second_space_id: Second embedding space that enrolment also writes, during a migration.
        calibrations: Thresholds measured on this gallery, by embedding space; they replace those of the pack.
        search: How it is searched.
        graph: The HNSW graph, if it is searched by one.
        retention_days: Days after which a consent ends that was given; None for no limit.
        unseen_days: Days after which a person ends who was not seen; None for no limit.
    """

    id: UUID
    name: str
    space_id: str
    policy: DecisionPolicy
    retention_days: int | None
    created_at: datetime
    updated_at: datetime
    second_space_id: str | None = None
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    search: SearchMode = SearchMode.AUTO
    graph: HnswGraph | None = None
    unseen_days: int | None = None

    def compute_unseen_end(self, seen_at: datetime) -> datetime | None:
        """Return when a person ends who is not seen again; None if they do not.

        A day later than the rule says: that somebody was seen is written once a day at most.
        """
        return None if self.unseen_days is None else seen_at + timedelta(days=self.unseen_days) + SEEN_INTERVAL


@dataclass(frozen=True, slots=True)
class Person:
    """An identity in a collection."""

    id: UUID
    collection_id: UUID
    external_id: str | None
    name: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


PersonReference: TypeAlias = UUID | str
"""How a caller names a person of a collection: by their id, or by the external id as a text."""


@dataclass(frozen=True, slots=True)
class Consent:
    """A person's recorded consent; `expires_at` None means until withdrawn.

    Attributes:
        expires_at: When it ends as things are.
        seen_at: When the person was seen last, to a day; None where the collection keeps who is not seen.
        granted_until: Its end but for that rule; None without the rule, too.
    """

    id: UUID
    collection_id: UUID
    person_id: UUID
    purpose: str
    recorded_by: str
    evidence_ref: str | None
    granted_at: datetime
    expires_at: datetime | None
    withdrawn_at: datetime | None
    seen_at: datetime | None = None
    granted_until: datetime | None = None

    def build_proof(self) -> dict[str, str | None]:
        """Return what proves it, for JSON; the end is its own."""
        end = self.expires_at if self.seen_at is None else self.granted_until
        return {
            "id": str(self.id),
            "purpose": self.purpose,
            "recorded_by": self.recorded_by,
            "evidence_ref": self.evidence_ref,
            "granted_at": format_moment(self.granted_at),
            "expires_at": None if end is None else format_moment(end),
        }


@dataclass(frozen=True, slots=True)
class Face:
    """One enrolled face of a person, without the vector.

    Attributes:
        contract_id: Embedding space of the template that quality and score belong to.
        contracts: All embedding spaces of its templates, sorted; two during a migration.
    """

    id: UUID
    collection_id: UUID
    person_id: UUID
    consent_id: UUID
    contract_id: str
    quality: Quality
    score: float
    source_sha256: str
    created_at: datetime
    contracts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeletedCounts:
    """What was deleted with a person.

    Attributes:
        receivers: Webhooks that were sent something about them.
    """

    faces: int
    consents: int
    receivers: tuple[UUID, ...] = ()
