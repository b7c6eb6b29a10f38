"""Health, version, models, audit and problems in responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from vultus import __version__
from vultus.domain import LoadedSpace, SpaceRegistry
from vultus.domain.decision import build_default_policy
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
from vultus.schemas.galleries import PolicyWire
from vultus.schemas.reasons import AuditAction
from vultus.schemas.recognition import RejectedOut
from vultus.services.jobs import JobStatus


class HealthOut(ApiModel):
    """The service is running."""

    status: str = "ok"


class JobOut(ApiModel):
    """A background job of the server."""

    name: str = Field(examples=["expiry-sweep"])
    interval_s: float | None = Field(
        description="Pause between two runs; null for a job that waits for work.", examples=[60]
    )
    last_success_at: datetime | None = Field(examples=[TIMESTAMP])
    consecutive_failures: int = Field(examples=[0])
    is_overdue: bool = Field(
        description="Whether it has made no progress for much longer than its interval, failed ten times in a row, or "
        "ended.",
        examples=[False],
    )


class UnservedOut(ApiModel):
    """Collections in which nobody is recognised, because no loaded pack makes their vectors."""

    contract_id: SpaceId
    collections: int = Field(description="How many; the log and `vultus doctor` name them.", examples=[1])
    remedy: str = Field(
        examples=["If its pack is installed, name it in VULTUS_INFERENCE__EXTRA_PACKS and start again; else migrate."]
    )


class ReadinessOut(ApiModel):
    """Requests can be served; `degraded` when a background job is overdue or collections are not served."""

    status: Literal["ok", "degraded"] = Field(examples=["ok"])
    jobs: list[JobOut]
    unserved: list[UnservedOut]

    @classmethod
    def from_statuses(
        cls, statuses: Sequence[JobStatus], spaces: SpaceRegistry, unserved: Mapping[str, Sequence[str]]
    ) -> Self:
        """Build the response from the jobs that run, the loaded spaces, and the names of collections by lost space."""
        jobs = [JobOut.from_attributes(status) for status in statuses]
        lost = [
            UnservedOut(contract_id=space_id, collections=len(names), remedy=spaces.describe_remedy("COLLECTION"))
            for space_id, names in unserved.items()
        ]
        return cls(status="degraded" if lost or any(job.is_overdue for job in jobs) else "ok", jobs=jobs, unserved=lost)


class VersionOut(ApiModel):
    """What is running."""

    name: str = "vultus"
    version: str = Field(examples=[__version__])
    api: str = "v1"


class OperatingPointOut(ApiModel):
    """The cosine threshold measured for a false match rate."""

    false_match_rate: Rate = Field(
        description="Of matched strangers, where the pack was measured on them, else of any two people.",
        examples=[0.0001],
    )
    worst_group_false_match_rate: Rate | None = Field(
        description="Of the group with the highest rate; null if not measured.", examples=[0.0006]
    )
    anybody_false_match_rate: Rate = Field(description="Of any two people.", examples=[0.00002])
    false_non_match_rate: Rate | None = Field(
        description="Of two photos of one person, in public photos; null where not measured.", examples=[0.0142]
    )
    threshold: Cosine = Field(examples=[0.4796])


class ModelOut(ApiModel):
    """The networks in use and their licences."""

    pack: str = Field(examples=["builtin"])
    detector: str = Field(examples=["mtcnn"])
    embedder: str = Field(examples=["dlib-resnet"])
    contract_id: SpaceId
    dimension: int = Field(examples=[128])
    preprocessing: str = Field(examples=["MTCNN five points, least squares to 150x150, mirrored average"])
    licences: dict[str, str] = Field(description="By network.", examples=[{"mtcnn": "MIT", "dlib-resnet": "CC0-1.0"}])
    papers: dict[str, str] = Field(
        description="By network.", examples=[{"mtcnn": "Zhang, Zhang, Li, Qiao (2016)", "dlib-resnet": "King (2017)"}]
    )
    commercial_use: bool = Field(examples=[True])
    caution: str | None = Field(
        description="What whoever relies on its verdicts must know; null if nothing.", examples=[None]
    )
    runtime: dict[str, str] = Field(
        description="What runs the detector and the embedder, and in which precision.",
        examples=[{"detector": "ONNX Runtime 1.32.0, fp32", "embedder": "OpenVINO, bf16, cosine 0.999983 to fp32"}],
    )
    operating_points: list[OperatingPointOut]
    calibration_source: str = Field(examples=["LFW, all impostor pairs"])
    margin: Cosine = Field(examples=[0.01])
    default_policy: PolicyWire = Field(description="Of new collections with it; what null takes in a change of one.")

    @classmethod
    def from_space(cls, space: LoadedSpace) -> Self:
        """Build the response from a loaded embedding space."""
        networks = (space.detector, space.embedder)
        return cls(
            pack=space.pack,
            detector=networks[0].name,
            embedder=networks[1].name,
            contract_id=space.id,
            dimension=space.dimension,
            preprocessing=space.preprocessing,
            licences={part.name: part.licence for part in networks},
            papers={part.name: part.paper for part in networks},
            commercial_use=space.is_commercial_use_allowed,
            caution=space.caution,
            runtime=space.runtime,
            operating_points=[
                OperatingPointOut(
                    false_match_rate=rate,
                    worst_group_false_match_rate=space.calibration.get_worst_group_fmr(threshold),
                    false_non_match_rate=space.calibration.get_fnmr(threshold),
                    anybody_false_match_rate=space.calibration.anybody_curve.get_fmr(threshold),
                    threshold=threshold,
                )
                for rate, threshold in space.calibration.points
            ],
            calibration_source=space.calibration.source,
            margin=space.calibration.margin,
            default_policy=PolicyWire(
                **asdict(build_default_policy(space.enrol_rule, space.recognize_rule, space.calibration))
            ),
        )


class LoadOut(ApiModel):
    """What the answering process did since it started, and what it does now; rates are differences of two answers."""

    process_id: UUID = Field(
        description="Made at its start: numbers of two ids cannot be compared.",
        examples=["019f0c2e-7000-7abc-8def-001122334455"],
    )
    started_at: RecordedAt
    at: RecordedAt
    requests: int = Field(description="Answered, but for those after health and load.", examples=[81_020])
    photos: int = Field(description="Photos, and frames of live video, that were analysed.", examples=[74_311])
    searches: int = Field(description="Faces and vectors that were searched for.", examples=[90_214])
    answers_within: dict[str, int] = Field(
        description="How many requests with photos or vectors were answered within so many seconds, counted from the "
        "first byte; `+Inf` counts all.",
        examples=[{"0.1": 70_100, "0.25": 73_000, "+Inf": 73_020}],
    )
    photos_waiting: int = Field(description="For a worker.", examples=[0])
    workers_busy: int = Field(examples=[2])
    connections_in_use: int = Field(description="To the database.", examples=[1])
    connections_idle: int = Field(examples=[4])
    live_sessions: int = Field(examples=[3])


class AuditOut(ApiModel):
    """Something that was written: who, what, when; ids, counts, values of settings and of consents."""

    id: UUID = Field(examples=["019f0c2e-7000-7abc-8def-001122334455"])
    at: RecordedAt
    actor: str = Field(examples=["key:019f0c2d-2222-7bbb-8ccc-abcdefabcdef"])
    action: AuditAction = Field(examples=["person.registered"])
    request_id: str | None = Field(examples=["0d9f4c2a"])
    collection_id: CollectionId | None
    person_id: PersonId | None
    object_id: ConsentId | None
    detail: dict[str, Any] = Field(examples=[{"faces": 1, "rejected": 1}])


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
    rejected: list[RejectedOut] | None = Field(None, description="Of `no_photo_accepted`: why, photo by photo.")
    faces: int | None = Field(None, description="Of `several_faces`: how many were found.")
    photo: str | None = Field(None, description="Of `compare`: which of the two photos, `first` or `second`.")
    rows: list[int] | None = Field(None, description="Of vectors: which persons are wrong, from 0.")
    format: str | None = Field(None, description="Of `unsupported_image`: what the file is.")
    retry_after_s: float | None = Field(None, description="How long to wait, in seconds, as in `Retry-After`.")
    consents: int | None = Field(None, description="Of `conflict`: consents that are older than the new retention.")
    pending: int | None = Field(None, description="Of `transition_incomplete`: faces still to be backfilled.")
    persons: int | None = Field(None, description="Of `transition_incomplete`: persons who would not be found.")
