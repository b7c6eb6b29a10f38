"""The protocol of a live session as a state machine without I/O: `on_message(state, message) → (state, replies)`.

A session greets, is admitted, and streams: of the frames that come while one is processed, the newest waits and the
others are dropped and counted, so that an answer is never late by more than one frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from vultus.domain import Frame, FrameResult
from vultus.errors import OverloadedError, UnsupportedImageError, VultusError
from vultus.live.close_codes import CODE_BY_KIND, FATAL_KINDS, CloseCode
from vultus.live.messages import (
    Admit,
    Admitted,
    BytesReceived,
    Close,
    Ended,
    FrameDone,
    Message,
    Process,
    Reply,
    SecretOffered,
    Send,
    SessionTerms,
    TextReceived,
    TimePassed,
)
from vultus.schemas.live import ByeIn, ClientMessage, FrameRefusedOut, HelloIn, ResultOut, TrackOut, WelcomeOut

HEADER = struct.Struct(">QQ")
"""Before the file of a frame: sequence number, and milliseconds since 1970 when it was taken; big-endian."""

HELLO_S = 5.0
MESSAGE_FACTOR, MESSAGE_BURST = 4.0, 60.0
"""A session may send so many times as many messages as frames are allowed, and so many at once; beyond it is closed."""

FRAME_BURST = 3.0
"""Frames that may come at once, after a pause."""

MAX_SEQUENCE = 2**53 - 1
"""What JavaScript counts exactly."""

MAX_TEXT_LENGTH = 1024
EPOCH = datetime.fromtimestamp(0, UTC)
MAX_CAPTURED_MS = 253_402_300_799_000  # the end of the year 9999


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server allows of every session."""

    max_frame_bytes: int
    idle_s: float
    resume_s: float


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much may come, by a bucket that fills with time.

    Attributes:
        per_s: Filled a second.
        burst: Most in it.
        left: In it at `at`.
        at: Seconds.
    """

    per_s: float
    burst: float
    left: float
    at: float

    @classmethod
    def make_full(cls, per_s: float, burst: float, now: float) -> Allowance:
        """Return a full bucket."""
        return cls(per_s, burst, burst, now)

    def take(self, now: float) -> tuple[Allowance, bool]:
        """Return the bucket after one was taken, and whether there was one."""
        left = min(self.burst, self.left + (now - self.at) * self.per_s)
        has_one = left >= 1.0
        return replace(self, left=left - 1.0 if has_one else left, at=now), has_one


@dataclass(frozen=True, slots=True)
class Greeting:
    """Nothing came yet."""

    limits: Limits
    since: float


@dataclass(frozen=True, slots=True)
class Admitting:
    """A secret came, and is looked at."""

    limits: Limits


@dataclass(frozen=True, slots=True)
class Streaming:
    """Frames come and answers go.

    Attributes:
        processing: Whether a frame is being processed.
        waiting: The newest that came meanwhile.
        dropped: Frames dropped since the last answer.
        last_sequence: Of the newest frame; -1 before the first.
    """

    limits: Limits
    terms: SessionTerms
    frames: Allowance
    messages: Allowance
    last_frame_at: float
    processing: bool = False
    waiting: Frame | None = None
    dropped: int = 0
    last_sequence: int = -1


@dataclass(frozen=True, slots=True)
class Over:
    """The connection is closed."""


State = Greeting | Admitting | Streaming | Over
Step = tuple[State, tuple[Reply, ...]]


class _ViolationError(Exception):
    """What the client sent, or did not send in time, ends the connection."""

    def __init__(self, code: CloseCode, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def on_message(state: State, message: Message, now: float) -> Step:
    """Return the state after a message, and what is to be done.

    Args:
        state: Before it.
        message: From the client or the server.
        now: Seconds of a clock that never goes back.
    """
    if isinstance(state, Over):
        return state, ()
    try:
        if isinstance(message, Ended):
            raise _ViolationError(message.code)
        if isinstance(state, Greeting):
            return _greet(state, message, now)
        if isinstance(state, Admitting):
            return _admit(state, message, now)
        return _stream(state, message, now)
    except _ViolationError as violation:
        code = violation.code
        return Over(), (Close(code, violation.detail or code.meaning, ends_session=not code.may_resume),)


def _greet(state: Greeting, message: Message, now: float) -> Step:
    if isinstance(message, SecretOffered):
        return Admitting(state.limits), (Admit(message.secret, message.resumes),)
    if isinstance(message, TextReceived):
        said = _parse_text(message.text)
        if not isinstance(said, HelloIn):
            raise _ViolationError(CloseCode.MALFORMED, "Say hello first.")
        return Admitting(state.limits), (Admit(said.ticket or said.resume_token or "", resumes=said.ticket is None),)
    if isinstance(message, BytesReceived):
        raise _ViolationError(CloseCode.MALFORMED, "Say hello before the first frame.")
    if isinstance(message, TimePassed) and now - state.since > HELLO_S:
        raise _ViolationError(CloseCode.HELLO_TIMEOUT)
    return state, ()


def _admit(state: Admitting, message: Message, now: float) -> Step:
    if isinstance(message, TextReceived | BytesReceived):
        raise _ViolationError(CloseCode.MALFORMED, "Wait for the welcome before you send more.")
    if not isinstance(message, Admitted):
        return state, ()
    terms, limits = message.terms, state.limits
    rate = terms.frames_per_second
    welcome = WelcomeOut(
        session_id=terms.session_id,
        collection_id=terms.collection_id,
        resumed=terms.resumed,
        resume_token=terms.resume_token,
        resume_s=limits.resume_s,
        ends_at=terms.ends_at,
        frames_per_second=rate,
        max_frame_bytes=limits.max_frame_bytes,
    )
    frames = Allowance.make_full(rate, FRAME_BURST, now)
    messages = Allowance.make_full(rate * MESSAGE_FACTOR, max(MESSAGE_BURST, rate * MESSAGE_FACTOR), now)
    return Streaming(limits, terms, frames, messages, last_frame_at=now), (Send(welcome),)


def _stream(state: Streaming, message: Message, now: float) -> Step:
    if isinstance(message, FrameDone):
        return _answer_frame(state, message)
    if isinstance(message, TextReceived | BytesReceived):
        messages, may_send = state.messages.take(now)
        if not may_send:
            raise _ViolationError(CloseCode.TOO_MANY_MESSAGES)
        state = replace(state, messages=messages)
        if isinstance(message, BytesReceived):
            return _take_frame(state, message.content, now)
        if isinstance(_parse_text(message.text), ByeIn):
            raise _ViolationError(CloseCode.DONE)
        raise _ViolationError(CloseCode.MALFORMED, "The session is open already.")
    if isinstance(message, TimePassed):
        _check_deadlines(state, now)
    return state, ()


def _check_deadlines(state: Streaming, now: float) -> None:
    if now >= state.terms.closes_at:
        raise _ViolationError(CloseCode.SESSION_OVER)
    if now - state.last_frame_at > state.limits.idle_s:
        raise _ViolationError(CloseCode.IDLE)


def _take_frame(state: Streaming, content: bytes, now: float) -> Step:
    """Process a frame, let it wait in place of an older one, or drop it."""
    frame = _parse_frame(state, content)
    frames, may_come = state.frames.take(now)
    state = replace(state, last_sequence=frame.sequence, last_frame_at=now, frames=frames)
    if not may_come:
        return _drop(state, frame, "More frames a second came than the ticket allows.")
    if state.processing:
        return replace(state, waiting=frame, dropped=state.dropped + (state.waiting is not None)), ()
    return _begin_frame(state, frame)


def _begin_frame(state: Streaming, frame: Frame) -> tuple[Streaming, tuple[Reply, ...]]:
    """Process a frame; what is no picture is refused in its turn too, so that answers come in the frames' order."""
    if _is_picture(frame.content):
        return replace(state, processing=True), (Process(frame),)
    error = UnsupportedImageError("A frame is a JPEG or WebP file.")
    refusal = _build_refusal(frame.sequence, error, state.dropped)
    return replace(state, processing=False, dropped=0), (Send(refusal),)


