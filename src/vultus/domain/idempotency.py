"""Stored responses for idempotent requests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The response to the first request with an idempotency key."""

    request_sha256: bytes
    status: int
    body: dict[str, Any]
    created_at: datetime
