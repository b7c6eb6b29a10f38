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

MIN_IOU, MIN_HIDDEN_IOU = 0.3, 0.1
"""Least overlap of a track with the head that it follows, and with a hidden one: detectors box what they see."""


@dataclass
class TrackingScore:
    """What went wrong in a clip (CLEAR MOT: Bernardin and Stiefelhagen 2008).

    Attributes:
        heads: Visible heads of all frames.
        misses: Of them, those without a track.
        false_tracks: Tracks of all frames that are at no head.
        switches: Times that a person's track got another id.
        named: Tracks of all frames that carry the right name.
        wrong_names: Tracks of all frames that carry the name of somebody else.
        named_after_s: Seconds from each face's first frame to its first right name.
    """

    heads: int = 0
    misses: int = 0
    false_tracks: int = 0
    switches: int = 0
    named: int = 0
    wrong_names: int = 0
    named_after_s: dict[int, float] = field(default_factory=dict)
    _ids: dict[int, Hashable] = field(default_factory=dict)
    _first_at: dict[int, float] = field(default_factory=dict)

    def add_frame(
        self, clip: Clip, at: float, tracks: Sequence[tuple[Hashable, Box]], names: Sequence[int | None] = ()
    ) -> None:
        """Count the tracks of a frame: their ids and boxes, and whose face each is said to be."""
        visible = clip.list_boxes(at, min_visible=VISIBLE)
        everybody = clip.list_boxes(at)
        hidden = {face: box for face, box in everybody.items() if face not in visible}
        found = match_boxes(visible, dict(enumerate(box for _, box in tracks)), MIN_IOU)
        left = {position: box for position, (_, box) in enumerate(tracks) if position not in found.values()}
        self.heads += len(visible)
        self.misses += len(visible.keys() - found.keys())
        self.false_tracks += len(left) - len(match_boxes(hidden, left, MIN_HIDDEN_IOU))
        for face in visible:
            self._first_at.setdefault(face, at)
        for face, position in found.items():
            track_id = tracks[position][0]
            self.switches += self._ids.get(face, track_id) != track_id
            self._ids[face] = track_id
        faces = {position: face for face, position in found.items()}
        for position, name in enumerate(names):
            if name is None:
                continue
            x, y = tracks[position][1].centre
            head = everybody.get(name)
            is_there = head is not None and head.left <= x <= head.right and head.top <= y <= head.bottom
            if faces.get(position, name) != name or not is_there:
                self.wrong_names += 1
                continue
            self.named += 1
            self.named_after_s.setdefault(name, at - self._first_at.get(name, at))


def match_boxes(heads: Mapping[int, Box], boxes: Mapping[int, Box], min_iou: float) -> dict[int, int]:
    """Return the position of the box that is at each head, each box once, so that they overlap most."""
    if not heads or not boxes:
        return {}
    faces, positions = list(heads), list(boxes)
    overlaps = [[heads[face].compute_iou(boxes[position]) for position in positions] for face in faces]
    pairs = zip(*linear_sum_assignment(overlaps, maximize=True), strict=True)
    return {faces[row]: positions[column] for row, column in pairs if overlaps[row][column] >= min_iou}


def score_tracks(clip: Clip, results: Iterable[tuple[float, FrameResult]], people: Mapping[UUID, int]) -> TrackingScore:
    """Return what went wrong in the results of a stream.

    Args:
        clip: What the frames show.
        results: Of each frame, with its seconds.
        people: Numbers of the enrolled faces by person.
    """
    score = TrackingScore()
    for at, result in results:
        names = [people[track.person.person_id] if track.person else None for track in result.tracks]
        score.add_frame(clip, at, [(track.id, track.box) for track in result.tracks], names)
    return score
