"""Who is in view of one camera: from tracks, frame by frame, to one event a walk."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from vultus.domain import Band, LivenessReason, StreamOrigin, TrackState, Verdict
from vultus.domain.sightings import Appeared, Left, Recognised, Spoof, Unknown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vultus.domain import Track, TrackPolicy
    from vultus.domain.sightings import Sighting

MAX_TRACKS = 100
"""Tracks that one walk is made of at most: `left` names them all, and somebody may sit before a camera all day."""


@dataclass(slots=True, eq=False)
class Presence:
    """Somebody in view, or out of it for so short a time that they have not left.

    Attributes:
        track_id: Of their latest track.
        first_at: When they came.
        last_at: When they were seen last.
        person_id: Who they are, once they are named.
        track_ids: Of tracks that were told to have appeared.
        is_unknown: Whether `unknown` was told.
        is_spoof: Whether `spoof` was told.
        handed_at: When its latest track took the walk over from another; None once a name has confirmed it.
    """

    track_id: UUID
    first_at: datetime
    last_at: datetime
    person_id: UUID | None = None
    track_ids: tuple[UUID, ...] = ()
    is_unknown: bool = False
    is_spoof: bool = False
    handed_at: datetime | None = None

    def join_walk(self, other: Presence) -> None:
        """Be one walk with another presence, of a track that broke or stood in."""
        self.first_at = min(self.first_at, other.first_at)
        self.track_ids = tuple(dict.fromkeys(other.track_ids + self.track_ids))
        self.is_unknown |= other.is_unknown
        self.is_spoof |= other.is_spoof


@dataclass(slots=True, eq=False)
class Attendance:
    """Who is in view of one origin.

    Attributes:
        collection_id: Collection whose persons are looked for.
        origin: Where the frames come from.
        seen_at: When each person was seen last, for the cooldown; it outlives the stream.
    """

    collection_id: UUID
    origin: StreamOrigin
    seen_at: dict[UUID, datetime] = field(default_factory=dict)
    _presences: dict[UUID, Presence] = field(default_factory=dict)

    def update(
        self, tracks: Iterable[Track], at: datetime, policy: TrackPolicy, replaced: dict[UUID, UUID]
    ) -> list[Sighting]:
        """Return what there is to tell after a frame, in order.

        Args:
            tracks: In the frame.
            at: When it was taken.
            policy: How long somebody must be in view, or out of it.
            replaced: Ids of tracks that go on after this frame under another id, or as another track: by the old ones.
        """
        cooldown = timedelta(seconds=policy.cooldown_s)
        for person_id in [one for one, seen in self.seen_at.items() if abs(at - seen) > cooldown]:
            del self.seen_at[person_id]  # seen in the future, too: the clock of the frames was set back
        sightings: list[Sighting] = []
        for track in tracks:
            if track.state is TrackState.CONFIRMED or track.id in self._presences:
                sightings += self._follow_track(track, at, policy)
        for old, new in replaced.items():
            if (going_on := self._presences.get(old)) is None:
                continue
            if (present := self._presences.get(new)) is not None:
                sightings += self._join_walks(present, going_on)
            else:
                self._presences[new] = self._presences.pop(old)
                going_on.track_id, going_on.handed_at = new, at
        absence = timedelta(seconds=policy.absence_s)
        sightings += self._end_presences([one for one in self._presences.values() if at - one.last_at > absence])
        return sightings

    def end(self) -> list[Sighting]:
        """Return that everybody left."""
        return self._end_presences(list(self._presences.values()))

    def _follow_track(self, track: Track, at: datetime, policy: TrackPolicy) -> list[Sighting]:
        sightings: list[Sighting] = []
        presence = self._presences.get(track.id)
        if presence is None:
            presence, appeared = self._begin_presence(track.id, track.first_seen_at, at)
            sightings.append(appeared)
        presence.last_at = at
        if presence.person_id is not None:
            self.seen_at[presence.person_id] = at
        if track.person is not None:
            band = (track.decision and track.decision.band) or Band.NEAR_THRESHOLD  # a match always has one
            sightings += self._name_presence(presence, track.person.person_id, band, at)
        elif (
            track.verdict is Verdict.NO_MATCH
            and (presence.person_id is None or presence.handed_at)
            and not presence.is_unknown
            and at - (presence.handed_at or presence.first_at) >= timedelta(seconds=policy.unknown_after_s)
        ):
            if presence.handed_at and presence.person_id:  # not they, but somebody who came where they left
                presence = self._split_walk(presence, at, sightings)
            presence.is_unknown = True
            sightings.append(Unknown(**self._describe(presence), at=at))
        if _is_attack(track) and not presence.is_spoof:
            presence.is_spoof = True
            sightings.append(Spoof(**self._describe(presence), at=at))
        return sightings

    def _name_presence(self, presence: Presence, person_id: UUID, band: Band, at: datetime) -> list[Sighting]:
        """Note whose presence it is."""
        sightings: list[Sighting] = []
        if presence.person_id not in {None, person_id}:  # the track was taken over by somebody else
            presence = self._split_walk(presence, at, sightings)
        if presence.person_id is None:
            presence.person_id = person_id
            earlier = [one for one in self._presences.values() if one.person_id == person_id and one is not presence]
            for one in earlier:  # the same walk, with a track that broke
                sightings += self._join_walks(presence, one)
            if person_id not in self.seen_at and not earlier:
                sightings.append(Recognised(**self._describe(presence), band=band, at=at))
            self.seen_at[person_id] = at
        presence.handed_at = None
        return sightings

    def _join_walks(self, presence: Presence, other: Presence) -> list[Sighting]:
        """Make one walk of two, unless it would be of too many tracks: then the other one ends."""
        if len(presence.track_ids) + len(other.track_ids) > MAX_TRACKS:
            return self._end_presences([other])
        presence.join_walk(other)
        del self._presences[other.track_id]
        return []

    def _split_walk(self, presence: Presence, at: datetime, sightings: list[Sighting]) -> Presence:
        """End a walk that somebody else goes on with, at the latest since their track took over, and begin theirs."""
        since = presence.handed_at or at
        presence.last_at = min(presence.last_at, since)
        sightings += self._end_presences([presence])
        begun, appeared = self._begin_presence(presence.track_id, since, at)
        sightings.append(appeared)
        return begun

    def _begin_presence(self, track_id: UUID, since: datetime, at: datetime) -> tuple[Presence, Sighting]:
        presence = self._presences[track_id] = Presence(track_id, since, at, track_ids=(track_id,))
        return presence, Appeared(**self._describe(presence), at=since)

    def _end_presences(self, presences: Iterable[Presence]) -> list[Sighting]:
        sightings: list[Sighting] = []
        for one in sorted(presences, key=lambda each: each.last_at):
            del self._presences[one.track_id]
            left = Left(**self._describe(one), at=one.last_at, since=one.first_at, track_ids=one.track_ids)
            sightings.append(left)
        return sightings

    def _describe(self, presence: Presence) -> dict[str, Any]:
        return {
            "collection_id": self.collection_id,
            "origin_kind": self.origin.kind,
            "origin_id": self.origin.id,
            "track_id": presence.track_id,
            "person_id": presence.person_id,
        }


def _is_attack(track: Track) -> bool:
    """Return whether a track that was judged over several frames shows a picture or a screen."""
    is_decided = track.verdict not in {None, Verdict.LOW_QUALITY}
    return is_decided and track.liveness is not None and track.liveness.reason is LivenessReason.SPOOF
