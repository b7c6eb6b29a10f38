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
    from collections.abc import Sequence

    from numpy.typing import NDArray


FORBIDDEN = 1e6
"""Cost of a pair that must not be assigned; any sum of allowed costs is less."""


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
        was_certain: Whether the last association was beyond doubt: no other face and no other track competed.
        reference: (d,) unit vector that faces of the track resemble; None as long as there is none.
    """

    box: Box
    first_at: float
    last_at: float
    id: UUID = field(default_factory=new_id)
    velocity: tuple[float, float] = (0.0, 0.0)
    state: TrackState = TrackState.TENTATIVE
    frames: int = 1
    was_certain: bool = True
    reference: FloatArray | None = None

    def predict_box(self, at: float) -> Box:
        """Return where the face is at a time if it goes on as before; its size stays."""
        seconds = min(at - self.last_at, MAX_COAST_S)
        x, y = self.velocity[0] * seconds, self.velocity[1] * seconds
        return Box(self.box.left + x, self.box.top + y, self.box.right + x, self.box.bottom + y)


class Tracker(Protocol):
    """Follows faces from frame to frame."""

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

    def drop(self, trajectory: Trajectory) -> None:
        """Follow a trajectory no longer."""
        ...


MAX_COAST_S = 1.0
"""For how long a lost face is expected to go on as before; later only its vector tells that it is back."""

MAX_TENTATIVE_GAP_S = 0.5
"""For how long a face that was seen in too few frames may be missing."""

VELOCITY_WEIGHT = 0.5
"""Weight of the newest step in the smoothed velocity."""

REACH = 0.3
"""By which share of its sides a box is widened at every edge: small fast faces do not overlap their last box."""

MIN_LOW_SCORE_IOU = 0.3
"""Least overlap of a face of low score with the place where a track expects it."""

CONTACT_IOU = 0.05
"""Overlap of two boxes from which either face may be taken for the other."""


@dataclass(frozen=True, slots=True)
class TrackerRules:
    """Limits of an `IouTracker`.

    Attributes:
        min_new_score: Detector's score, 0..1, of a face that begins a track; others only continue one.
        gate: Cosine below which a face is not of a track.
        same_person: Cosine from which a face is of a lost track, wherever it appears.
        confirm_frames: Frames after which a track is confirmed.
        max_lost_s: For how long a lost track is kept.
    """

    min_new_score: float
    gate: float
    same_person: float
    confirm_frames: int
    max_lost_s: float


class IouTracker:
    """Associates by overlap in two stages, certain faces first (ByteTrack; Zhang 2022), gated by cosine.

    Faces that fit no track by their place are compared with the lost ones by their vectors.
    """

    def __init__(self, rules: TrackerRules) -> None:
        self.rules = rules
        self._trajectories: list[Trajectory] = []

    @property
    def trajectories(self) -> Sequence[Trajectory]:
        """All that are followed, lost ones too."""
        return self._trajectories

    def drop(self, trajectory: Trajectory) -> None:
        """Follow a trajectory no longer."""
        self._trajectories.remove(trajectory)

    def update(self, detections: Sequence[Detection], at: float) -> list[Trajectory | None]:
        """Return the trajectory of each face of a frame, as `Tracker.update`."""
        self._trajectories = [one for one in self._trajectories if self._is_kept(one, at)]
        near = [one for one in self._trajectories if at - one.last_at <= MAX_COAST_S]
        boxes = {one.id: one.predict_box(at) for one in near}
        certain = [index for index, one in enumerate(detections) if one.score >= self.rules.min_new_score]
        doubtful = [index for index, one in enumerate(detections) if one.score < self.rules.min_new_score]
        found: dict[int, Trajectory] = {}

        def assign(indexes: list[int], among: list[Trajectory], costs: NDArray[np.float64]) -> None:
            for row, column in solve_assignment(costs):
                found[indexes[row]] = among[column]

        assign(certain, near, self._compute_place_costs([detections[i] for i in certain], near, boxes))
        left = [one for one in near if one not in found.values()]
        assign(doubtful, left, self._compute_overlap_costs([detections[i] for i in doubtful], left, boxes))
        lost = [one for one in self._trajectories if one not in found.values()]
        new = [index for index in certain if index not in found]
        assign(new, lost, self._compute_face_costs([detections[i] for i in new], lost))
        for index in certain:
            if index not in found:
                found[index] = Trajectory(detections[index].box, at, at)
                self._trajectories.append(found[index])
        self._move(detections, found, at)
        return [found.get(index) for index in range(len(detections))]

    def _is_kept(self, trajectory: Trajectory, at: float) -> bool:
        is_tentative = trajectory.frames < self.rules.confirm_frames
        return at - trajectory.last_at <= (MAX_TENTATIVE_GAP_S if is_tentative else self.rules.max_lost_s)

    def _move(self, detections: Sequence[Detection], found: dict[int, Trajectory], at: float) -> None:
        """Move the trajectories to the faces found; the others are lost."""
        seen = {one.id: detections[index] for index, one in found.items()}
        contested = find_contacts([one.box for one in seen.values()])
        in_contact = {track_id for index, track_id in enumerate(seen) if index in contested}
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
            one.was_certain = one.id not in in_contact
            is_confirmed = one.frames >= self.rules.confirm_frames
            one.state = TrackState.CONFIRMED if is_confirmed else TrackState.TENTATIVE

    def _compute_place_costs(
        self, detections: Sequence[Detection], tracks: Sequence[Trajectory], boxes: dict[UUID, Box]
    ) -> NDArray[np.float64]:
        """Return (detections, tracks) costs: little overlap and little likeness cost, what cannot be is forbidden."""
        overlaps = compute_overlaps([one.box for one in detections], [boxes[one.id] for one in tracks], reach=REACH)
        cosines = compute_cosines(detections, tracks)
        likeness = np.clip((cosines - self.rules.gate) / max(1e-6, 1 - self.rules.gate), 0, 1)
        costs = 1 - overlaps + np.where(np.isnan(cosines), 0.5, 1 - likeness)
        return np.where((overlaps <= 0) | (cosines < self.rules.gate), FORBIDDEN, costs)

    def _compute_overlap_costs(
        self, detections: Sequence[Detection], tracks: Sequence[Trajectory], boxes: dict[UUID, Box]
    ) -> NDArray[np.float64]:
        overlaps = compute_overlaps([one.box for one in detections], [boxes[one.id] for one in tracks])
        return np.where(overlaps < MIN_LOW_SCORE_IOU, FORBIDDEN, 1 - overlaps)

    def _compute_face_costs(self, detections: Sequence[Detection], tracks: Sequence[Trajectory]) -> NDArray[np.float64]:
        cosines = compute_cosines(detections, tracks)
        return np.where(cosines >= self.rules.same_person, 1 - cosines, FORBIDDEN)


def solve_assignment(costs: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return the rows and columns of the cheapest assignment, without forbidden pairs (Crouse 2016, in SciPy)."""
    if not costs.size:
        return []
    rows, columns = linear_sum_assignment(costs)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column) for row, column in pairs if costs[row, column] < FORBIDDEN]


def compute_overlaps(first: Sequence[Box], second: Sequence[Box], *, reach: float = 0.0) -> NDArray[np.float64]:
    """Return the (first, second) intersections over union of boxes that are widened by a share of their sides."""
    left, top, right, bottom = _widen_boxes(first, reach)[:, None].transpose(2, 0, 1)
    other_left, other_top, other_right, other_bottom = _widen_boxes(second, reach)[None].transpose(2, 0, 1)
    width = np.clip(np.minimum(right, other_right) - np.maximum(left, other_left), 0, None)
    height = np.clip(np.minimum(bottom, other_bottom) - np.maximum(top, other_top), 0, None)
    shared = width * height
    areas = (right - left) * (bottom - top) + (other_right - other_left) * (other_bottom - other_top)
    overlaps: NDArray[np.float64] = np.divide(shared, areas - shared, out=np.zeros_like(shared), where=shared > 0)
    return overlaps


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
    """Return the positions of boxes that overlap another one, so that their faces may be taken for each other."""
    overlaps = compute_overlaps(boxes, boxes)
    np.fill_diagonal(overlaps, 0)
    return set(np.flatnonzero(overlaps.max(axis=1, initial=0) > CONTACT_IOU).tolist())
