"""Decision records: why a probe was answered as it was. Ids and figures; never an image or a vector."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from vultus.domain.faces import Liveness
from vultus.domain.galleries import Consent
from vultus.domain.policies import Decision, Verdict
from vultus.domain.records import AuditEntry

DecisionKind = Literal["recognize", "search", "verify", "live"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was decided about one face or vector.

    Attributes:
        decision: The verdict and what it rests on.
        person_id: Whom a match names, or whom a comparison was with; else None.
        face_id: Their enrolled face that was closest.
        similarity: Cosine to them.
        liveness: Of the face; None if it was not checked.
        id: Of the record; of live video that of the event.
        origin_id: Live session or source.
        track_id: Of the face there.
    """

    decision: Decision
    person_id: UUID | None = None
    face_id: UUID | None = None
    similarity: float | None = None
    liveness: Liveness | None = None
    id: UUID | None = None
    origin_id: UUID | None = None
    track_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision as it was recorded, before it was answered.

    Attributes:
        kind: What was asked.
        actor: The key, command or job that asked.
        person_id: Whom it names, or a comparison was with; None if nobody, or if they are erased.
        consent_id: Consent of the enrolled face that was closest; None likewise.
        origin_id: Live session or source that saw the face.
        similarity: Cosine to the person; None for who may see no scores.
        threshold: Cosine that had to be reached.
        detail: The rest of the decision, by the names of `Decision`; what it was decided by; and the liveness.
    """

    id: UUID
    at: datetime
    kind: str
    actor: str
    request_id: str | None
    collection_id: UUID
    person_id: UUID | None
    consent_id: UUID | None
    origin_id: UUID | None
    track_id: UUID | None
    verdict: str
    band: str | None
    similarity: float | None
    threshold: float
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionFilter:
    """Which decision records are listed; None for any.

    Attributes:
        since: Earliest time.
        until: Time before which they were recorded.
        collections: Ids of collections, in one of which they were made.
    """

    actor: str | None = None
    verdict: Verdict | None = None
    request_id: str | None = None
    collection_id: UUID | None = None
    person_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    collections: frozenset[UUID] | None = None


@dataclass(frozen=True, slots=True)
class DecisionExplanation:
    """A decision record with what it rested on, as far as that is kept.

    Attributes:
        consent: Of the face that was found; None if it is erased.
        key_name: Of the key that asked.
        rules: Entry of the audit record by which the collection's rules became what they were.
    """

    record: DecisionRecord
    consent: Consent | None = None
    key_name: str | None = None
    rules: AuditEntry | None = field(default=None)
