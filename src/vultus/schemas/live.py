"""Live recognition: tickets, and the messages of a session."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, Self
from uuid import UUID

from pydantic import Field, TypeAdapter, model_validator

from vultus import domain
from vultus.schemas.base import ApiModel, CollectionId, Measure, Number, RecordedAt, Reference
from vultus.schemas.faces import BoxOut, DecisionOut, LandmarksOut, LivenessOut, MatchedPersonOut, build_landmarks

PROTOCOL: Final = "vultus.live.v1"
PATH = "/v1/live"
TICKET_PREFIX, RESUME_PREFIX = "ticket.", "resume."
"""Of a sub-protocol that brings a secret."""

EXAMPLE = "8mXr1QkVnN7uZ0tq3hJcYwB5sLdGfE2aPiKoTyRvUxM"
SESSION = "019f0c2e-7b01-7d22-8a33-0a1b2c3d4e5f"
Secret = Annotated[str, Field(min_length=1, max_length=128, examples=[EXAMPLE])]
SessionId = Annotated[UUID, Field(examples=[SESSION])]


class TicketIn(ApiModel):
    """What a live session may do."""

    collection: Reference = Field("default", description="Id or name of the collection.", examples=["default"])
    scores: bool | None = Field(
        None, description="Whether answers show scores; null: if the key has the permission `scores`."
    )
    frames_per_second: Number | None = Field(
        None, gt=0, description="Most frames that the session may send; null for the server's most.", examples=[15.0]
    )
    session_s: Number | None = Field(
        None, gt=0, description="Longest duration of the session, seconds; null for the server's longest."
    )


class TicketOut(ApiModel):
    """A ticket: it opens one session, once, within seconds."""

    ticket: str = Field(
        description=f"Send it as the sub-protocol `{TICKET_PREFIX}TICKET` beside `{PROTOCOL}`, or in the first "
        "message; never in an address. Only its digest is stored.",
        examples=[EXAMPLE],
    )
    protocol: Literal["vultus.live.v1"] = Field(PROTOCOL, description="The sub-protocol to ask for.")
    path: str = Field(PATH, description="Of the WebSocket, beside this API.")
    expires_at: RecordedAt = Field(description="From when on it opens nothing.")
    collection_id: CollectionId
    permissions: list[domain.Permission] = Field(description="Of the session.", examples=[["live", "scores"]])
    frames_per_second: Measure = Field(examples=[15.0])
    session_s: Measure = Field(description="Longest duration of the session, seconds.", examples=[28800.0])

    @classmethod
    def from_domain(cls, ticket: domain.LiveTicket, secret: str) -> Self:
        """Build the response from a domain value."""
        return cls(
            ticket=secret,
            expires_at=ticket.expires_at,
            collection_id=ticket.collection_id,
            permissions=[one for one in domain.Permission if one in ticket.permissions],
            frames_per_second=ticket.frames_per_second,
            session_s=ticket.session_s,
        )


class HelloIn(ApiModel):
    """The first message of a client that brought no secret as a sub-protocol."""

    type: Literal["hello"] = Field(examples=["hello"])
    ticket: Secret | None = Field(None, description="Opens a session.", examples=[EXAMPLE])
    resume_token: Secret | None = Field(
        None, description="Instead: goes on with the session that gave it.", examples=[None]
    )

    @model_validator(mode="after")
    def validate_single_secret(self) -> Self:
        """Reject a greeting with both secrets, or none."""
        if (self.ticket is None) == (self.resume_token is None):
            raise ValueError("give either ticket or resume_token")
        return self


class ByeIn(ApiModel):
    """Ends the session for good: it cannot be resumed, and whoever was seen has left."""

    type: Literal["bye"] = Field(examples=["bye"])


ClientMessage = TypeAdapter[HelloIn | ByeIn](Annotated[HelloIn | ByeIn, Field(discriminator="type")])
"""What a client sends as text; frames are binary."""


class WelcomeOut(ApiModel):
    """The session is open: frames may be sent."""

    type: Literal["welcome"] = Field("welcome", examples=["welcome"])
    session_id: SessionId
    collection_id: CollectionId
    resumed: bool = Field(description="Whether the session goes on, with the tracks it had.", examples=[False])
    resume_token: str = Field(
        description="Goes on with the session after the connection broke; once, and the next greeting has another.",
        examples=[EXAMPLE],
    )
    resume_s: Measure = Field(description="For so long after the connection broke, seconds.", examples=[10.0])
    ends_at: RecordedAt = Field(description="When the session is closed at the latest.")
    frames_per_second: Measure = Field(description="Frames beyond are dropped.", examples=[15.0])
    max_frame_bytes: int = Field(description="A longer frame closes the session.", examples=[4194304])


class TrackOut(ApiModel):
    """One face through consecutive frames."""

    track_id: UUID = Field(examples=["019f0c2e-7c55-7a10-9b20-112233445566"])
    state: domain.TrackState = Field(description="`tentative` until seen in enough frames.", examples=["confirmed"])
    box: BoxOut
    landmarks: LandmarksOut
    verdict: domain.Verdict | None = Field(description="Null until enough frames agree.", examples=["match"])
    person: MatchedPersonOut | None = Field(
        description="Whom the verdict names; null unless it is `match`.", examples=[MatchedPersonOut.build_example()]
    )
    decision: DecisionOut | None = Field(
        description="The verdict with everything needed to understand it; null until there is one.",
        examples=[DecisionOut.build_example()],
    )
    liveness: LivenessOut | None = Field(
        description="Over the track; null unless the collection checks it.", examples=[None]
    )
    identity_age_ms: Measure | None = Field(
        description="Since the face was last embedded; null if it was not yet.", examples=[412.0]
    )
    first_seen_at: RecordedAt = Field(description="By the clock of the frames, as `captured_at`.")

    @classmethod
    def from_domain(cls, track: domain.Track) -> Self:
        """Build the message from a domain value."""
        return cls(
            track_id=track.id,
            state=track.state,
            box=BoxOut.from_attributes(track.box),
            landmarks=build_landmarks(track.landmarks),
            verdict=track.verdict,
            person=MatchedPersonOut.from_candidate(track.person),
            decision=None if track.decision is None else DecisionOut.from_decision(track.decision),
            liveness=None if track.liveness is None else LivenessOut.from_attributes(track.liveness),
            identity_age_ms=track.identity_age_ms,
            first_seen_at=track.first_seen_at,
        )


Dropped = Annotated[
    int,
    Field(
        description="Frames dropped since the last answer: newer ones came, they came too often, or photos would have "
        "had to wait.",
        examples=[0],
    ),
]


class ResultOut(ApiModel):
    """What a frame shows."""

    type: Literal["result"] = Field("result", examples=["result"])
    sequence: int = Field(description="Of the frame.", examples=[41])
    captured_at: datetime = Field(description="Of the frame, as it was sent.", examples=["2026-11-24T09:30:00.040Z"])
    width: int = Field(description="Of the upright frame, pixels.", examples=[640])
    height: int = Field(examples=[480])
    tracks: list[TrackOut] = Field(description="Left to right.")
    dropped: Dropped
    timings_ms: dict[str, Measure] = Field(
        description="Milliseconds by stage; `total` from the frame's last byte to this answer.",
        examples=[{"decode": 2.1, "detect": 14.8, "total": 19.5}],
    )


class FrameRefusedOut(ApiModel):
    """A frame that could not be used; the session goes on."""

    type: Literal["refused"] = Field("refused", examples=["refused"])
    sequence: int = Field(description="Of the frame.", examples=[42])
    code: str = Field(description="Stable, as in the API's problems.", examples=["image_truncated"])
    detail: str = Field(description="For people.", examples=["The image ends before its data does."])
    retry_after_s: int | None = Field(None, description="When it may be tried again, if that helps.")
    dropped: Dropped


ServerMessage = WelcomeOut | ResultOut | FrameRefusedOut
