"""Sources: requests and responses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import Field

from vultus.domain.source_addresses import MAX_ADDRESS_LENGTH
from vultus.domain.sources import Source, SourceProblem, SourceState
from vultus.schemas.base import (
    ApiModel,
    CollectionId,
    Measure,
    MergePatch,
    Name,
    NotRemovable,
    Number,
    RecordedAt,
    Reference,
)

SourceId = Annotated[UUID, Field(examples=["019f0c2f-3333-7ccc-8ddd-123456789abc"])]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
ZoneField = Annotated[
    list[Annotated[list[tuple[Share, Share]], Field(min_length=3, max_length=64)]],
    Field(max_length=16),
]
Address = Annotated[str, Field(min_length=1, max_length=MAX_ADDRESS_LENGTH)]
FrameRate = Annotated[Number, Field(gt=0, le=60)]

ADDRESS = "rtsp://viewer:secret@192.168.7.20/stream1"
ZONES = [[[0.1, 0.2], [0.9, 0.2], [0.9, 1.0], [0.1, 1.0]]]


class SourceIn(ApiModel):
    """A new source."""

    name: Name = Field(description="For people to read.", examples=["front door"])
    collection: Reference = Field("default", description="Id or name of the collection.", examples=["default"])
    address: Address = Field(
        description="`rtsp://`, `rtsps://`, `http://` or `https://` (MJPEG, HLS), the path of a video file, or of a "
        "camera such as `/dev/video0`; one that the operator allows. User and password may be in it; it is stored "
        "sealed and never returned.",
        examples=[ADDRESS],
    )
    min_face_px: Number | None = Field(
        None, gt=0, le=10_000, description="Shorter side of the smallest face that counts, pixels of the video."
    )
    zones: ZoneField = Field(
        default=[],
        description="Polygons in shares of the picture's width and height: where faces count; everywhere without one.",
    )
    fps: FrameRate | None = Field(
        None, description="Frames processed per second while somebody is there; null for the server's."
    )
    idle_fps: FrameRate | None = Field(None, description="The same while nobody is there; null for the server's.")
    enabled: bool = Field(True, description="Whether it is watched.")


class SourcePatch(MergePatch):
    """Changes of a source; it is opened anew, and watched for the key that changes it."""

    name: Annotated[Name | None, NotRemovable("every source has a name")] = Field(None, examples=["back door"])
    address: Annotated[Address | None, NotRemovable("every source has an address")] = Field(
        None, description="A new address, with user and password if it needs them."
    )
    min_face_px: Number | None = Field(None, gt=0, le=10_000, description="Null for no bound.")
    zones: ZoneField | None = Field(None, description="All of them anew; null for none.")
    fps: FrameRate | None = Field(None, description="Null for the server's.")
    idle_fps: FrameRate | None = Field(None, description="Null for the server's.")
    enabled: Annotated[bool | None, NotRemovable("it is true or false")] = Field(
        None, description="Whether it is watched."
    )


class SourceFailureOut(ApiModel):
    """Why a source sends no frames."""

    code: SourceProblem = Field(examples=["timeout"])
    description: str = Field(examples=[SourceProblem.TIMEOUT.description])


class SourceStatusOut(ApiModel):
    """How a source is doing; the figures are a few seconds old."""

    state: SourceState = Field(
        description="`connecting`: it has sent no frame yet; `lost`: it sent frames, and does no more; `stopped`: not "
        "watched, because it is switched off or for the problem named.",
        examples=["running"],
    )
    since: RecordedAt
    problem: SourceFailureOut | None = Field(examples=[None])
    last_frame_at: datetime | None = Field(examples=["2026-11-24T09:30:00Z"])
    fps: Measure = Field(description="Frames processed per second lately.", examples=[4.98])
    dropped: int = Field(
        description="Frames not processed since its server began to watch it, because others took all places.",
        examples=[0],
    )


class SourceOut(ApiModel):
    """A source."""

    id: SourceId
    name: str = Field(examples=["front door"])
    collection_id: CollectionId
    address: str = Field(
        description="Without user, password, query, or values inside the path.",
        examples=["rtsp://192.168.7.20/stream1"],
    )
    min_face_px: float | None = Field(examples=[None])
    zones: list[list[tuple[float, float]]] = Field(examples=[ZONES])
    fps: float | None = Field(examples=[None])
    idle_fps: float | None = Field(examples=[None])
    enabled: bool = Field(examples=[True])
    created_at: RecordedAt
    updated_at: RecordedAt
    status: SourceStatusOut

    @classmethod
    def from_domain(cls, source: Source) -> Self:
        """Build the response from a domain value."""
        status = source.current_status
        problem = status.problem and SourceFailureOut(code=status.problem, description=status.problem.description)
        values: dict[str, Any] = {
            name: getattr(source, name) for name in cls.model_fields.keys() - {"address", "zones", "status"}
        }
        return cls(
            **values,
            address=source.label,
            zones=[list(zone.points) for zone in source.zones],
            status=SourceStatusOut(
                state=status.state,
                since=status.since,
                problem=problem,
                last_frame_at=status.last_frame_at,
                fps=status.fps,
                dropped=status.dropped,
            ),
        )
