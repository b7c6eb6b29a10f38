"""The root of all errors, and what an error means, whatever carries it to its caller."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar


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


class VultusError(Exception):
    """Root of every error whose detail is written for people.

    Args:
        detail: What was wrong, where, and what to do.
        facts: Machine-readable members added to the response.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Request failed"

    def __init__(self, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts
