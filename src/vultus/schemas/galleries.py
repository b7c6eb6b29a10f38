"""Collections, persons, consents, keys and audit records on the wire."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from vultus import domain
from vultus.schemas.base import Measure, Metadata, Moment, Name, Number, Rate, Reference, Text, Whole, Wire, Word
from vultus.services.people.consents import ConsentGrant


class QualityRuleWire(Wire):
    """The least a face must reach."""

    min_score: Number = Field(ge=0, le=1, description="Detector's confidence.")
    min_size_px: Number = Field(ge=0, le=10_000, description="Shorter side of the box, pixels.")
    min_sharpness: Number = Field(ge=0, le=1e6, description="Variance of the Laplacian.")
    max_yaw_deg: Number = Field(ge=0, le=90, description="Turn to either side, degrees.")
    max_pitch_deg: Number = Field(ge=0, le=90, description="Nod up or down, degrees.")
    min_brightness: Number = Field(0, ge=0, le=1, description="Mean grey level of the face.")
    max_brightness: Number = Field(1, ge=0, le=1, description="Mean grey level of the face.")
    min_network_score: Number = Field(0, ge=0, le=1, description="Of the quality network, where one is loaded.")


class PolicyWire(Wire):
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
        description="Keep an encrypted crop of every face enrolled from now on, for a later change of the network; "
        "setting it to false deletes the crops there are. Left out or null, it stays as it is; false at first.",
    )
    fusion: domain.Fusion | None = Field(
        None,
        description="How a person with several faces is compared: with their closest face (`best`) or with the mean of "
        "their faces (`mean`); null for the default.",
    )
    liveness: domain.LivenessMode | None = Field(
        None,
        description="The least that is done about presentation attacks: `off`, `report` or `required`; a request may "
        "ask for more. Left out or null, it stays as it is; `off` at first.",
    )
    enrol: QualityRuleWire | None = Field(None, description="For photos to be enrolled; null for the default.")
    recognize: QualityRuleWire | None = Field(None, description="For probes; null for the default.")

    @model_validator(mode="after")
    def one_threshold(self) -> Self:
        """Two ways to set the threshold would contradict each other."""
        if sum(value is not None for value in (self.threshold, self.target_fmr, self.target_fpir)) > 1:
            raise ValueError("give at most one of threshold, target_fmr and target_fpir")
        return self

    def staying(self) -> frozenset[str]:
        """Return the gaps that a change leaves as they are: nobody loses crops or liveness by not naming them."""
        return frozenset(name for name in ("keep_crops", "liveness") if getattr(self, name) is None)

    def resolve(self, default: domain.DecisionPolicy) -> domain.DecisionPolicy:
        """Return the whole policy, gaps filled from the default; see `staying`."""
        chosen = any(value is not None for value in (self.threshold, self.target_fmr, self.target_fpir))
        return domain.DecisionPolicy(
            threshold=self.threshold,
            target_fmr=self.target_fmr if chosen else default.target_fmr,
            target_fpir=self.target_fpir,
            margin=self.margin,
            keep_crops=default.keep_crops if self.keep_crops is None else self.keep_crops,
            fusion=self.fusion or default.fusion,
            liveness=self.liveness or default.liveness,
            enrol=domain.QualityRule(**self.enrol.model_dump()) if self.enrol else default.enrol,
            recognize=domain.QualityRule(**self.recognize.model_dump()) if self.recognize else default.recognize,
        )


class CollectionIn(Wire):
    """A new collection."""

    name: Word = Field(examples=["visitors"])
    pack: Name | None = Field(None, description="One of the loaded packs; null for the server's default.")
    policy: PolicyWire = Field(default_factory=PolicyWire)
    retention_days: Whole | None = Field(None, ge=1, le=36_500, description="Longest life of a consent, days.")


class CollectionPatch(Wire):
    """Changes to a collection; what is left out stays."""

    name: Word | None = None
    policy: PolicyWire | None = Field(
        None,
        description="Replaces the whole policy; gaps take the default, but keep_crops and liveness stay as they are.",
    )
    retention_days: Whole | None = Field(None, ge=1, le=36_500, description="For consents from now on; null for none.")
    search: Literal[domain.SearchMode.AUTO, domain.SearchMode.EXACT] | None = Field(
        None,
        description="`auto`: in SQL, or from a size on by the candidate index; `exact`: in SQL, whatever the size. "
        "Either drops the collection's HNSW graph. Only `vultus search-by` builds one: it takes minutes, and measures.",
    )


class GraphLossOut(Wire):
    """What a graph lost of what exact searches for enrolled faces, themselves left out, had first."""

    of: str = Field(description="`mates`: other faces of the same person; `neighbours`: whoever was first.")
    probes: int = Field(description="Searches that had one first.")
    lost: int = Field(description="Of them, those that did not along the graph.")
    share: Rate
    low: Rate = Field(description="Of the share's 95 % interval.")
    high: Rate
    exact_ms: Measure = Field(description="Median of an exact search.")
    graph_ms: Measure = Field(description="Median of one along the graph.")


class GraphOut(Wire):
    """An HNSW graph, and what it lost when it was measured."""

    contract_id: str
    m: int
    ef_construction: int
    ef_search: int
    measured_at: datetime
    loss: GraphLossOut


class CollectionOut(Wire):
    """An isolated gallery."""

    id: UUID
    name: str
    contract_id: str = Field(description="Vector space that is searched.")
    second_contract_id: str | None = Field(description="Another one that enrolment writes too, during a transition.")
    policy: PolicyWire
    retention_days: int | None
    search: domain.SearchMode = Field(description="How it is searched.")
    graph: GraphOut | None = Field(description="What it is searched along, if that is `hnsw`.")
    persons: int | None = Field(None, description="Given when one collection is asked for.")
    faces: int | None = Field(None, description="Given when one collection is asked for.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, collection: domain.Collection, persons: int | None = None, faces: int | None = None) -> Self:
        """Translate a domain value."""
        return cls(
            id=collection.id,
            name=collection.name,
            contract_id=collection.contract_id,
            second_contract_id=collection.second_contract_id,
            policy=PolicyWire(**asdict(collection.policy)),
            retention_days=collection.retention_days,
            search=collection.search,
            graph=collection.graph and GraphOut.like(collection.graph),
            persons=persons,
            faces=faces,
            created_at=collection.created_at,
            updated_at=collection.updated_at,
        )


class ConsentIn(Wire):
    """A person's agreement as it was recorded."""

    purpose: Text = Field(max_length=500, examples=["Entry to building A"])
    recorded_by: Name = Field(examples=["reception@example.org"])
    granted_at: Moment | None = Field(None, description="When it was given; now unless told.")
    expires_at: Moment | None = Field(None, description="Until when; null until withdrawn.")
    evidence_ref: Reference | None = Field(None, examples=["form-2026-0117"])

    def grant(self) -> ConsentGrant:
        """Translate to the service's value."""
        return ConsentGrant(
            purpose=self.purpose,
            recorded_by=self.recorded_by,
            granted_at=self.granted_at,
            expires_at=self.expires_at,
            evidence_ref=self.evidence_ref,
        )


