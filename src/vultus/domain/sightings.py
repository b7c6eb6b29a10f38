"""Sightings: what a live session or a source saw; ids and times only.

A sighting is in the outbox and nowhere else: one about a person is erased with them, and all are deleted after a time.
The audit record, which outlives everybody, has none: who came when, for years, would be a profile of movements.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal
from uuid import UUID

from vultus.domain.policies import Band
from vultus.utils.moments import format_moment

OriginKind = Literal["session", "source"]

_COLUMNS = {"collection_id", "person_id", "origin_id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """Something that a live session or a source saw.

    Attributes:
        action: Its name in the outbox; never changed.
        collection_id: Collection whose persons are looked for.
        person_id: Person it is about; None where that is nobody who is enrolled, or not known.
        origin_kind: Whether a session or a source saw it.
        origin_id: The session or source; its events are delivered in their order.
        at: When the frame was taken, with a time zone.
    """

    action: ClassVar[str]
    collection_id: UUID
    person_id: UUID | None = None
    origin_kind: OriginKind
    origin_id: UUID
    at: datetime

    @property
    def detail(self) -> dict[str, Any]:
        """Every other field, for JSON; the kind of the origin as `origin`."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        detail: dict[str, Any] = {"origin": values.pop("origin_kind")}
        for name, value in values.items():
            if name not in _COLUMNS:
                detail[name] = _format_value(value)
        return detail


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackSighting(Sighting):
    """Something about a track: the face of one person for as long as it is in view."""

    track_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Appeared(TrackSighting):
    """A face stayed long enough to be a track; who it is need not be known."""

    action: ClassVar[str] = "appeared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised(TrackSighting):
    """Enough frames agree on a person.

    Attributes:
        band: How clearly they match.
    """

    action: ClassVar[str] = "recognised"
    person_id: UUID
    band: Band


@dataclass(frozen=True, slots=True, kw_only=True)
class Left(TrackSighting):
    """The face of a track has been absent for as long as the policy says.

    Attributes:
        since: When the track was first seen, or those before it that were of the same person.
        track_ids: All of which it was told that they appeared; `track_id` is the one that the walk ended with.
    """

    action: ClassVar[str] = "left"
    since: datetime
    track_ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown(TrackSighting):
    """A face was seen well for long enough, and is nobody's who is enrolled."""

    action: ClassVar[str] = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoof(TrackSighting):
    """A track was judged to be a presentation attack."""

    action: ClassVar[str] = "spoof"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLost(Sighting):
    """A source sends no frames any more."""

    action: ClassVar[str] = "source_lost"
    origin_kind: OriginKind = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceBack(Sighting):
    """A source that was lost sends frames again."""

    action: ClassVar[str] = "source_back"
    origin_kind: OriginKind = "source"


def _format_value(value: datetime | UUID | Band | tuple[UUID, ...]) -> str | list[str]:
    if isinstance(value, tuple):
        return [str(one) for one in value]
    return format_moment(value, "milliseconds") if isinstance(value, datetime) else str(value)


ACTIONS = frozenset(kind.action for kind in (Appeared, Recognised, Left, Unknown, Spoof, SourceLost, SourceBack))
"""Actions of all sightings; those of events have a dot."""
