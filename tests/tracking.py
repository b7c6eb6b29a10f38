"""How well tracks follow the people of a drawn clip."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.clips import Clip
    from vultus.domain import Box, FrameResult

VISIBLE = 0.6
"""Share of a head that must be visible to count as missed."""

MIN_IOU = 0.3
"""Least overlap of a track with the head that it follows: detectors box the face only."""


@dataclass
class TrackingScore:
    """What went wrong in a clip (CLEAR MOT: Bernardin and Stiefelhagen 2008).

    Attributes:
        heads: Visible heads of all frames.
        misses: Of them, those without a track.
        false_tracks: Tracks of all frames that are at no head.
        switches: Times that a person's track got another id.
        wrong_names: Tracks of all frames that carry the name of somebody else.
        named_after_s: Seconds from each face's first frame to its first right name.
    """

    heads: int = 0
    misses: int = 0
    false_tracks: int = 0
    switches: int = 0
    wrong_names: int = 0
    named_after_s: dict[int, float] = field(default_factory=dict)
    _ids: dict[int, Hashable] = field(default_factory=dict)
    _first_at: dict[int, float] = field(default_factory=dict)

    def add_frame(self, clip: Clip, at: float, tracks: Sequence[tuple[Hashable, Box]]) -> dict[int, int]:
        """Count the tracks of a frame, and return the positions of those at each face."""
        everybody = clip.list_boxes(at)
        visible = clip.list_boxes(at, min_visible=VISIBLE)
        faces = list(everybody)
        overlaps = [[everybody[face].compute_iou(box) for _, box in tracks] for face in faces]
        found = {}
        if faces and tracks:
            for row, column in zip(*linear_sum_assignment(overlaps, maximize=True), strict=True):
                if overlaps[row][column] >= MIN_IOU:
                    found[faces[row]] = int(column)
        self.heads += len(visible)
        self.misses += len(visible.keys() - found.keys())
        self.false_tracks += len(tracks) - len(found)
        for face, position in found.items():
            track_id = tracks[position][0]
            self.switches += self._ids.get(face, track_id) != track_id
            self._ids[face] = track_id
        for face in visible:
            self._first_at.setdefault(face, at)
        return found

    def add_names(self, at: float, found: Mapping[int, int], names: Sequence[int | None]) -> None:
        """Count the names of a frame's tracks: the number of the face that each is said to be."""
        faces = {position: face for face, position in found.items()}
        for position, name in enumerate(names):
            if name is None:
                continue
            if faces.get(position) != name:
                self.wrong_names += 1
            elif name not in self.named_after_s:
                self.named_after_s[name] = at - self._first_at.get(name, at)


def score_tracks(clip: Clip, results: Iterable[tuple[float, FrameResult]], people: Mapping[UUID, int]) -> TrackingScore:
    """Return what went wrong in the results of a stream.

    Args:
        clip: What the frames show.
        results: Of each frame, with its seconds.
        people: Numbers of the enrolled faces by person.
    """
    score = TrackingScore()
    for at, result in results:
        found = score.add_frame(clip, at, [(track.id, track.box) for track in result.tracks])
        names = [people[track.person.person_id] if track.person else None for track in result.tracks]
        score.add_names(at, found, names)
    return score
