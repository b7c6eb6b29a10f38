"""Why a session was closed: one code for every reason."""

from __future__ import annotations

from enum import IntEnum

from vultus.errors import ErrorKind
from vultus.server.websockets import STOP_REASON


class CloseCode(IntEnum):
    """Close codes of the WebSocket; those from 4000 on are this protocol's, the others every WebSocket's.

    The last three digits are those of the HTTP status that is nearest, where one is.
    """

    DONE = 1000
    MESSAGE_TOO_BIG = 1009
    NOT_READING = 1011
    SERVER_STOPS = 1012
    MALFORMED = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    NOT_FOUND = 4404
    HELLO_TIMEOUT = 4408
    RESUMED_ELSEWHERE = 4409
    RESUME_REFUSED = 4410
    FRAME_TOO_LARGE = 4413
    TOO_MANY_MESSAGES = 4429
    IDLE = 4440
    SESSION_OVER = 4441
    KEY_ENDED = 4442
    STALLED = 4443
    KEY_FULL = 4444
    INTERNAL = 4500
    SERVER_FULL = 4503
    UNAVAILABLE = 4504

    @property
    def meaning(self) -> str:
        """What happened, and what to do; short enough for the close frame's 123 bytes."""
        return _MEANINGS[self]

    @property
    def may_resume(self) -> bool:
        """Whether a session that was closed with the code goes on with its resume token."""
        return self in {CloseCode.NOT_READING, CloseCode.STALLED, CloseCode.IDLE}


_MEANINGS = {
    CloseCode.DONE: "The client said bye: the session is over.",
    CloseCode.MESSAGE_TOO_BIG: "A message is longer than any may be, or 4 KiB before the welcome; it was not read.",
    CloseCode.NOT_READING: "No answer to a ping came within 8 seconds: resume.",
    CloseCode.SERVER_STOPS: STOP_REASON,
    CloseCode.MALFORMED: "A message is none of the protocol.",
    CloseCode.UNAUTHENTICATED: "The ticket is unknown, was used, or has expired: make another one.",
    CloseCode.FORBIDDEN: "The key may not recognise people in live video there.",
    CloseCode.NOT_FOUND: "The collection is gone.",
    CloseCode.HELLO_TIMEOUT: "No ticket came within 5 seconds.",
    CloseCode.RESUMED_ELSEWHERE: "The session goes on in another connection.",
    CloseCode.RESUME_REFUSED: "The resume token is unknown, was used, or came too late: make a ticket.",
    CloseCode.FRAME_TOO_LARGE: "The frame is longer than max_frame_bytes.",
    CloseCode.TOO_MANY_MESSAGES: "Far more messages a second than frames are allowed.",
    CloseCode.IDLE: "No frame came for too long: resume when there are some.",
    CloseCode.SESSION_OVER: "The ticket's duration is over: make another one.",
    CloseCode.KEY_ENDED: "The API key was revoked or has expired, or its secret was replaced.",
    CloseCode.STALLED: "Answers were not read for 10 seconds: resume.",
    CloseCode.KEY_FULL: "The key has as many sessions as one may have: end one.",
    CloseCode.INTERNAL: "An error of the server, which is in its log: make another ticket.",
    CloseCode.SERVER_FULL: "The server has as many sessions as it may have: try again soon.",
    CloseCode.UNAVAILABLE: "Something the server needs is down: try again soon.",
}

CODE_BY_KIND = {
    ErrorKind.MALFORMED: CloseCode.MALFORMED,
    ErrorKind.INVALID: CloseCode.MALFORMED,
    ErrorKind.UNSUPPORTED: CloseCode.MALFORMED,
    ErrorKind.TOO_LARGE: CloseCode.FRAME_TOO_LARGE,
    ErrorKind.UNAUTHENTICATED: CloseCode.UNAUTHENTICATED,
    ErrorKind.FORBIDDEN: CloseCode.FORBIDDEN,
    ErrorKind.LIMITED: CloseCode.TOO_MANY_MESSAGES,
    ErrorKind.NOT_FOUND: CloseCode.NOT_FOUND,
    ErrorKind.GONE: CloseCode.NOT_FOUND,
    ErrorKind.CONFLICT: CloseCode.UNAVAILABLE,
    ErrorKind.MISMATCH: CloseCode.MALFORMED,
    ErrorKind.TIMEOUT: CloseCode.UNAVAILABLE,
    ErrorKind.OVERLOADED: CloseCode.SERVER_FULL,
    ErrorKind.UNAVAILABLE: CloseCode.UNAVAILABLE,
    ErrorKind.SETUP: CloseCode.UNAVAILABLE,
    ErrorKind.INTERNAL: CloseCode.INTERNAL,
}
"""Of an error that ends a session, or lets none begin."""

FATAL_KINDS = frozenset(
    {ErrorKind.UNAUTHENTICATED, ErrorKind.FORBIDDEN, ErrorKind.NOT_FOUND, ErrorKind.SETUP, ErrorKind.INTERNAL}
)
"""Kinds of errors of a frame after which no other frame can succeed; beyond them the session goes on."""
