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
    papers: dict[str, str] = Field(description="By network.")
    commercial_use: bool
    runtime: dict[str, str] = Field(description="What runs the detector and the embedder, and in which precision.")
    operating_points: list[OperatingPointOut]
    calibration_source: str
    margin: Cosine

    @classmethod
    def of(cls, pipeline: FacePipeline) -> Self:
        """Translate a loaded pack."""
        parts = (pipeline.pack.detector, pipeline.pack.embedder)
        return cls(
            pack=pipeline.pack.name,
            detector=parts[0].name,
            embedder=parts[1].name,
            contract_id=pipeline.contract.id,
            dimension=pipeline.contract.dimension,
            preprocessing=pipeline.contract.preprocessing,
            licences={part.name: part.licence.name for part in parts},
            papers={part.name: part.paper for part in parts},
            commercial_use=pipeline.pack.commercial_use,
            runtime=pipeline.runtime,
            operating_points=[
                OperatingPointOut(false_match_rate=rate, threshold=threshold)
                for rate, threshold in pipeline.calibration.points
            ],
            calibration_source=pipeline.calibration.source,
            margin=pipeline.calibration.margin,
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
