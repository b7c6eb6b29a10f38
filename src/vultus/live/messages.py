"""What goes into the protocol's state machine, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from vultus.domain import Frame, FrameResult
from vultus.errors import VultusError
from vultus.live.close_codes import CloseCode
from vultus.schemas.live import ServerMessage


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """What was agreed when a session was opened or resumed.

    Attributes:
        resume_token: Goes on with it after the connection broke.
        ends_at: By the wall clock, for the client.
        closes_at: The same by the clock of the state machine, seconds.
        frames_per_second: Frames beyond are dropped.
    """

    session_id: UUID
    collection_id: UUID
    resumed: bool
    resume_token: str
    ends_at: datetime
    closes_at: float
    frames_per_second: float


# In, from the client ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class TextReceived:
    """A text message came."""

    text: str


@dataclass(frozen=True, slots=True)
class BytesReceived:
    """A binary message came."""

    content: bytes


# In, from the server ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SecretOffered:
    """A ticket, or a token to resume with, came as a sub-protocol."""

    secret: str
    resumes: bool


@dataclass(frozen=True, slots=True)
class Admitted:
    """The secret was accepted."""

    terms: SessionTerms


@dataclass(frozen=True, slots=True)
class FrameDone:
    """A frame was processed, or cannot be used.

    Attributes:
        frame: The frame.
        outcome: What it shows, or the error it met: `OverloadedError` if it was dropped.
        total_ms: Milliseconds since it came.
    """

    frame: Frame
    outcome: FrameResult | VultusError
    total_ms: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The session, or this connection of it, is ended from elsewhere."""

    code: CloseCode


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Time passed; deadlines are looked at."""


Message = TextReceived | BytesReceived | SecretOffered | Admitted | FrameDone | Ended | TimePassed


# Out ----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Admit:
    """Find out whether a secret opens, or resumes, a session, and answer with `Admitted` or `Ended`."""

    secret: str
    resumes: bool


@dataclass(frozen=True, slots=True)
class Process:
    """Process a frame, and answer with `FrameDone`."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to the client."""

    message: ServerMessage


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection.

    Attributes:
        code: The reason.
        detail: More about it; empty for the code's own meaning.
        ends_session: Whether the session is over too, instead of waiting to be resumed.
    """

    code: CloseCode
    detail: str = ""
    ends_session: bool = True


Reply = Admit | Process | Send | Close
