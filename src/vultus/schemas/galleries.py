"""Collections, persons and consents: requests and responses."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vultus import domain
from vultus.domain.erasures import ErasureState
from vultus.schemas.base import (
    ApiModel,
    CollectionId,
    ConsentId,
    ErasureId,
    Measure,
    MergePatch,
    Metadata,
    Name,
    NotRemovable,
    Number,
    PersonId,
    Purpose,
    Rate,
    RecordedAt,
    Reference,
    Slug,
    SpaceId,
    Timestamp,
    WholeNumber,
)
from vultus.services.people.consents import ConsentGrant
from vultus.services.people.erasure import ErasureResult

_Share = Annotated[Number, Field(ge=0, le=1)]
_Pixels = Annotated[Number, Field(ge=0, le=10_000)]
_Variance = Annotated[Number, Field(ge=0, le=1e6)]
_Degrees = Annotated[Number, Field(ge=0, le=90)]


class QualityRuleWire(ApiModel):
    """Minimum quality of a face."""

    min_score: _Share = Field(description="Detector's confidence.", examples=[0.9])
    min_size_px: _Pixels = Field(description="Shorter side of the box, pixels.", examples=[40])
    min_sharpness: _Variance = Field(description="Variance of the Laplacian.", examples=[30])
    max_yaw_deg: _Degrees = Field(description="Turn to either side, degrees.", examples=[50])
    max_pitch_deg: _Degrees = Field(description="Nod up or down, degrees.", examples=[50])
    min_brightness: _Share = Field(0, description="Mean grey level of the face.", examples=[0.12])
    max_brightness: _Share = Field(1, description="Mean grey level of the face.", examples=[0.85])
    min_network_score: _Share = Field(0, description="Of the quality network, where one is loaded.")
    min_face_score: _Share = Field(0, description="Probability of a human face, by a second network.", examples=[0.85])


class QualityRulePatch(ApiModel):
    """Changes to a quality rule; what is left out stays, null takes the default."""

    min_score: _Share | None = None
    min_size_px: _Pixels | None = None
    min_sharpness: _Variance | None = None
    max_yaw_deg: _Degrees | None = None
    max_pitch_deg: _Degrees | None = None
    min_brightness: _Share | None = None
    max_brightness: _Share | None = None
    min_network_score: _Share | None = None
    min_face_score: _Share | None = None


_KEEP_CROPS = Field(
    None,
    description="Keep an encrypted crop of every face enrolled from now on, for a later migration to another "
    "network; setting it to false deletes the existing crops. False at first.",
    examples=[False],
)
_LIVENESS = Field(
    None,
    description="Minimum check for presentation attacks: `off`, `report` or `required`; a request may "
    "require more. `off` at first.",
    examples=["off"],
)


_STORAGE = Field(
    None,
    description="How templates lie in the database: `open`, or `sealed` by a key of their person that lies outside it. "
    "Set to `sealed`, what is stored is sealed in the background; a sealed collection is never open again. "
    f"`{domain.policies.DEFAULT_STORAGE}` at first.",
    examples=["sealed"],
)


_Seconds = Annotated[Number, Field(ge=0, le=86_400)]


class TrackPolicyWire(ApiModel):
    """When a face in live video is named, and when its coming and going is told."""

    confirm_frames: WholeNumber = Field(2, ge=1, le=100, description="Frames that show a face before it `appeared`.")
    agreeing_frames: WholeNumber = Field(3, ge=1, le=6, description="Embedded frames that must agree on who it is.")
    agreeing_s: _Seconds = Field(0.2, description="Least time from the first of them to the last, seconds.")
    max_embeddings: WholeNumber = Field(8, ge=6, le=12, description="Times that a track's face is embedded at most.")
    unknown_after_s: _Seconds = Field(2, description="Time in view after which a face without a name is `unknown`.")
    absence_s: _Seconds = Field(3, description="Time out of view after which somebody `left`.")
    cooldown_s: _Seconds = Field(
        60, description="Time since somebody was seen last within which they are not `recognised` again."
    )


class TrackPolicyPatch(ApiModel):
    """Changes to the policy of tracks; what is left out stays, null takes the default."""

    confirm_frames: WholeNumber | None = Field(None, ge=1, le=100)
    agreeing_frames: WholeNumber | None = Field(None, ge=1, le=6)
    agreeing_s: _Seconds | None = None
    max_embeddings: WholeNumber | None = Field(None, ge=6, le=12)
    unknown_after_s: _Seconds | None = None
    absence_s: _Seconds | None = None
    cooldown_s: _Seconds | None = None


class _BasePolicy(ApiModel):
    threshold: Number | None = Field(None, ge=-1, le=1, description="Fixed cosine threshold.")
    target_fmr: Number | None = Field(
        None,
        gt=0,
        lt=1,
        description="False match rate of one comparison. 0.0001 at first, 0.01 with the built-in pack.",
        examples=[0.0001],
    )
    target_fpir: Number | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of strangers that a search names; its threshold follows the gallery's size and is never "
        "laxer than that of target_fmr. 0.01 at first; null lets searches follow target_fmr.",
        examples=[0.01],
    )
    margin: Number | None = Field(
        None, ge=0, le=2, description="Cosine ahead of the runner-up below which a match is ambiguous."
    )
    fusion: domain.Fusion | None = Field(
        None,
        description="How a person with several faces is compared: with their closest face (`best`) or with the mean of "
        "their faces (`mean`); null for the default.",
        examples=["best"],
    )

    @model_validator(mode="after")
    def validate_single_threshold(self) -> Self:
        """Reject a fixed threshold beside a target: they would contradict each other."""
        if self.threshold is not None and (self.target_fmr is not None or self.target_fpir is not None):
            raise ValueError("give either threshold, or target_fmr and target_fpir")
        return self


_RECORD_SEARCHES = Field(
    None,
    description="Which decisions are recorded, with ids and figures, before they are answered: `none`, `matches` or "
    "`all`. `none` at first.",
    examples=["none"],
)


class PolicyWire(_BasePolicy):
    """How a collection decides: by a fixed threshold, or by target rates."""

    keep_crops: bool | None = _KEEP_CROPS
    storage: domain.Storage | None = _STORAGE
    liveness: domain.LivenessMode | None = _LIVENESS
    record_searches: domain.SearchRecording | None = _RECORD_SEARCHES
    enrol: QualityRuleWire | None = Field(
        None, description="For photos to be enrolled; null for the default.", examples=[QualityRuleWire.build_example()]
    )
    recognize: QualityRuleWire | None = Field(
        None, description="For probes; null for the default.", examples=[QualityRuleWire.build_example()]
    )
    tracks: TrackPolicyWire | None = Field(
        None, description="For live video; null for the default.", examples=[TrackPolicyWire.build_example()]
    )


class PolicyPatch(_BasePolicy):
    """Changes to a policy; what is left out stays, null takes the default.

    A threshold replaces the targets, and a target replaces the threshold.
    """

    keep_crops: Annotated[bool | None, NotRemovable("crops are deleted by false only")] = _KEEP_CROPS
    storage: Annotated[domain.Storage | None, NotRemovable("templates are always stored somehow")] = _STORAGE
    liveness: domain.LivenessMode | None = _LIVENESS
    record_searches: domain.SearchRecording | None = _RECORD_SEARCHES
    enrol: QualityRulePatch | None = Field(None, description="For photos to be enrolled.")
    recognize: QualityRulePatch | None = Field(None, description="For probes.")
    tracks: TrackPolicyPatch | None = Field(None, description="For live video.")


_UNSEEN_DAYS = Field(
    None,
    ge=1,
    le=36_500,
    description="Days after which a person who was neither recognised nor enrolled again is erased; null for none.",
)


class CollectionIn(ApiModel):
    """A new collection."""

    name: Slug = Field(examples=["visitors"])
    pack: Name | None = Field(None, description="One of the loaded packs; null for the server's default.")
    policy: PolicyWire = Field(default_factory=PolicyWire)
    retention_days: WholeNumber | None = Field(None, ge=1, le=36_500, description="Longest life of a consent, days.")
    unseen_days: WholeNumber | None = _UNSEEN_DAYS


class CollectionPatch(MergePatch):
    """Changes to a collection; what is left out stays."""

    name: Annotated[Slug | None, NotRemovable("a collection always has a name")] = None
    policy: Annotated[
        PolicyPatch | None, NotRemovable("a collection always has a policy, whose members can be null")
    ] = Field(None, description="Merged member by member.")
    retention_days: WholeNumber | None = Field(
        None, ge=1, le=36_500, description="Longest life of a consent, earlier ones too; null for none."
    )
    unseen_days: WholeNumber | None = _UNSEEN_DAYS
    search: Annotated[
        Literal[domain.SearchMode.AUTO, domain.SearchMode.EXACT] | None,
        NotRemovable("a collection is always searched somehow"),
    ] = Field(
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

    id: CollectionId
    name: str = Field(examples=["default"])
    contract_id: SpaceId = Field(description="Embedding space that is searched.")
    second_contract_id: str | None = Field(description="Another one that enrolment writes too, during a migration.")
    policy: PolicyWire
    retention_days: int | None = Field(examples=[365])
    unseen_days: int | None = Field(examples=[None])
    search: domain.SearchMode = Field(description="How it is searched.", examples=["auto"])
    graph: GraphOut | None = Field(description="Its HNSW graph, if `search` is `hnsw`.")
    persons: int | None = Field(None, description="Only where one collection is read.", examples=[420])
    faces: int | None = Field(None, description="Only where one collection is read.", examples=[500])
    created_at: RecordedAt
    updated_at: RecordedAt

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
            unseen_days=collection.unseen_days,
            search=collection.search,
            graph=collection.graph and GraphOut.from_attributes(collection.graph),
            persons=persons,
            faces=faces,
            created_at=collection.created_at,
            updated_at=collection.updated_at,
        )


class ConsentIn(ApiModel):
    """A person's agreement as it was recorded."""

    purpose: Purpose = Field(examples=["Entry to building A"])
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


