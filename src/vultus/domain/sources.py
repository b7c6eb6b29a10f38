"""Sources: cameras and videos that are watched without a browser, and how they are doing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from vultus.domain.events import Event
from vultus.domain.tracks import Zone


class SourceState(StrEnum):
    """What a source is doing."""

    CONNECTING = "connecting"  # it has not sent a frame yet
    RUNNING = "running"
    LOST = "lost"  # it sent frames, and does no more
    STOPPED = "stopped"  # nobody watches it: switched off, ended, or no longer allowed


class SourceProblem(StrEnum):
    """Why a source sends no frames."""

    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    UNKNOWN_HOST = "unknown_host"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    NOT_FOUND = "not_found"
    UNAUTHORIZED = "unauthorized"
    REDIRECTED = "redirected"
    TLS = "tls"
    NO_VIDEO = "no_video"
    CLOSED = "closed"
    UNREADABLE = "unreadable"
    DECODER_ENDED = "decoder_ended"
    KEY_REVOKED = "key_revoked"
    SECRET_UNREADABLE = "secret_unreadable"  # noqa: S105  a code
    NOT_ANALYSED = "not_analysed"
    FINISHED = "finished"

    @property
    def description(self) -> str:
        """Return what happened and what to do, in a sentence without any part of the address."""
        return _PROBLEM_DESCRIPTIONS[self]


_PROBLEM_DESCRIPTIONS = {
    SourceProblem.ADDRESS_NOT_ALLOWED: "It leads to an address that VULTUS_SOURCES__ALLOWED does not name.",
    SourceProblem.UNKNOWN_HOST: "The name of its host cannot be resolved.",
    SourceProblem.UNREACHABLE: "Its host cannot be reached.",
    SourceProblem.REFUSED: "Its host refuses connections to this port.",
    SourceProblem.TIMEOUT: "It did not answer, or sent nothing, for too long.",
    SourceProblem.NOT_FOUND: "Its host has nothing at this path.",
    SourceProblem.UNAUTHORIZED: "Its host does not accept the user name and password.",
    SourceProblem.REDIRECTED: "It redirects to another address; name that one.",
    SourceProblem.TLS: "Its certificate is not one that this machine trusts.",
    SourceProblem.NO_VIDEO: "What it sends is not a video that is read here.",
    SourceProblem.CLOSED: "It closed the connection.",
    SourceProblem.UNREADABLE: "The file or camera is missing, or the service's user may not read it.",
    SourceProblem.DECODER_ENDED: "The process that decoded it ended; another takes its place.",
    SourceProblem.KEY_REVOKED: "The key that it was last set up with may not recognise people in live video any more.",
    SourceProblem.SECRET_UNREADABLE: "Its address cannot be unsealed with this server's key file; set it again.",
    SourceProblem.NOT_ANALYSED: "This server cannot analyse its frames, for want of a network; its log says which.",
    SourceProblem.FINISHED: "The video is over.",
}


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How a source is doing.

    Attributes:
        state: What it is doing.
        since: Since when.
        problem: Why it sends no frames; None while it does.
        last_frame_at: When the last frame was taken.
        fps: Frames processed per second lately.
        dropped: Frames that were not processed since its server began to watch it.
    """

    state: SourceState
    since: datetime
    problem: SourceProblem | None = None
    last_frame_at: datetime | None = None
    fps: float = 0.0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """A camera or video.

    Attributes:
        id: Its id.
        collection_id: Collection whose persons are looked for.
        key_id: Key it is watched for, the last one that set it up; None for the installation itself.
        name: For people to read.
        label: Its address without anything secret.
        sealed_address: Its address, sealed.
        min_face_px: Shorter side of the smallest face that counts, in pixels of the video.
        zones: Where in the picture faces count; everywhere without one.
        fps: Frames processed per second while somebody is there; None for the server's.
        idle_fps: The same while nobody is.
        enabled: Whether it is watched.
        updated_at: Of its last change, but for its status.
        is_watched: Whether a server watches it.
    """

    id: UUID
    collection_id: UUID
    key_id: UUID | None
    name: str
    label: str
    sealed_address: bytes
    min_face_px: float | None
    zones: tuple[Zone, ...]
    fps: float | None
    idle_fps: float | None
    enabled: bool
    created_at: datetime
    updated_at: datetime
    is_watched: bool
    status: SourceStatus

    @property
    def current_status(self) -> SourceStatus:
        """How it is doing: what its server said last, unless no server watches it."""
        if not self.enabled:
            return replace(self.status, state=SourceState.STOPPED, problem=None, fps=0.0)
        if self.is_watched or self.status.problem is SourceProblem.FINISHED:
            return self.status
        return replace(self.status, state=SourceState.CONNECTING, fps=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCreated(Event):
    """A source was set up."""

    action: ClassVar[str] = "source.created"
    collection_id: UUID
    object_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChanged(Event):
    """Settings of a source were changed.

    Attributes:
        fields: Names of the settings.
    """

    action: ClassVar[str] = "source.changed"
    collection_id: UUID
    object_id: UUID
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDeleted(Event):
    """A source was deleted."""

    action: ClassVar[str] = "source.deleted"
    collection_id: UUID
    object_id: UUID
