"""One event a walk: confirmation, cooldown and absence, whatever happens to the tracks."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import pytest
from tests.clips import BEGIN

from vultus.domain import (
    Box,
    Candidate,
    Liveness,
    LivenessReason,
    StreamOrigin,
    Track,
    TrackPolicy,
    TrackState,
    Verdict,
)
from vultus.domain.sightings import Left
from vultus.services.live.attendance import Attendance

if TYPE_CHECKING:
    from vultus.domain.sightings import Sighting

POLICY = TrackPolicy(unknown_after_s=2, absence_s=3, cooldown_s=60)
ADA, BOB = UUID(int=1), UUID(int=2)
FIRST, SECOND = UUID(int=11), UUID(int=12)
_numbers = count(100)


def track(
    track_id: UUID, verdict: Verdict | None = None, person: UUID | None = None, liveness: LivenessReason | None = None
) -> Track:
    return Track(
        id=track_id,
        box=Box(0, 0, 10, 10),
        landmarks=np.zeros((5, 2), np.float32),
        state=TrackState.CONFIRMED,
        verdict=Verdict.MATCH if person else verdict,
        person=Candidate(person, None, None, UUID(int=9), 0.9) if person else None,
        liveness=Liveness(0.1, liveness) if liveness else None,
        identity_age_ms=0,
        first_seen_at=BEGIN,
        last_seen_at=BEGIN,
    )


class Walk:
    """Frames of one camera, a second apart unless a test says otherwise, and what was told after them."""

    def __init__(self, attendance: Attendance | None = None, policy: TrackPolicy = POLICY) -> None:
        self.attendance = attendance or Attendance(UUID(int=5), StreamOrigin("source", UUID(int=6)))
        self.policy = policy
        self.seconds = 0.0
        self.sightings: list[Sighting] = []

    def see(self, *tracks: Track, after: float = 1.0, replaced: dict[UUID, UUID] | None = None) -> None:
        self.seconds += after
        self.sightings += self.attendance.update(tracks, self.now, self.policy, replaced or {})

    @property
    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)

    @property
    def actions(self) -> list[tuple[str, UUID | None]]:
        return [(one.action, one.person_id) for one in self.sightings]


def test_somebody_who_comes_is_named_and_goes_gives_three_events() -> None:
    walk = Walk()
    for _ in range(3):
        walk.see(track(FIRST))
    for _ in range(30):
        walk.see(track(FIRST, person=ADA))
    walk.see(after=2.9)
    assert walk.actions == [("appeared", None), ("recognised", ADA)]
    walk.see(after=0.2)

    assert walk.actions[2:] == [("left", ADA)]
    assert (walk.sightings[2].at - BEGIN).total_seconds() == 33, "when they were seen last"
    assert {one.track_id for one in walk.sightings} == {FIRST}  # type: ignore[attr-defined]


def test_a_track_that_is_not_confirmed_is_not_told() -> None:
    walk = Walk()
    walk.see(replace(track(FIRST), state=TrackState.TENTATIVE))

    assert walk.actions == []


def test_who_comes_back_within_the_cooldown_is_not_recognised_again() -> None:
    walk = Walk()
    walk.see(track(FIRST, person=ADA))
    walk.see(after=30)
    walk.see(track(SECOND, person=ADA), after=29)
    walk.see(after=61)
    walk.see(track(FIRST, person=ADA))

    recognised = ["appeared", "recognised", "left"]
    assert [action for action, _ in walk.actions] == [*recognised, "appeared", "left", "appeared", "recognised"]


def test_the_cooldown_ends_though_no_frame_came_for_longer() -> None:
    first = Walk()
    first.see(track(FIRST, person=ADA))
    first.attendance.end()
    again = Walk(Attendance(first.attendance.collection_id, first.attendance.origin, first.attendance.seen_at))
    again.see(track(SECOND, person=ADA), after=100)

    assert again.actions == [("appeared", None), ("recognised", ADA)]


def test_a_clock_that_is_set_back_does_not_prolong_the_cooldown() -> None:
    first = Walk()
    first.see(track(FIRST, person=ADA), after=86_400)
    first.attendance.end()
    again = Walk(first.attendance)
    again.see(track(SECOND, person=ADA))

    assert again.actions == [("appeared", None), ("recognised", ADA)]


def test_the_cooldown_outlives_the_stream() -> None:
    first = Walk()
    first.see(track(FIRST, person=ADA))
    first.sightings += first.attendance.end()
    again = Walk(Attendance(first.attendance.collection_id, first.attendance.origin, first.attendance.seen_at))
    again.see(track(SECOND, person=ADA), after=10)

    assert [action for action, _ in first.actions] == ["appeared", "recognised", "left"]
    assert [action for action, _ in again.actions] == ["appeared"]


def test_a_person_whose_track_breaks_neither_leaves_nor_is_recognised_twice() -> None:
    walk = Walk(policy=replace(POLICY, cooldown_s=0))
    walk.see(track(FIRST, person=ADA))
    walk.see(track(SECOND))
    walk.see(track(SECOND, person=ADA))
    walk.see(after=10)

    assert walk.actions == [("appeared", None), ("recognised", ADA), ("appeared", None), ("left", ADA)]
    assert walk.sightings[-1].since == BEGIN  # type: ignore[attr-defined]
    assert walk.sightings[-1].track_ids == (FIRST, SECOND)  # type: ignore[attr-defined]


def test_a_walk_of_many_tracks_is_told_in_parts_and_names_each_track_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vultus.services.live.attendance.MAX_TRACKS", 3)
    walk = Walk()
    tracks = [UUID(int=100 + at) for at in range(10)]
    for at in tracks:
        walk.see(track(at, person=ADA))
    walk.sightings += walk.attendance.end()

    left = [one for one in walk.sightings if isinstance(one, Left)]
    assert [one.track_ids for one in left] == [tuple(tracks[at : at + 3]) for at in range(0, 10, 3)]
    assert walk.actions.count(("recognised", ADA)) == 1


def test_a_track_that_is_renewed_goes_on_as_the_same_walk() -> None:
    walk = Walk()
    walk.see(track(FIRST, person=ADA), replaced={FIRST: SECOND})
    walk.see(track(SECOND))
    walk.see(track(SECOND, person=ADA))

    assert walk.actions == [("appeared", None), ("recognised", ADA)]
    (left,) = walk.attendance.end()
    assert (left.track_id, left.track_ids) == (SECOND, (FIRST,))  # type: ignore[attr-defined]


@pytest.mark.parametrize("other", [None, BOB])
def test_somebody_who_comes_where_another_left_does_not_go_on_with_their_walk(other: UUID | None) -> None:
    walk = Walk()
    walk.see(track(FIRST, person=ADA), replaced={FIRST: SECOND})
    for _ in range(4):
        walk.see(track(SECOND, Verdict.NO_MATCH, other))

    event = ("recognised", BOB) if other else ("unknown", None)
    assert walk.actions == [("appeared", None), ("recognised", ADA), ("left", ADA), ("appeared", None), event]
    left, appeared = walk.sightings[2:4]
    assert left.at == appeared.at == BEGIN + timedelta(seconds=1)
    (last,) = walk.attendance.end()
    assert (last.track_id, last.person_id) == (SECOND, other)  # type: ignore[attr-defined]


def test_a_track_that_stood_in_for_another_one_is_a_part_of_its_walk() -> None:
    walk = Walk()
    walk.see(track(FIRST, person=ADA))
    walk.see(track(SECOND))
    walk.see(track(FIRST, person=ADA), replaced={SECOND: FIRST})
    walk.see(after=10)

    assert walk.actions == [("appeared", None), ("recognised", ADA), ("appeared", None), ("left", ADA)]
    assert set(walk.sightings[-1].track_ids) == {FIRST, SECOND}  # type: ignore[attr-defined]


def test_a_stranger_is_unknown_once_they_were_there_for_long_enough() -> None:
    walk = Walk()
    walk.see(track(FIRST, Verdict.NO_MATCH))
    assert walk.actions == [("appeared", None)]
    for _ in range(5):
        walk.see(track(FIRST, Verdict.NO_MATCH))
    walk.see(track(FIRST, person=ADA))

    assert walk.actions[1:] == [("unknown", None), ("recognised", ADA)]


def test_who_is_undecided_is_never_unknown() -> None:
    walk = Walk()
    for verdict in (None, Verdict.LOW_QUALITY, Verdict.AMBIGUOUS) * 5:
        walk.see(track(FIRST, verdict))

    assert walk.actions == [("appeared", None)]


def test_a_track_that_becomes_somebody_else_is_two_walks() -> None:
    walk = Walk()
    walk.see(track(FIRST, person=ADA))
    walk.see(track(FIRST, Verdict.AMBIGUOUS))
    walk.see(track(FIRST, person=BOB))

    assert walk.actions[2:] == [("left", ADA), ("appeared", None), ("recognised", BOB)]


def test_an_attack_is_told_once_when_frames_agree() -> None:
    walk = Walk()
    walk.see(track(FIRST, None, liveness=LivenessReason.SPOOF))
    assert walk.actions == [("appeared", None)]
    for _ in range(3):
        walk.see(track(FIRST, Verdict.NOT_LIVE, liveness=LivenessReason.SPOOF))
    walk.see(track(SECOND, Verdict.NOT_LIVE, liveness=LivenessReason.FACE_TOO_SMALL))

    assert walk.actions[1:] == [("spoof", None), ("appeared", None)]


def test_everybody_leaves_when_the_stream_ends() -> None:
    walk = Walk()
    walk.see(track(FIRST, person=ADA), track(SECOND))

    assert [(one.action, one.person_id) for one in walk.attendance.end()] == [("left", ADA), ("left", None)]
    assert walk.attendance.end() == []