class ConsentPatch(MergePatch):
    """Changes to a live consent; what is left out stays."""

    expires_at: Timestamp | None = Field(None, description="Faces under the consent follow; null until withdrawn.")
    evidence_ref: Reference | None = None


class ConsentOut(ApiModel):
    """A record that a person agreed."""

    id: ConsentId
    person_id: PersonId
    purpose: str = Field(examples=["Entry to building A"])
    recorded_by: str = Field(examples=["reception@example.org"])
    evidence_ref: str | None = Field(examples=["form-2026-0117"])
    granted_at: RecordedAt
    expires_at: datetime | None = Field(description="When it ends as things are.", examples=["2027-11-24T09:30:00Z"])
    withdrawn_at: datetime | None
    seen_at: datetime | None = Field(
        description="When the person was seen last, to a day, where the collection has `unseen_days`.", examples=[None]
    )
    granted_until: datetime | None = Field(description="Its end but for `unseen_days`, likewise.", examples=[None])


class PersonIn(ApiModel):
    """A person without a face yet; their consent comes first."""

    external_id: Reference | None = Field(
        None, description="Your own id, unique in the collection.", examples=["E-1017"]
    )
    name: Name | None = Field(None, examples=["Ada"])
    metadata: Metadata = Field(default_factory=dict, examples=[{"department": "Engines"}])
    consent: ConsentIn

    @model_validator(mode="after")
    def validate_identifiable(self) -> Self:
        """Require an external id or a name: a person without either cannot be identified."""
        if self.external_id is None and self.name is None:
            raise ValueError("give external_id or name")
        return self


