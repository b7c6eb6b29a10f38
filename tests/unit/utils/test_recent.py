"""Memories that forget, and never grow beyond their capacity."""

from __future__ import annotations

import pytest

from vultus.utils import recent
from vultus.utils.recent import RecentCounts, RecentValues


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(recent, "time", clock)
    return clock


def test_a_value_is_remembered_for_a_while_and_the_oldest_makes_room(clock: Clock) -> None:
    values = RecentValues[str, int](2, 10)

    for at, key in enumerate("abab"):
        values.remember(key, at)
    assert [values.recall(key) for key in "abc"] == [2, 3, None]
    values.remember("c", 4)
    assert [values.recall(key) for key in "abc"] == [None, 3, 4]
    clock.now += 10
    assert values.recall("c") is None
    assert "c" not in values


def test_occurrences_are_counted_in_windows_and_the_oldest_makes_room(clock: Clock) -> None:
    counts = RecentCounts[str](2, 60)

    for _ in range(3):
        counts.add("a")
    clock.now += 20
    assert (counts.get_wait("a", 4), counts.get_wait("a", 3), counts.get_wait("b", 1)) == (0, 40, 0)
    counts.add("b")
    counts.add("c")
    assert (counts.get_wait("a", 1), counts.get_wait("b", 1), counts.get_wait("c", 1)) == (0, 60, 60)
    clock.now += 60
    assert counts.get_wait("c", 1) == 0
    counts.add("c")
    assert (counts.get_wait("c", 2), counts.get_wait("c", 1)) == (0, 60)