class ConsentPatch(Wire):
    """Changes to a live consent; what is left out stays."""

    expires_at: Moment | None = Field(None, description="Faces under the consent follow; null until withdrawn.")
    evidence_ref: Reference | None = None


class ConsentOut(Wire):
    """A record that a person agreed."""

    id: UUID
    person_id: UUID
    purpose: str
    recorded_by: str
    evidence_ref: str | None
    granted_at: datetime
    expires_at: datetime | None
    withdrawn_at: datetime | None


class PersonIn(Wire):
    """A person without a face yet; their consent comes first."""

    external_id: Reference | None = Field(None, description="Your own id, unique in the collection.")
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)
    consent: ConsentIn

    @model_validator(mode="after")
    def somebody(self) -> Self:
        """A person nobody can tell apart is of no use."""
        if self.external_id is None and self.name is None:
            raise ValueError("give external_id or name")
        return self


class PersonPatch(Wire):
    """Changes to a person; what is left out stays."""

    external_id: Reference | None = None
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict, description="Replaces the whole object.")


class PersonOut(Wire):
    """An identity in a collection."""

    id: UUID
    collection_id: UUID
    external_id: str | None
    name: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class ErasedOut(Wire):
    """What an erasure removed."""

    person_id: UUID
    person_erased: bool = Field(description="False when another live consent keeps the person.")
    faces: int
    consents: int


class KeyIn(Wire):
    """A new API key."""

    name: Name = Field(examples=["turnstile"])
    role: domain.Role = domain.Role.RECOGNIZE


class KeyOut(Wire):
    """An API key without its secret."""

    id: UUID
    name: str
    role: domain.Role
    created_at: datetime
    revoked_at: datetime | None


class NewKeyOut(KeyOut):
    """An API key with its secret, shown this once."""

    secret: str = Field(description="Keep it; only its digest is stored.")
