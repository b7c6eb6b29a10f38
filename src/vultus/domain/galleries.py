"""Who is enrolled where, on what consent, and who may do what."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from vultus.domain.faces import Quality
from vultus.domain.index import Graph, SearchMode
from vultus.domain.policies import Calibration, DecisionPolicy


@dataclass(frozen=True, slots=True)
class Collection:
    """An isolated gallery: it pins one contract, one decision policy and one retention rule.

    Attributes:
        contract_id: Vector space of the templates that are searched.
        second_contract_id: Another one that enrolment also writes, while the collection changes its network.
        calibrations: By contract: thresholds measured on this gallery, which take the place of the pack's.
        search: How it is searched.
        graph: What it is searched along, if that is HNSW.
    """

    id: UUID
    name: str
    contract_id: str
    policy: DecisionPolicy
    retention_days: int | None
    created_at: datetime
    updated_at: datetime
    second_contract_id: str | None = None
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    search: SearchMode = SearchMode.AUTO
    graph: Graph | None = None


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


@dataclass(frozen=True, slots=True)
class Consent:
    """A record that a person agreed; `expires_at` None means until withdrawn."""

    id: UUID
    collection_id: UUID
    person_id: UUID
    purpose: str
    recorded_by: str
    evidence_ref: str | None
    granted_at: datetime
    expires_at: datetime | None
    withdrawn_at: datetime | None


@dataclass(frozen=True, slots=True)
class Face:
    """One enrolled face of a person, without the vector.

    Attributes:
        contract_id: Of the template that quality and score are of.
        contracts: All it has templates of, sorted; two while its collection changes its network.
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


class Role(StrEnum):
    """What an API key may do; each role includes the ones before it."""

    RECOGNIZE = "recognize"
    ENROL = "enrol"
    ADMIN = "admin"

    def allows(self, needed: Role) -> bool:
        """Say whether this role includes the needed one."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret."""

    id: UUID
    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, for the audit record: an API key's id or the command line, and the request."""

    id: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """How much went with a person."""

    faces: int
    consents: int
