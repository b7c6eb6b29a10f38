"""Association of the faces of a frame with the tracks of the frames before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import numpy as np
from scipy.optimize import linear_sum_assignment

from vultus.domain import Box, FloatArray, TrackState
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


FORBIDDEN = 1.5
"""Cost of a pair that must not be assigned, and of leaving a face without a track: allowed pairs cost less.

Were it much more, one face that fits no track would push all others to tracks that fit them worse.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A face that a detector found in a frame.

    Attributes:
        box: In pixels.
        score: The detector's confidence, 0..1.
        vector: (d,) unit vector, if the face was embedded and is good enough to be compared; else None.
    """

    box: Box
    score: float
    vector: FloatArray | None = None


@dataclass(slots=True, eq=False)
class Trajectory:
    """The way of one face so far.

    Attributes:
        box: Where it was seen last.
        velocity: Of the box's centre, x and y in pixels per second, smoothed.
        state: Lost if it was not seen in the last frame.
        first_at: When it was first seen, seconds of the frames' clock.
        last_at: When it was last seen.
        frames: In which it was seen.
        is_doubted: Whether another face may have taken its place since its face was last recognised as its own.
        reference: (d,) unit vector that faces of the track resemble; None as long as there is none.
    """

    box: Box
    first_at: float
    last_at: float
    id: UUID = field(default_factory=new_id)
    velocity: tuple[float, float] = (0.0, 0.0)
    state: TrackState = TrackState.TENTATIVE
    frames: int = 0
    is_doubted: bool = False
    reference: FloatArray | None = None

    def predict_box(self, at: float) -> Box:
        """Return where the face is at a time if it goes on as before; its size stays."""
        seconds = min(at - self.last_at, MAX_COAST_S)
        x, y = self.velocity[0] * seconds, self.velocity[1] * seconds
        return Box(self.box.left + x, self.box.top + y, self.box.right + x, self.box.bottom + y)

    def is_followed(self, at: float) -> bool:
        """Return whether the face was seen so recently that no other one can have taken its place unseen."""
        return at - self.last_at <= (MAX_CERTAIN_GAP_S if self.state is TrackState.LOST else MAX_COAST_S)

    def renew(self) -> None:
        """Go on as another track, of which nothing is known."""
        self.id, self.reference, self.is_doubted, self.frames = new_id(), None, False, 1


MAX_COAST_S = 1.0
"""For how long a lost face is expected to go on as before; later only its vector tells that it is back."""

MAX_CERTAIN_GAP_S = 0.35
"""For how long frames may show a face no more without another one having taken its place: a find or three missed."""

MAX_TENTATIVE_GAP_S = 0.5
"""For how long a face that was seen in too few frames may be missing."""

MAX_KEPT = 256
"""Trajectories that are kept, those seen last: a policy may let people come back after a day, and many pass in one."""

VELOCITY_WEIGHT = 0.5
"""Weight of the newest step in the smoothed velocity."""

REACH = 0.3
"""By which share of its sides a box is widened at every edge: small fast faces do not overlap their last box."""

MIN_LOW_SCORE_IOU = 0.3
"""Least overlap of a face of low score with the place where a track expects it."""

UNSEEN_COST = 0.45
"""Cost of a face that was not embedded, or resembles a track no more than its gate asks."""

CONTACT_SHARE = 0.05
"""Share of the smaller of two boxes that the other overlaps, from which one face hides a part of the other."""

MIN_CERTAIN_IOU = 0.5
"""Overlap with the place where a track expects its face below which the face may be another one."""

CLEAR_LEAD = 0.3
"""Overlap by which an association must be better than another one, to be certain without a look at the faces."""


@dataclass(frozen=True, slots=True)
class TrackerRules:
    """Limits of an `IouTracker`.

    Attributes:
        min_new_score: Detector's score, 0..1, of a face that begins a track; others only continue one.
        gate: Cosine below which a face is not of a track.
        same_person: Cosine from which a face is of a track, wherever it appears.
        margin: Cosine by which a face must resemble a track more than another one, to be clearly its own.
        confirm_frames: Frames after which a track is confirmed.
        max_lost_s: For how long a lost track is kept.
    """

    min_new_score: float
    gate: float
    same_person: float
    margin: float
    confirm_frames: int
    max_lost_s: float


class Tracker(Protocol):
    """Follows faces from frame to frame.

    Attributes:
        rules: Limits, from the next update on.
    """

    rules: TrackerRules

    @property
    def trajectories(self) -> Sequence[Trajectory]:
        """All that are followed, lost ones too."""
        ...

    def update(self, detections: Sequence[Detection], at: float) -> list[Trajectory | None]:
        """Return the trajectory of each face of a frame, in their order; None for one too doubtful to begin one.

        Args:
            detections: The faces of the frame.
            at: When it was taken, in seconds; never before the last one.
        """
        ...

    @property
    def merged(self) -> Mapping[UUID, UUID]:
        """Trajectories that the last update found to be of a face with another one, by id, and the id of that one."""
        ...

    def drop(self, trajectory: Trajectory) -> None:
        """Follow a trajectory no longer; do nothing if it is not followed."""
        ...


class IouTracker:
    """Associates by overlap in two stages, certain faces first (ByteTrack; Zhang 2022), gated by cosine.

    Faces that fit no track by their place are compared with the lost ones by their vectors.
    """

    def __init__(self, rules: TrackerRules) -> None:
        self.rules = rules
        self.merged: dict[UUID, UUID] = {}
        self._trajectories: list[Trajectory] = []

    @property
    def trajectories(self) -> Sequence[Trajectory]:
        """All that are followed, lost ones too."""
        return self._trajectories

    def drop(self, trajectory: Trajectory) -> None:
        """Follow a trajectory no longer."""
        self._trajectories = [one for one in self._trajectories if one is not trajectory]

    def update(self, detections: Sequence[Detection], at: float) -> list[Trajectory | None]:
        """Return the trajectory of each face of a frame, as `Tracker.update`."""
        everybody = [one for one in self._trajectories if self._is_kept(one, at)]
        if len(everybody) > MAX_KEPT:
            everybody = sorted(everybody, key=lambda one: one.last_at)[-MAX_KEPT:]
        self._trajectories = everybody
        overlaps = compute_overlaps([one.box for one in detections], [one.predict_box(at) for one in everybody])
        overlaps[:, [at - one.last_at > MAX_COAST_S for one in everybody]] = 0
        certain = [row for row, one in enumerate(detections) if one.score >= self.rules.min_new_score]
        doubtful = [row for row, one in enumerate(detections) if one.score < self.rules.min_new_score]
        found: dict[int, Trajectory] = {}
        for rows, costs in (
            (certain, self._compute_place_costs(detections, at)),
            (doubtful, np.where(overlaps < MIN_LOW_SCORE_IOU, FORBIDDEN, 1 - overlaps)),
            (certain, self._compute_face_costs(detections)),
        ):
            free = [column for column, one in enumerate(everybody) if one not in found.values()]
            rows = [row for row in rows if row not in found]
            for row, column in solve_assignment(costs[np.ix_(rows, free)]):
                found[rows[row]] = everybody[free[column]]
        self._mark_doubts(detections, found, overlaps, at)
        self.merged = self._merge_duplicates(detections, found, overlaps)
        for row in certain:
            if row not in found:
                found[row] = Trajectory(detections[row].box, at, at)
                self._trajectories.append(found[row])
        self._move(detections, found, at)
        return [found.get(row) for row in range(len(detections))]

    def _mark_doubts(
        self, detections: Sequence[Detection], found: dict[int, Trajectory], overlaps: NDArray[np.float64], at: float
    ) -> None:
        """Doubt the trajectories whose face may be another's by its place, unless its vector says that it is theirs.

        Args:
            detections: The faces of the frame.
            found: Their trajectories, by position.
            overlaps: (detections, trajectories) of the faces with the places where they are expected.
            at: When the frame was taken.
        """
        columns = {one.id: column for column, one in enumerate(self._trajectories)}
        pairs = [(row, columns[one.id]) for row, one in found.items()]
        uncertain = find_uncertain_pairs(overlaps, pairs)
        cosines = compute_cosines(detections, self._trajectories)
        claims = cosines >= self.rules.same_person
        claims[[row for row, _ in pairs], [column for _, column in pairs]] = False
        # Of those that another face is recognised as than the one that they were given.
        claimed = set(np.flatnonzero(claims.any(axis=0)).tolist())
        for (row, column), is_uncertain in zip(pairs, uncertain, strict=True):
            one = found[row]
            one.is_doubted |= is_uncertain or column in claimed or not one.is_followed(at)
            if detections[row].vector is None:
                continue
            others = np.delete(cosines[row], column)
            is_own = cosines[row, column] >= self.rules.same_person and not (others >= cosines[row, column]).any()
            if is_own or one.reference is None:
                one.is_doubted = False

    def _is_kept(self, trajectory: Trajectory, at: float) -> bool:
        is_flicker = trajectory.frames < self.rules.confirm_frames and trajectory.state is TrackState.LOST
        return at - trajectory.last_at <= (MAX_TENTATIVE_GAP_S if is_flicker else self.rules.max_lost_s)

    def _move(self, detections: Sequence[Detection], found: dict[int, Trajectory], at: float) -> None:
        """Move the trajectories to the faces found; the others are lost."""
        seen = {one.id: detections[index] for index, one in found.items()}
        for one in self._trajectories:
            if (detection := seen.get(one.id)) is None:
                one.state = TrackState.LOST
                continue
            seconds = at - one.last_at
            if seconds > 0:
                steps = [new - old for new, old in zip(detection.box.centre, one.box.centre, strict=True)]
                x, y = (
                    VELOCITY_WEIGHT * step / seconds + (1 - VELOCITY_WEIGHT) * old
                    for step, old in zip(steps, one.velocity, strict=True)
                )
                one.velocity = (x, y) if seconds <= MAX_COAST_S else (0.0, 0.0)
            one.frames += 1
            one.box, one.last_at = detection.box, at
            is_confirmed = one.frames >= self.rules.confirm_frames
            one.state = TrackState.CONFIRMED if is_confirmed else TrackState.TENTATIVE

    def _merge_duplicates(
        self, detections: Sequence[Detection], found: dict[int, Trajectory], overlaps: NDArray[np.float64]
    ) -> dict[UUID, UUID]:
        """Drop trajectories that stood in for lost ones, whose faces are recognised now; return the ids of both.

        Such a one begins while a face cannot be recognised, and would contend for it from now on.
        """
        merged = {}
        for row, one in found.items():
            if one.state is not TrackState.LOST or one.is_doubted or detections[row].vector is None:
                continue
            for column, other in enumerate(self._trajectories):
                is_here = other not in found.values() and overlaps[row, column] >= MIN_CERTAIN_IOU
                if is_here and other.first_at > one.last_at:
                    merged[other.id] = one.id
        self._trajectories = [one for one in self._trajectories if one.id not in merged]
        return merged

    def _compute_place_costs(self, detections: Sequence[Detection], at: float) -> NDArray[np.float64]:
        """Return (detections, trajectories) costs: little overlap and little likeness cost, the rest is forbidden."""
        places = [one.predict_box(at) for one in self._trajectories]
        overlaps = compute_overlaps([one.box for one in detections], places, reach=REACH)
        cosines = compute_cosines(detections, self._trajectories)
        likeness = np.clip((cosines - self.rules.gate) / max(1e-6, 1 - self.rules.gate), 0, 1)
        costs = 1 - overlaps + np.where(np.isnan(cosines), UNSEEN_COST, UNSEEN_COST * (1 - likeness))
        is_away = [at - one.last_at > MAX_COAST_S for one in self._trajectories]
        costs[:, is_away] = FORBIDDEN
        # A face that is clearly another track's is not this one's, wherever it is.
        best = np.where(np.isnan(cosines), -1, cosines).max(axis=1, initial=-1, keepdims=True)
        is_others = (best >= self.rules.same_person) & (cosines < best - self.rules.margin)
        return np.where((overlaps <= 0) | (cosines < self.rules.gate) | is_others, FORBIDDEN, costs)

    def _compute_face_costs(self, detections: Sequence[Detection]) -> NDArray[np.float64]:
        """Return (detections, trajectories) costs by likeness alone."""
        cosines = compute_cosines(detections, self._trajectories)
        return np.where(cosines >= self.rules.same_person, 1 - cosines, FORBIDDEN)


def find_uncertain_pairs(overlaps: NDArray[np.float64], pairs: Sequence[tuple[int, int]]) -> list[bool]:
    """Return for each associated pair whether another association would be nearly as good by place.

    Args:
        overlaps: (faces, tracks).
        pairs: Row and column of each face with its track.
    """
    rows, columns = [row for row, _ in pairs], [column for _, column in pairs]
    own = overlaps[rows, columns]
    given = overlaps[np.ix_(rows, columns)]
    lead = own[:, None] + own[None] - given - given.T  # over exchanging two tracks
    np.fill_diagonal(lead, np.inf)
    other_track = np.delete(overlaps[rows], columns, axis=1).max(axis=1, initial=0)
    other_face = np.delete(overlaps[:, columns], rows, axis=0).max(axis=0, initial=0)
    uncertain = (
        (own < MIN_CERTAIN_IOU)
        | (lead.min(axis=1, initial=np.inf) < CLEAR_LEAD)
        | (np.maximum(other_track, other_face) > own - CLEAR_LEAD)
    )
    return [bool(one) for one in uncertain]


def solve_assignment(costs: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return the rows and columns of the cheapest assignment, without forbidden pairs (Crouse 2016, in SciPy)."""
    if not costs.size:
        return []
    rows, columns = linear_sum_assignment(costs)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column) for row, column in pairs if costs[row, column] < FORBIDDEN]


