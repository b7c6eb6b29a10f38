"""Collections, persons, consents and keys: requests and responses."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from vultus import domain
from vultus.schemas.base import (
    ApiModel,
    Measure,
    Metadata,
    Name,
    Number,
    Rate,
    Reference,
    Slug,
    Text,
    Timestamp,
    WholeNumber,
)
from vultus.services.people.consents import ConsentGrant


class QualityRuleWire(ApiModel):
    """Minimum quality of a face."""

    min_score: Number = Field(ge=0, le=1, description="Detector's confidence.")
    min_size_px: Number = Field(ge=0, le=10_000, description="Shorter side of the box, pixels.")
    min_sharpness: Number = Field(ge=0, le=1e6, description="Variance of the Laplacian.")
    max_yaw_deg: Number = Field(ge=0, le=90, description="Turn to either side, degrees.")
    max_pitch_deg: Number = Field(ge=0, le=90, description="Nod up or down, degrees.")
    min_brightness: Number = Field(0, ge=0, le=1, description="Mean grey level of the face.")
    max_brightness: Number = Field(1, ge=0, le=1, description="Mean grey level of the face.")
    min_network_score: Number = Field(0, ge=0, le=1, description="Of the quality network, where one is loaded.")


class PolicyWire(ApiModel):
    """How a collection decides; at most one of threshold, target_fmr and target_fpir."""

    threshold: Number | None = Field(None, ge=-1, le=1, description="Fixed cosine threshold.")
    target_fmr: Number | None = Field(None, gt=0, lt=1, description="False match rate of one comparison.")
    target_fpir: Number | None = Field(
        None, gt=0, lt=1, description="False positive identification rate; the threshold follows the gallery's size."
    )
    margin: Number | None = Field(
        None, ge=0, le=2, description="Cosine ahead of the runner-up below which a match is ambiguous."
    )
    keep_crops: bool | None = Field(
        None,
        description="Keep an encrypted crop of every face enrolled from now on, for a later migration to another "
        "network; setting it to false deletes the existing crops. Left out or null, it stays as it is; false at first.",
    )
    fusion: domain.Fusion | None = Field(
        None,
        description="How a person with several faces is compared: with their closest face (`best`) or with the mean of "
        "their faces (`mean`); null for the default.",
    )
    liveness: domain.LivenessMode | None = Field(
        None,
        description="Minimum check for presentation attacks: `off`, `report` or `required`; a request may "
        "require more. Left out or null, it stays as it is; `off` at first.",
    )
    enrol: QualityRuleWire | None = Field(None, description="For photos to be enrolled; null for the default.")
    recognize: QualityRuleWire | None = Field(None, description="For probes; null for the default.")

    @model_validator(mode="after")
    def validate_single_threshold(self) -> Self:
        """Reject two ways to set the threshold: they would contradict each other."""
        if sum(value is not None for value in (self.threshold, self.target_fmr, self.target_fpir)) > 1:
            raise ValueError("give at most one of threshold, target_fmr and target_fpir")
        return self

    def get_unchanged_fields(self) -> frozenset[str]:
        """Return the omitted fields that a change keeps: omitted crops and liveness settings stay as they are."""
        return frozenset(name for name in ("keep_crops", "liveness") if getattr(self, name) is None)

    def resolve_policy(self, default: domain.DecisionPolicy) -> domain.DecisionPolicy:
        """Return the complete policy, omitted fields taken from the default; see `get_unchanged_fields`."""
        has_threshold = any(value is not None for value in (self.threshold, self.target_fmr, self.target_fpir))
        return domain.DecisionPolicy(
            threshold=self.threshold,
            target_fmr=self.target_fmr if has_threshold else default.target_fmr,
            target_fpir=self.target_fpir,
            margin=self.margin,
            keep_crops=default.keep_crops if self.keep_crops is None else self.keep_crops,
            fusion=self.fusion or default.fusion,
            liveness=self.liveness or default.liveness,
            enrol=domain.QualityRule(**self.enrol.model_dump()) if self.enrol else default.enrol,
            recognize=domain.QualityRule(**self.recognize.model_dump()) if self.recognize else default.recognize,
        )


class CollectionIn(ApiModel):
    """A new collection."""

    name: Slug = Field(examples=["visitors"])
    pack: Name | None = Field(None, description="One of the loaded packs; null for the server's default.")
    policy: PolicyWire = Field(default_factory=PolicyWire)
    retention_days: WholeNumber | None = Field(None, ge=1, le=36_500, description="Longest life of a consent, days.")


class CollectionPatch(ApiModel):
    """Changes to a collection; what is left out stays."""

    name: Slug | None = None
    policy: PolicyWire | None = Field(
        None,
        description="Replaces the whole policy; gaps take the default, but keep_crops and liveness stay as they are.",
    )
    retention_days: WholeNumber | None = Field(
        None, ge=1, le=36_500, description="For consents from now on; null for none."
    )
    search: Literal[domain.SearchMode.AUTO, domain.SearchMode.EXACT] | None = Field(
        None,
        description="`auto`: in SQL, or from a size on by the candidate index; `exact`: in SQL, whatever the size. "
        "Either drops the collection's HNSW graph. Only `vultus search-by` builds one: it takes minutes, and measures.",
    )


class GraphLossOut(ApiModel):
    """Recall loss of the HNSW graph against exact search, leave-one-out on enrolled faces."""

    of: str = Field(description="`mates`: other faces of the same person; `neighbours`: any first result.")
    probes: int = Field(description="Searches whose exact result had one first.")
    lost: int = Field(description="Of these, those whose HNSW result did not.")
    share: Rate
    low: Rate = Field(description="Of the share's 95 % interval.")
    high: Rate
    exact_ms: Measure = Field(description="Median of an exact search.")
    graph_ms: Measure = Field(description="Median of an HNSW search.")


class GraphOut(ApiModel):
    """An HNSW graph and its measured recall loss."""

    contract_id: str
    m: int
    ef_construction: int
    ef_search: int
    measured_at: datetime
    loss: GraphLossOut


class CollectionOut(ApiModel):
    """An isolated gallery."""

    id: UUID
    name: str
    contract_id: str = Field(description="Embedding space that is searched.")
    second_contract_id: str | None = Field(description="Another one that enrolment writes too, during a migration.")
    policy: PolicyWire
    retention_days: int | None
    search: domain.SearchMode = Field(description="How it is searched.")
    graph: GraphOut | None = Field(description="Its HNSW graph, if `search` is `hnsw`.")
    persons: int | None = Field(None, description="Only where one collection is read.")
    faces: int | None = Field(None, description="Only where one collection is read.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def from_domain(cls, collection: domain.Collection, persons: int | None = None, faces: int | None = None) -> Self:
        """Build the response from a domain value."""
        return cls(
            id=collection.id,
            name=collection.name,
            contract_id=collection.space_id,
            second_contract_id=collection.second_space_id,
            policy=PolicyWire(**asdict(collection.policy)),
            retention_days=collection.retention_days,
            search=collection.search,
            graph=collection.graph and GraphOut.from_attributes(collection.graph),
            persons=persons,
            faces=faces,
            created_at=collection.created_at,
            updated_at=collection.updated_at,
        )


class ConsentIn(ApiModel):
    """A person's agreement as it was recorded."""

    purpose: Text = Field(max_length=500, examples=["Entry to building A"])
    recorded_by: Name = Field(examples=["reception@example.org"])
    granted_at: Timestamp | None = Field(None, description="When it was given; now by default.")
    expires_at: Timestamp | None = Field(None, description="Until when; null until withdrawn.")
    evidence_ref: Reference | None = Field(None, examples=["form-2026-0117"])

    def to_consent_grant(self) -> ConsentGrant:
        """Convert to the service's type."""
        return ConsentGrant(
            purpose=self.purpose,
            recorded_by=self.recorded_by,
            granted_at=self.granted_at,
            expires_at=self.expires_at,
            evidence_ref=self.evidence_ref,
        )


