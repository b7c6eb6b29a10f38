"""Tickets: what opens a live session once."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from vultus.domain.keys import Permission


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTicket:
    """What a session that is opened with a ticket may do.

    Attributes:
        key_id: The API key that the ticket was made with; the session acts for it.
        key_sha256: Of the secret of that key; the session ends when it is no longer accepted.
        collection_id: The only collection it may reach.
        permissions: Of those of the key.
        frames_per_second: Most frames it may send.
        session_s: Longest duration, seconds.
        expires_at: From when on the ticket opens nothing.
    """

    key_id: UUID
    key_sha256: bytes = field(repr=False)
    collection_id: UUID
    permissions: frozenset[Permission]
    frames_per_second: float
    session_s: float
    expires_at: datetime