def compute_overlaps(first: Sequence[Box], second: Sequence[Box], *, reach: float = 0.0) -> NDArray[np.float64]:
    """Return the (first, second) intersections over union of boxes that are widened by a share of their sides."""
    one, other = _widen_boxes(first, reach), _widen_boxes(second, reach)
    shared = _compute_shared_areas(one, other)
    areas = _compute_areas(one)[:, None] + _compute_areas(other)[None]
    overlaps: NDArray[np.float64] = shared / np.maximum(1e-9, areas - shared)
    return overlaps


def _compute_shared_areas(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = np.minimum(first[:, None, 2:], second[None, :, 2:]) - np.maximum(first[:, None, :2], second[None, :, :2])
    areas: NDArray[np.float64] = np.clip(sides, 0, None).prod(axis=2)
    return areas


def _compute_areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    return areas


def _widen_boxes(boxes: Sequence[Box], reach: float) -> NDArray[np.float64]:
    corners = np.array([(one.left, one.top, one.right, one.bottom) for one in boxes], np.float64).reshape(-1, 4)
    margin = reach * (corners[:, 2:] - corners[:, :2])
    return np.concatenate([corners[:, :2] - margin, corners[:, 2:] + margin], axis=1)


def compute_cosines(detections: Sequence[Detection], tracks: Sequence[Trajectory]) -> NDArray[np.float64]:
    """Return the (detections, tracks) cosines; NaN where either has no vector."""
    cosines = np.full((len(detections), len(tracks)), np.nan)
    for row, detection in enumerate(detections):
        for column, track in enumerate(tracks):
            if detection.vector is not None and track.reference is not None:
                cosines[row, column] = float(detection.vector @ track.reference)
    return cosines


def find_contacts(boxes: Sequence[Box]) -> set[int]:
    """Return the positions of boxes of which one hides a part of the other's face, or is about to."""
    if len(boxes) < 2:
        return set()
    corners = _widen_boxes(boxes, 0.0)
    shared, areas = _compute_shared_areas(corners, corners), _compute_areas(corners)
    np.fill_diagonal(shared, 0)
    hidden = shared / np.maximum(1e-9, np.minimum(areas[:, None], areas[None]))
    return set(np.flatnonzero(hidden.max(axis=1, initial=0) > CONTACT_SHARE).tolist())
