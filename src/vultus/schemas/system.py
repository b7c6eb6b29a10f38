"""Health, version, models, audit and problems in responses."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from vultus.models.pipeline import FacePipeline
from vultus.schemas.base import ApiModel, Cosine, Rate
from vultus.services.jobs import JobStatus


class HealthOut(ApiModel):
    """The service is running."""

    status: str = "ok"


class JobOut(ApiModel):
    """A background job of the server."""

    name: str
    interval_s: float | None = Field(description="Pause between two runs; null for a job that waits for work.")
    last_success_at: datetime | None
    consecutive_failures: int
    is_overdue: bool = Field(description="Whether it has not succeeded for much longer than its interval.")


class ReadinessOut(ApiModel):
    """Requests can be served; `degraded` when a background job is overdue."""

    status: Literal["ok", "degraded"]
    jobs: list[JobOut]

    @classmethod
    def from_statuses(cls, statuses: Sequence[JobStatus]) -> Self:
        """Build the response from the jobs that run."""
        jobs = [JobOut.from_attributes(status) for status in statuses]
        return cls(status="degraded" if any(job.is_overdue for job in jobs) else "ok", jobs=jobs)


class VersionOut(ApiModel):
    """What is running."""

    name: str = "vultus"
    version: str
    api: str = "v1"


class OperatingPointOut(ApiModel):
    """The cosine threshold measured for a false match rate."""

    false_match_rate: Rate
    threshold: Cosine


class ModelOut(ApiModel):
    """The networks in use and their licences."""

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
    def from_pipeline(cls, pipeline: FacePipeline) -> Self:
        """Build the response from a loaded pack."""
        networks = (pipeline.pack.detector, pipeline.pack.embedder)
        return cls(
            pack=pipeline.pack.name,
            detector=networks[0].name,
            embedder=networks[1].name,
            contract_id=pipeline.space.id,
            dimension=pipeline.space.dimension,
            preprocessing=pipeline.space.preprocessing,
            licences={part.name: part.licence.name for part in networks},
            papers={part.name: part.paper for part in networks},
            commercial_use=pipeline.pack.is_commercial_use_allowed,
            runtime=pipeline.runtime,
            operating_points=[
                OperatingPointOut(false_match_rate=rate, threshold=threshold)
                for rate, threshold in pipeline.calibration.points
            ],
            calibration_source=pipeline.calibration.source,
            margin=pipeline.calibration.margin,
        )


class AuditOut(ApiModel):
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


class FieldProblem(ApiModel):
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