class ConsentPatch(ApiModel):
    """Changes to a live consent; what is left out stays."""

    expires_at: Timestamp | None = Field(None, description="Faces under the consent follow; null until withdrawn.")
    evidence_ref: Reference | None = None


class ConsentOut(ApiModel):
    """A record that a person agreed."""

    id: UUID
    person_id: UUID
    purpose: str
    recorded_by: str
    evidence_ref: str | None
    granted_at: datetime
    expires_at: datetime | None
    withdrawn_at: datetime | None


class PersonIn(ApiModel):
    """A person without a face yet; their consent comes first."""

    external_id: Reference | None = Field(None, description="Your own id, unique in the collection.")
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)
    consent: ConsentIn

    @model_validator(mode="after")
    def validate_identifiable(self) -> Self:
        """Require an external id or a name: a person without either cannot be identified."""
        if self.external_id is None and self.name is None:
            raise ValueError("give external_id or name")
        return self


class PersonPatch(ApiModel):
    """Changes to a person; what is left out stays."""

    external_id: Reference | None = None
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict, description="Replaces the whole object.")


class PersonOut(ApiModel):
    """An identity in a collection."""

    id: UUID
    collection_id: UUID
    external_id: str | None
    name: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class ErasedOut(ApiModel):
    """What an erasure removed."""

    person_id: UUID
    person_erased: bool = Field(description="False when another live consent keeps the person.")
    faces: int
    consents: int


class KeyIn(ApiModel):
    """A new API key."""

    name: Name = Field(examples=["turnstile"])
    role: domain.Role = domain.Role.RECOGNIZE


class KeyOut(ApiModel):
    """An API key without its secret."""

    id: UUID
    name: str
    role: domain.Role
    created_at: datetime
    revoked_at: datetime | None


class NewKeyOut(KeyOut):
    """An API key with its secret, shown this once."""

    secret: str = Field(description="Keep it; only its digest is stored.")