def _drop(state: Streaming, frame: Frame, reason: str) -> tuple[Streaming, tuple[Reply, ...]]:
    """Drop a frame; tell it at once if no answer will follow that could, for the client may wait for one."""
    if state.processing:
        return replace(state, dropped=state.dropped + 1), ()
    error = OverloadedError(f"{reason} The frame was dropped; send the next one.")
    return replace(state, dropped=0), (Send(_build_refusal(frame.sequence, error, state.dropped)),)


def _parse_frame(state: Streaming, content: bytes) -> Frame:
    if len(content) - HEADER.size > state.limits.max_frame_bytes:
        raise _ViolationError(CloseCode.FRAME_TOO_LARGE)
    if len(content) <= HEADER.size:
        raise _ViolationError(CloseCode.MALFORMED, "A frame is 16 bytes of header, then a file.")
    sequence, captured_ms = HEADER.unpack_from(content)
    if sequence > MAX_SEQUENCE:
        raise _ViolationError(CloseCode.MALFORMED, "A sequence number is below 2^53.")
    if sequence <= state.last_sequence:
        raise _ViolationError(CloseCode.MALFORMED, f"Frame {sequence} came after {state.last_sequence}.")
    if captured_ms > MAX_CAPTURED_MS:
        raise _ViolationError(CloseCode.MALFORMED, "A frame's time is in milliseconds since 1970.")
    return Frame(content[HEADER.size :], sequence, EPOCH + timedelta(milliseconds=captured_ms))


