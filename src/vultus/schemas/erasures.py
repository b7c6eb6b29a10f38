"""Erasures: what was destroyed, and how far its bytes are gone."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from vultus.domain.erasures import ErasureState
from vultus.schemas.base import TIMESTAMP, ApiModel, CollectionId, ErasureId, PersonId, RecordedAt

REPORT_EXAMPLE = {"rewritten": {"persons": 0.1}, "planted": 24, "seen_before": 24, "found_after": 0, "unproven": []}


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


RECEIPT_EXAMPLE = {
    "format": 1,
    "issued_at": TIMESTAMP,
    "erasure": "019f0c2e-7000-7abc-8def-001122334455",
    "action": "person.erased",
    "erased_at": TIMESTAMP,
    "actor": "key:019f0c2d-2222-7bbb-8ccc-abcdefabcdef",
    "collection": "019f0c2d-1111-7aaa-8bbb-123456789abc",
    "person": "019f0c2e-6a7b-7cc1-a2b3-c4d5e6f70819",
    "object": None,
    "destroyed": {"persons": 1, "faces": 3, "consents": 1, "crops": 0},
    "state": "scrubbed",
    "unreadable_at": TIMESTAMP,
    "scrubbed_at": TIMESTAMP,
    "unproven": [],
    "remaining": ["backups from before"],
    "backups_expire_at": "2026-12-24T09:30:00Z",
    "ledger": {"bytes": 4096, "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
}


class ReceiptOut(ApiModel):
    """A signed document: keep it byte for byte, for another byte anywhere is refused."""

    kind: str = Field(examples=["receipt"])
    content: dict[str, Any] = Field(
        description="What was erased, ids only; when, by whom, what it destroyed; how far it is gone, what remains and "
        "until when; up to where the ledger of erasures went.",
        examples=[RECEIPT_EXAMPLE],
    )
    installation: UUID = Field(description="Who signed.", examples=["3d7c1c1a-5f0e-4c59-9c55-0a1b2c3d4e5f"])
    public_key: str = Field(
        description="Ed25519, base64. It proves nothing by itself: compare it with `vultus receipts public-key`.",
        examples=["3vQm3m5rJ0b8yq0VQ0m7c3kqv1nYcZb1a0d9e8f7g6h="],
    )
    signature: str = Field(
        description="Ed25519, base64, over the document without it, one line of JSON: keys sorted, no spaces, UTF-8.",
        examples=["b4Gx…"],
    )
