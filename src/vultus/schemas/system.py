"""Health, version, models, audit and problems on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from vultus.models.pipeline import FacePipeline
from vultus.schemas.base import Cosine, Rate, Wire


class HealthOut(Wire):
    """The service is there."""

    status: str = "ok"


class VersionOut(Wire):
    """What is running."""

    name: str = "vultus"
    version: str
    api: str = "v1"


class OperatingPointOut(Wire):
    """The cosine threshold measured for a false match rate."""

    false_match_rate: Rate
    threshold: Cosine


class ModelOut(Wire):
    """The networks in use and what one may do with them."""

    pack: str
    detector: str
    embedder: str
    contract_id: str
    dimension: int
    preprocessing: str
    licences: dict[str, str] = Field(description="By network.")
    terms: dict[str, str] = Field(description="What each licence means, by network.")
    papers: dict[str, str] = Field(description="By network.")
    published: dict[str, dict[str, float]] = Field(description="What publishers state, by network and benchmark.")
    commercial_use: bool
    operating_points: list[OperatingPointOut]
    calibration_source: str
    margin: Cosine

    @classmethod
    def of(cls, pipeline: FacePipeline) -> Self:
        """Translate a loaded pack."""
        pack, contract, calibration = pipeline.pack, pipeline.contract, pipeline.calibration
        return cls(
            pack=pack.name,
            detector=pack.detector.name,
            embedder=pack.embedder.name,
            contract_id=contract.id,
            dimension=contract.dimension,
            preprocessing=contract.preprocessing,
            licences={network.name: network.licence.name for network in pack.networks},
            terms={network.name: network.licence.terms for network in pack.networks},
            papers={network.name: network.paper for network in pack.networks},
            published={network.name: network.published for network in pack.networks},
            commercial_use=pack.commercial_use,
            operating_points=[
                OperatingPointOut(false_match_rate=rate, threshold=threshold) for rate, threshold in calibration.points
            ],
            calibration_source=calibration.source,
            margin=calibration.margin,
        )


class AuditOut(Wire):
    """Something that was written: who, what, when; ids and counts only."""

    id: UUID
    at: datetime
    actor: str
    action: str
    request_id: str | None
    collection_id: UUID | None
    person_id: UUID | None
    object_id: UUID | None
    detail: dict[str, Any]


class FieldProblem(Wire):
    """One wrong field."""

    path: str = Field(examples=["body.consent.purpose"])
    message: str
    code: str = Field(description="Stable.", examples=["missing"])


class Problem(BaseModel):
    """An error after RFC 9457; members beyond these depend on the code."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:vultus:problem:no_face"])
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable; decide by this one.")
    request_id: str
    errors: list[FieldProblem] | None = Field(None, description="Every wrong field, when fields are wrong.")
