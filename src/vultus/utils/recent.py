"""Bounded memories of what happened lately, for one process."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class RecentThings(Generic[Thing]):
    """Remembers things for a while, the latest `capacity` of them.

    Args:
        capacity: Most things remembered; the oldest is forgotten first.
        seconds: How long each is remembered.
    """

    def __init__(self, capacity: int, seconds: float) -> None:
        self._capacity = capacity
        self._seconds = seconds
        self._ends: dict[Thing, float] = {}

    def __contains__(self, thing: Thing) -> bool:
        return self._ends.get(thing, 0.0) > time.monotonic()

    def add(self, thing: Thing) -> None:
        """Remember a thing from now on."""
        self._ends.pop(thing, None)
        if len(self._ends) >= self._capacity:
            del self._ends[next(iter(self._ends))]
        self._ends[thing] = time.monotonic() + self._seconds


class RecentCounts(Generic[Thing]):
    """Counts occurrences per thing in windows of fixed length.

    Args:
        capacity: Most things counted at once; the one whose window began first is forgotten first.
        seconds: Length of a window, which begins with its first occurrence.
    """

    def __init__(self, capacity: int, seconds: float) -> None:
        self._capacity = capacity
        self._seconds = seconds
        self._windows: dict[Thing, tuple[float, int]] = {}

    def add(self, thing: Thing) -> None:
        """Count one occurrence."""
        end, count = self._get_window(thing)
        if count == 0:
            self._windows.pop(thing, None)
            if len(self._windows) >= self._capacity:
                del self._windows[next(iter(self._windows))]
        self._windows[thing] = end, count + 1

    def get_wait(self, thing: Thing, limit: int) -> float:
        """Return the seconds until fewer than `limit` are counted; 0 if fewer are."""
        end, count = self._get_window(thing)
        return end - time.monotonic() if count >= limit else 0.0

    def _get_window(self, thing: Thing) -> tuple[float, int]:
        now = time.monotonic()
        end, count = self._windows.get(thing, (0.0, 0))
        return (end, count) if end > now else (now + self._seconds, 0)
