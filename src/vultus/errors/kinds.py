"""What an error means, whatever carries it to its caller."""

from __future__ import annotations

from enum import StrEnum


class ErrorKind(StrEnum):
    """What an error means to a caller, independent of the transport."""

    MALFORMED = "malformed"
    INVALID = "invalid"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    LIMITED = "limited"
    NOT_FOUND = "not_found"
    GONE = "gone"
    CONFLICT = "conflict"
    MISMATCH = "mismatch"
    TIMEOUT = "timeout"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    SETUP = "setup"
    INTERNAL = "internal"


SERVER_FAULT_KINDS = frozenset({ErrorKind.OVERLOADED, ErrorKind.UNAVAILABLE, ErrorKind.SETUP})
"""Kinds of errors that lie in the server or its state, and say nothing about what was sent."""
