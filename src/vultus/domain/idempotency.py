"""Answers that are replayed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What was answered to the first request with a key."""

    request_sha256: bytes
    status: int
    body: dict[str, Any]
    created_at: datetime
