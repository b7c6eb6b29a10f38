"""Who was seen when: the walks of a video, with names and pictures that sightings do not have."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from vultus.domain import Box, Candidate, TrackState, Verdict

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.domain import Frame, FrameResult
    from vultus.domain.sightings import Left

MAX_TRACKS = 1000
"""Tracks remembered; the oldest are forgotten."""


@dataclass(slots=True, eq=False)
class Visit:
    """Somebody, from when they appeared until they left, over however many tracks.

    Attributes:
        first_seen_at: First frame.
        last_seen_at: Last frame.
        verdict: Of the tracks: a match where the visit has a person; None if there were too few frames for any.
        person: Who it was; None if that is not known.
        picture: JPEG of the frame that shows the face largest, or what a report leaves of it; empty if none is kept.
        box: Of the face in that frame; None once it is cropped.
    """

    first_seen_at: datetime
    last_seen_at: datetime
    verdict: Verdict | None = None
    person: Candidate | None = None
    picture: bytes = b""
    box: Box | None = None


@dataclass(slots=True, eq=False)
class _SeenTrack:
    verdict: Verdict | None = None
    picture: bytes = b""
    box: Box | None = None


class VisitRecorder:
    """Puts names and pictures of the tracks in a video's frames to its sightings.

    Args:
        keeps_pictures: Whether each visit keeps the frame that shows its face largest.
    """

    def __init__(self, *, keeps_pictures: bool = False) -> None:
        self._keeps_pictures = keeps_pictures
        self._tracks: dict[UUID, _SeenTrack] = {}
        self._persons: dict[UUID, Candidate] = {}

    def record_frame(self, frame: Frame, result: FrameResult) -> None:
        """Take note of a frame."""
        for track in result.tracks:
            if track.state is TrackState.TENTATIVE:
                continue
            seen = self._tracks.setdefault(track.id, _SeenTrack())
            if self._keeps_pictures and (seen.box is None or track.box.width > seen.box.width):
                seen.picture, seen.box = frame.content, track.box
            if track.verdict is Verdict.MATCH and track.person is not None:
                self._persons[track.person.person_id] = track.person
            seen.verdict = track.verdict or seen.verdict
        while len(self._tracks) > MAX_TRACKS:
            del self._tracks[next(iter(self._tracks))]

    def find_person(self, person_id: UUID | None) -> Candidate | None:
        """Return a person that was named in the video."""
        return self._persons.get(person_id) if person_id else None

    def take_visit(self, left: Left) -> Visit:
        """Return the visit that is over, and forget its tracks."""
        visit = Visit(left.since, left.at, person=self.find_person(left.person_id))
        for track_id in dict.fromkeys((*left.track_ids, left.track_id)):
            if (seen := self._tracks.pop(track_id, None)) is None:
                continue
            visit.verdict = seen.verdict or visit.verdict
            if seen.box is not None and (visit.box is None or seen.box.width > visit.box.width):
                visit.picture, visit.box = seen.picture, seen.box
        if visit.person is not None:
            visit.verdict = Verdict.MATCH
        return visit