class PersonPatch(MergePatch):
    """Changes to a person; what is left out stays."""

    external_id: Reference | None = None
    name: Name | None = None
    metadata: Metadata | None = Field(None, description="Merged member by member; null removes all of it.")


class PersonOut(ApiModel):
    """An identity in a collection."""

    id: PersonId
    collection_id: CollectionId
    external_id: str | None = Field(examples=["E-1017"])
    name: str | None = Field(examples=["Ada"])
    metadata: dict[str, Any] = Field(examples=[{"department": "Engines"}])
    created_at: RecordedAt
    updated_at: RecordedAt


class ErasedOut(ApiModel):
    """What an erasure removed, and how far its bytes are gone by now."""

    person_id: PersonId
    person_erased: bool = Field(description="False when another live consent keeps the person.", examples=[True])
    faces: int = Field(examples=[3])
    consents: int = Field(examples=[1])
    erasure_id: ErasureId
    erasure_path: str = Field(
        description="Where to follow it.", examples=["/v1/erasures/019f0c2e-7000-7abc-8def-001122334455"]
    )
    state: ErasureState = Field(description="How far it is gone by now.", examples=["unfindable"])

    @classmethod
    def from_domain(cls, result: ErasureResult) -> Self:
        """Build it from the result of an erasure."""
        return cls(**asdict(result), erasure_path=f"/v1/erasures/{result.erasure_id}")
