"""Erasures: what was destroyed, and how far its bytes are gone."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from vultus.domain.erasures import ErasureState
from vultus.schemas.base import TIMESTAMP, ApiModel, CollectionId, ErasureId, PersonId, RecordedAt

REPORT_EXAMPLE = {"rewritten": {"persons": 0.1}, "planted": 24, "seen_before": 24, "found": 0, "unproven": []}


class ErasureOut(ApiModel):
    """What an erasure destroyed, ids and counts only, and how far its bytes are gone."""

    id: ErasureId
    state: ErasureState = Field(
        description="`unfindable` at once and for every process; `unreadable` once the key is destroyed of what was "
        "sealed; `scrubbed` once the database's files are free of its bytes.",
        examples=["scrubbed"],
    )
    erased_at: RecordedAt
    action: str = Field(description="As in the audit record.", examples=["person.erased"])
    actor: str = Field(examples=["key:019f0c2d-2222-7bbb-8ccc-abcdefabcdef"])
    collection_id: CollectionId
    person_id: PersonId | None = Field(description="Null where a whole collection was deleted.")
    object_id: UUID | None = Field(description="The face or the consent.", examples=[None])
    persons: int = Field(examples=[1])
    faces: int = Field(examples=[3])
    consents: int = Field(examples=[1])
    crops: int = Field(examples=[0])
    unreadable_at: datetime | None = Field(examples=[TIMESTAMP])
    scrubbed_at: datetime | None = Field(examples=[TIMESTAMP])
    backups_expire_at: datetime | None = Field(
        description="When the last backup that may hold it is deleted; null until it is scrubbed, and where the "
        "operator states nothing.",
        examples=["2026-12-24T09:30:00Z"],
    )
    report: dict[str, Any] | None = Field(
        description="Of the scrub: what was rewritten and searched, what is not proven and what remains.",
        examples=[REPORT_EXAMPLE],
    )
