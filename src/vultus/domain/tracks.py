"""Live recognition: frames, the tracks of faces through them, and where of a picture faces count."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Self
from uuid import UUID

from vultus.domain.faces import Box, FloatArray, Liveness
from vultus.domain.policies import Candidate, Decision, Verdict
from vultus.domain.sightings import OriginKind

TRACK_REASONS = ("frames_disagree", "person_on_another_track", "track_in_doubt")
"""Why a track is ambiguous although its vectors name somebody: beside those of `VERDICT_REASONS`."""

MIN_ZONE_AREA = 1e-6
"""Of the picture's: one pixel of a megapixel."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a video.

    Attributes:
        content: A JPEG or WebP file.
        sequence: Its number in the video; a frame with a lower one is older.
        captured_at: When it was taken, aware, by the clock of the client or of the camera.
    """

    content: bytes
    sequence: int
    captured_at: datetime


@dataclass(frozen=True, slots=True)
class StreamOrigin:
    """Where frames come from: a browser's session or a camera.

    Attributes:
        id: Of the session or source.
    """

    kind: OriginKind
    id: UUID


@dataclass(frozen=True, slots=True)
class Zone:
    """A part of the picture in which faces count.

    Attributes:
        points: Corners of a polygon, x and y as shares of the picture's width and height, 0..1; at least three.
    """

    points: tuple[tuple[float, float], ...]

    @property
    def has_area(self) -> bool:
        """Whether any point can be inside: not all corners are on one line."""
        (x, y), *others = self.points
        sides = [(corner_x - x, corner_y - y) for corner_x, corner_y in others]
        longest_x, longest_y = max(sides, key=lambda side: math.hypot(*side))
        return any(abs(longest_x * side_y - longest_y * side_x) > MIN_ZONE_AREA for side_x, side_y in sides)

    def contains(self, x: float, y: float) -> bool:
        """Return whether a point, in shares of width and height, is inside (even-odd rule)."""
        inside = False
        previous_x, previous_y = self.points[-1]
        for corner_x, corner_y in self.points:
            crosses = (corner_y > y) != (previous_y > y)
            if crosses and x < (previous_x - corner_x) * (y - corner_y) / (previous_y - corner_y) + corner_x:
                inside = not inside
            previous_x, previous_y = corner_x, corner_y
        return inside


class TrackState(StrEnum):
    """How certain it is that a track is of a face that is there now."""

    TENTATIVE = "tentative"  # seen in too few frames yet
    CONFIRMED = "confirmed"
    LOST = "lost"  # not seen in the last frame; not in results


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One face through consecutive frames, as of the last of them.

    Attributes:
        box: In pixels of the upright frame.
        landmarks: (5, 2) float32, as in `DetectedFace`.
        verdict: None as long as too few frames agree.
        person: Whom the verdict names; only for a match.
        liveness: Of the median frame; None if it was not checked.
        identity_age_ms: Since the face was last embedded; None if it was not yet.
        first_seen_at: Of the first frame that showed it, by the clock of the frames.
        last_seen_at: Of the last one.
        decision: Of the verdict; None without one.
    """

    id: UUID
    box: Box
    landmarks: FloatArray
    state: TrackState
    verdict: Verdict | None
    person: Candidate | None
    liveness: Liveness | None
    identity_age_ms: float | None
    first_seen_at: datetime
    last_seen_at: datetime
    decision: Decision | None = None

    def hide_scores(self) -> Self:
        """Return the track without what depends on a cosine, but for the verdict and its band."""
        return replace(self, decision=self.decision.hide_scores() if self.decision else None)


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """What one frame shows.

    Attributes:
        sequence: Of the frame.
        width: Of the upright frame, pixels.
        height: Of the upright frame, pixels.
        tracks: Faces in the frame, left to right.
        timings_ms: Milliseconds by stage: those of the analysis, and track, search.
    """

    sequence: int
    width: int
    height: int
    tracks: tuple[Track, ...]
    timings_ms: dict[str, float]
