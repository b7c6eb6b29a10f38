"""Association: no face twice, no order of faces that matters, nothing beyond its gates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vultus.domain import Box, FloatArray, TrackState
from vultus.services.live.tracker import (
    FORBIDDEN,
    MAX_KEPT,
    Detection,
    IouTracker,
    TrackerRules,
    compute_overlaps,
    find_uncertain_pairs,
    solve_assignment,
)

RULES = TrackerRules(min_new_score=0.7, gate=0.5, same_person=0.8, margin=0.05, confirm_frames=2, max_lost_s=3)

positions = st.integers(0, 500)
boxes = st.builds(lambda x, y, side: Box(x, y, x + side, y + side), positions, positions, st.integers(20, 120))
vectors = st.integers(0, 7).map(lambda axis: np.eye(8, dtype=np.float32)[axis])
detections = st.builds(Detection, boxes, st.sampled_from([0.6, 0.9]), st.none() | vectors)
frames = st.lists(st.lists(detections, max_size=6), min_size=1, max_size=6)


def play(tracker: IouTracker, faces: list[list[Detection]]) -> None:
    """Follow the faces of frames 0.1 s apart; the first vector of a track is its reference."""
    for number, frame in enumerate(faces):
        for face, found in zip(frame, tracker.update(frame, number / 10), strict=True):
            if found is not None and found.reference is None:
                found.reference = face.vector


@given(frames, st.lists(detections, max_size=6))
def test_no_track_is_given_to_two_faces_and_every_certain_face_has_one(
    before: list[list[Detection]], frame: list[Detection]
) -> None:
    tracker = IouTracker(RULES)
    play(tracker, before)
    found = tracker.update(frame, len(before) / 10)

    ids = [one.id for one in found if one is not None]
    assert len(set(ids)) == len(ids)
    assert all(one is not None for one, face in zip(found, frame, strict=True) if face.score >= RULES.min_new_score)


@given(frames, st.lists(detections, max_size=6))
def test_a_face_unlike_a_track_is_never_given_to_it(before: list[list[Detection]], frame: list[Detection]) -> None:
    tracker = IouTracker(RULES)
    play(tracker, before)
    references = {one.id: one.reference for one in tracker.trajectories}

    for face, found in zip(frame, tracker.update(frame, len(before) / 10), strict=True):
        reference = references.get(found.id) if found is not None else None
        if reference is not None and face.vector is not None and face.score >= RULES.min_new_score:
            assert float(face.vector @ reference) >= RULES.gate


@given(st.lists(boxes, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_faces_does_not_matter(places: list[Box], chance: object) -> None:
    """But for ties, which boxes of different sizes at different places hardly have."""
    first, second = IouTracker(RULES), IouTracker(RULES)
    faces = [Detection(box, 0.9, np.eye(8, dtype=np.float32)[at]) for at, box in enumerate(places)]
    play(first, [faces])
    play(second, [faces])
    shuffled = list(range(len(faces)))
    chance.shuffle(shuffled)  # type: ignore[attr-defined]

    straight = first.update(faces, 0.1)
    mixed = second.update([faces[at] for at in shuffled], 0.1)

    order = {one.id: at for at, one in enumerate(first.trajectories)}
    other = {one.id: at for at, one in enumerate(second.trajectories)}
    assert [order[straight[at].id] for at in shuffled] == [other[one.id] for one in mixed if one]  # type: ignore[union-attr]


@given(st.lists(boxes, max_size=5), st.lists(boxes, max_size=5))
def test_overlaps_are_those_of_the_boxes(first: list[Box], second: list[Box]) -> None:
    expected = np.array([[one.compute_iou(other) for other in second] for one in first])

    np.testing.assert_allclose(compute_overlaps(first, second), expected.reshape(len(first), len(second)), atol=1e-12)


@given(st.lists(st.lists(st.sampled_from([0.1, 0.5, 0.9, FORBIDDEN]), min_size=3, max_size=3), max_size=5))
def test_the_assignment_uses_no_row_or_column_twice_and_nothing_forbidden(costs: list[list[float]]) -> None:
    matrix = np.array(costs).reshape(-1, 3)
    pairs = solve_assignment(matrix)

    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert all(matrix[pair] < FORBIDDEN for pair in pairs)


def test_a_face_far_from_others_is_certain_and_one_beside_a_hidden_one_is_not() -> None:
    overlaps = np.array([[0.9, 0.0, 0.0], [0.0, 0.8, 0.7]])

    assert find_uncertain_pairs(overlaps, [(0, 0), (1, 1)]) == [False, True]


def test_a_track_is_confirmed_by_the_second_frame_and_a_face_of_one_frame_never_is() -> None:
    tracker = IouTracker(RULES)
    staying, false = Detection(Box(0, 0, 50, 50), 0.9), Detection(Box(400, 400, 450, 450), 0.9)
    tracker.update([staying, false], 0.0)
    track, flicker = tracker.trajectories
    assert [track.state, flicker.state] == [TrackState.TENTATIVE] * 2

    tracker.update([staying], 0.1)
    assert [track.state, flicker.state] == [TrackState.CONFIRMED, TrackState.LOST]
    tracker.update([staying], 0.6)
    assert tracker.trajectories == [track], "one that was seen once is soon forgotten"


def test_who_returns_elsewhere_is_the_same_track_by_face_alone() -> None:
    ada, bob = np.eye(8, dtype=np.float32)[:2]
    tracker = IouTracker(RULES)
    play(tracker, [[Detection(Box(0, 0, 50, 50), 0.9, ada)]] * 3)
    (track,) = tracker.trajectories

    assert tracker.update([], 1.0) == []
    (stranger,) = tracker.update([Detection(Box(400, 400, 450, 450), 0.9, bob)], 1.5)
    (back,) = tracker.update([Detection(Box(300, 0, 350, 50), 0.9, ada)], 2.0)

    assert stranger is not track
    assert back is track


def test_two_who_change_places_while_hidden_are_doubted_until_their_faces_are_seen() -> None:
    ada, bob = np.eye(8, dtype=np.float32)[:2]
    tracker = IouTracker(RULES)
    left, right, middle = Box(0, 0, 100, 100), Box(200, 0, 300, 100), Box(100, 0, 200, 100)

    def see(*faces: tuple[Box, FloatArray | None], at: float) -> list[bool]:
        found = tracker.update([Detection(box, 0.9, vector) for box, vector in faces], at)
        for (_, vector), one in zip(faces, found, strict=True):
            if one is not None and one.reference is None:
                one.reference = vector
        return [one.is_doubted for one in found if one is not None]

    assert see((left, ada), (right, bob), at=0) == [False, False]
    assert see((Box(25, 0, 125, 100), None), (Box(175, 0, 275, 100), None), at=0.1) == [False, False]
    assert see((middle, None), at=0.2) == [True], "either of the two"
    assert True in see((Box(60, 0, 160, 100), None), (Box(140, 0, 240, 100), None), at=0.3)
    assert see((left, bob), (right, ada), at=0.4) == [False, False]
    references = [one.reference for one in tracker.update([Detection(left, 0.9, bob)], 0.5) if one]
    assert references[0] is bob


def test_of_very_many_who_passed_the_last_ones_are_kept() -> None:
    """A policy may keep those who are lost for a day."""
    tracker = IouTracker(replace(RULES, max_lost_s=86_400))
    for number in range(MAX_KEPT + 50):
        for at in (number * 10, number * 10 + 0.1):
            (found,) = tracker.update([Detection(Box(0, 0, 100, 100), 0.9)], at)

    assert len(tracker.trajectories) <= MAX_KEPT + 1
    assert found in tracker.trajectories


def test_a_track_is_doubted_when_another_face_is_recognised_as_its_own() -> None:
    """Somebody came exactly in front of it from one frame to the next, and it appears beside them."""
    ada, bob = np.eye(8, dtype=np.float32)[:2]
    tracker = IouTracker(RULES)
    before, elsewhere = Box(0, 0, 100, 100), Box(300, 0, 400, 100)
    play(tracker, [[Detection(before, 0.9, ada)]] * 3)
    (track,) = tracker.update([Detection(before, 0.9)], 0.3)  # bob's face, whose place raises no doubt
    assert track is not None
    assert not track.is_doubted

    taken, _ = tracker.update([Detection(before, 0.9), Detection(elsewhere, 0.9, ada)], 0.4)

    assert taken is track
    assert track.is_doubted
    assert track not in tracker.update([Detection(before, 0.9, bob), Detection(elsewhere, 0.9, ada)], 0.5)
