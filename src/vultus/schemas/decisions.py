"""Decision records in responses."""

from __future__ import annotations

from typing import Any, Self
from uuid import UUID

from pydantic import Field

from vultus import domain
from vultus.domain.decision_records import DecisionExplanation, DecisionKind, DecisionRecord
from vultus.schemas.base import (
    TIMESTAMP,
    ApiModel,
    CollectionId,
    ConsentId,
    Cosine,
    PersonId,
    Rate,
    RecordedAt,
    SpaceId,
)
from vultus.schemas.galleries import ConsentOut
from vultus.schemas.reasons import DecisionReason
from vultus.schemas.system import AuditOut


class DecidedLivenessOut(ApiModel):
    """Whether a live face was before the camera."""

    score: float = Field(examples=[0.9812])
    reason: str = Field(examples=["live"])


class DecisionRecordOut(ApiModel):
    """A decision as it was recorded before it was answered: ids and figures."""

    id: UUID = Field(
        description="Of the record; of live video that of the event.", examples=["019f0c2e-7f00-7abc-8def-001122334455"]
    )
    at: RecordedAt
    kind: DecisionKind = Field(description="What was asked.", examples=["recognize"])
    actor: str = Field(examples=["key:019f0c2d-2222-7bbb-8ccc-abcdefabcdef"])
    request_id: str | None = Field(examples=["0d9f4c2a"])
    collection_id: CollectionId
    person_id: PersonId | None = Field(
        description="Whom the verdict names, or a comparison was with; null if nobody, or once they are erased."
    )
    consent_id: ConsentId | None = Field(description="Consent of their enrolled face that was closest.")
    origin_id: UUID | None = Field(description="Live session or source that saw the face.", examples=[None])
    track_id: UUID | None = Field(description="Of the face there.", examples=[None])
    verdict: domain.Verdict = Field(examples=["match"])
    band: domain.Band | None = Field(description="How clear a match was.", examples=["clear"])
    similarity: Cosine | None = Field(
        description="Cosine to the person; null for keys without the permission `scores`.", examples=[0.9731]
    )
    threshold: Cosine = Field(description="Cosine that had to be reached.", examples=[0.9412])
    false_match_rate: Rate = Field(description="Of the threshold, as in a verdict.", examples=[0.0001])
    worst_group_false_match_rate: Rate | None = Field(examples=[0.0009])
    false_positive_identification_rate: Rate = Field(examples=[0.0488])
    gallery_size: int = Field(examples=[500])
    reasons: list[DecisionReason] = Field(examples=[["above_threshold"]])
    liveness: DecidedLivenessOut | None = Field(description="Null if it was not checked.", examples=[None])
    contract_id: SpaceId
    calibration: str = Field(description="What the threshold was read from.", examples=["LFW, all impostor pairs"])
    policy: dict[str, Any] = Field(
        description="What of the collection's policy decided.",
        examples=[{"threshold": None, "target_fmr": 0.0001, "target_fpir": 0.01, "fusion": "best", "liveness": "off"}],
    )
    rules_since: RecordedAt = Field(
        description="When the collection became as it was then: its version.", examples=[TIMESTAMP]
    )

    @classmethod
    def from_domain(cls, record: DecisionRecord) -> Self:
        """Build the response from a domain value."""
        return cls.model_validate(_build_values(record))


class DecisionExplanationOut(DecisionRecordOut):
    """A decision record with what it rested on, as far as that is kept."""

    consent: ConsentOut | None = Field(
        description="Under which the face was enrolled; null for keys without `read`, and once it is erased."
    )
    key_name: str | None = Field(description="Of the key that asked.", examples=["door"])
    rules: AuditOut | None = Field(
        description="Entry of the audit record that made the rules what they were; null once it is deleted."
    )

    @classmethod
    def from_explanation(cls, explanation: DecisionExplanation) -> Self:
        """Build the response from a service's result."""
        return cls.model_validate(
            _build_values(explanation.record)
            | {
                "consent": explanation.consent and ConsentOut.from_attributes(explanation.consent),
                "key_name": explanation.key_name,
                "rules": explanation.rules and AuditOut.from_attributes(explanation.rules),
            }
        )


def _build_values(record: DecisionRecord) -> dict[str, Any]:
    columns = {name: getattr(record, name) for name in DecisionRecord.__dataclass_fields__ if name != "detail"}
    return columns | record.detail
