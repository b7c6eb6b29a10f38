"""Idempotent requests: repeated with the same key, they have one effect and one response."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class IdempotencyContext:
    """What makes a request idempotent.

    Attributes:
        principal_id: Of the caller; different callers may use the same key.
        key: The idempotency key.
        request_sha256: Digest of the whole request.
        status: HTTP status of the response.
        encode: Returns the body of the response to a service's result.
    """

    principal_id: str
    key: str
    request_sha256: bytes
    status: int
    encode: Callable[[Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The response to the first request with an idempotency key; the body is None after who it was about was erased."""

    request_sha256: bytes
    status: int
    body: dict[str, Any] | None
    created_at: datetime


class RepeatedRequestError(Exception):
    """A request was answered before; the edge sends that answer again.

    Attributes:
        stored: The answer.
    """

    def __init__(self, stored: StoredResponse) -> None:
        super().__init__()
        self.stored = stored