def _answer_frame(state: Streaming, done: FrameDone) -> Step:
    """Answer a frame, then process the one that waits."""
    outcome = done.outcome
    if isinstance(outcome, VultusError) and outcome.kind in FATAL_KINDS:
        raise _ViolationError(CODE_BY_KIND[outcome.kind])
    waiting = state.waiting
    state = replace(state, waiting=None, processing=waiting is not None)
    replies: tuple[Reply, ...]
    if isinstance(outcome, OverloadedError):
        state, replies = _drop(state, done.frame, outcome.detail)
    elif isinstance(outcome, VultusError):
        replies = (Send(_build_refusal(done.frame.sequence, outcome, state.dropped)),)
        state = replace(state, dropped=0)
    else:
        replies = (Send(_build_result(done, outcome, state.dropped)),)
        state = replace(state, dropped=0)
    if waiting is None:
        return state, replies
    state, begun = _begin_frame(state, waiting)
    return state, (*replies, *begun)


def _build_result(done: FrameDone, result: FrameResult, dropped: int) -> ResultOut:
    return ResultOut(
        sequence=result.sequence,
        captured_at=done.frame.captured_at,
        width=result.width,
        height=result.height,
        tracks=[TrackOut.from_domain(track) for track in result.tracks],
        dropped=dropped,
        timings_ms=result.timings_ms | {"total": done.total_ms},
    )


def _build_refusal(sequence: int, error: VultusError, dropped: int) -> FrameRefusedOut:
    return FrameRefusedOut(
        sequence=sequence,
        code=error.code,
        detail=error.detail,
        retry_after_s=error.facts.get("retry_after_s"),
        dropped=dropped,
    )


def _parse_text(text: str) -> HelloIn | ByeIn:
    if len(text) > MAX_TEXT_LENGTH:
        raise _ViolationError(CloseCode.MALFORMED, f"A text message has at most {MAX_TEXT_LENGTH} characters.")
    try:
        return ClientMessage.validate_json(text)
    except ValueError:
        raise _ViolationError(CloseCode.MALFORMED, "A text message is hello or bye: see /asyncapi.json.") from None


def _is_picture(content: bytes) -> bool:
    return content[:3] == b"\xff\xd8\xff" or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")
