"""Audit entries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One audited action; ids and counts only."""

    id: UUID
    at: datetime
    actor: str
    request_id: str | None
    action: str
    collection_id: UUID | None
    person_id: UUID | None
    object_id: UUID | None
    detail: dict[str, Any]
