"""Who was seen when: the tracks of a video, each a visit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import Box, Candidate, TrackState, Verdict

if TYPE_CHECKING:
    from vultus.domain import Frame, FrameResult, Track


@dataclass(slots=True, eq=False)
class Visit:
    """One face, for as long as it was in view.

    Attributes:
        track_id: Of the track.
        first_seen_at: First frame.
        last_seen_at: Last frame so far.
        verdict: The best known: a match, else the last one; None if there were too few frames for any.
        person: Whom the verdict names; the one of the most frames, should it change.
        frames: Frames that showed the face.
        picture: JPEG of the frame that shows the face largest; empty if none is kept.
        box: Of the face in that picture.
    """

    track_id: UUID
    first_seen_at: datetime
    last_seen_at: datetime
    verdict: Verdict | None = None
    person: Candidate | None = None
    frames: int = 0
    picture: bytes = b""
    box: Box | None = None


class VisitRecorder:
    """Collects the visits of a video from what its frames show.

    Attributes:
        visits: All of them, in the order they began.

    Args:
        keeps_pictures: Whether each visit keeps the frame that shows its face largest.
    """

    def __init__(self, *, keeps_pictures: bool = False) -> None:
        self.visits: dict[UUID, Visit] = {}
        self._keeps_pictures = keeps_pictures
        self._frames_by_person: dict[tuple[UUID, UUID], int] = {}

    def record_frame(self, frame: Frame, result: FrameResult) -> None:
        """Take note of a frame."""
        for track in result.tracks:
            if track.state is TrackState.TENTATIVE:
                continue
            visit = self.visits.setdefault(track.id, Visit(track.id, track.first_seen_at, track.last_seen_at))
            visit.last_seen_at = track.last_seen_at
            visit.frames += 1
            if self._keeps_pictures and (visit.box is None or track.box.width > visit.box.width):
                visit.picture, visit.box = frame.content, track.box
            self._settle_verdict(visit, track)

    def find_person(self, track_id: UUID) -> Candidate | None:
        """Return whom a visit shows, if that is known."""
        visit = self.visits.get(track_id)
        return visit.person if visit else None

    def forget_visit(self, track_id: UUID) -> None:
        """Forget a visit that is over."""
        self.visits.pop(track_id, None)
        self._frames_by_person = {key: count for key, count in self._frames_by_person.items() if key[0] != track_id}

    def _settle_verdict(self, visit: Visit, track: Track) -> None:
        if track.verdict is Verdict.MATCH and track.person is not None:
            key = (visit.track_id, track.person.person_id)
            count = self._frames_by_person[key] = self._frames_by_person.get(key, 0) + 1
            known = self._frames_by_person[visit.track_id, visit.person.person_id] if visit.person else 0
            if count >= known:
                visit.verdict, visit.person = Verdict.MATCH, track.person
        elif visit.person is None and track.verdict is not None:
            visit.verdict = track.verdict
