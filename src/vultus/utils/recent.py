"""Bounded memories of what happened lately, for one process."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class RecentValues(Generic[Key, Value]):
    """Remembers values for a while, the latest `capacity` of them.

    Args:
        capacity: Most values remembered; the oldest is forgotten first.
        seconds: How long each is remembered.
    """

    def __init__(self, capacity: int, seconds: float) -> None:
        self._capacity = capacity
        self._seconds = seconds
        self._values: dict[Key, tuple[float, Value]] = {}

    def __contains__(self, key: Key) -> bool:
        return self._values.get(key, (0.0,))[0] > time.monotonic()

    def remember(self, key: Key, value: Value) -> None:
        """Remember a value from now on."""
        self._values.pop(key, None)
        if len(self._values) >= self._capacity:
            del self._values[next(iter(self._values))]
        self._values[key] = time.monotonic() + self._seconds, value

    def recall(self, key: Key) -> Value | None:
        """Return the value that is remembered; None if none is."""
        return self._values[key][1] if key in self else None


class RecentCounts(Generic[Key]):
    """Counts occurrences per key in windows of fixed length.

    Args:
        capacity: Most keys counted at once; the one whose window began first is forgotten first.
        seconds: Length of a window, which begins with its first occurrence.
    """

    def __init__(self, capacity: int, seconds: float) -> None:
        self._capacity = capacity
        self._seconds = seconds
        self._windows: dict[Key, tuple[float, int]] = {}

    def add(self, key: Key) -> None:
        """Count one occurrence."""
        end, count = self._get_window(key)
        if count == 0:
            self._windows.pop(key, None)
            if len(self._windows) >= self._capacity:
                del self._windows[next(iter(self._windows))]
        self._windows[key] = end, count + 1

    def get_wait(self, key: Key, limit: int) -> float:
        """Return the seconds until fewer than `limit` are counted; 0 if fewer are."""
        end, count = self._get_window(key)
        return end - time.monotonic() if count >= limit else 0.0

    def _get_window(self, key: Key) -> tuple[float, int]:
        now = time.monotonic()
        end, count = self._windows.get(key, (0.0, 0))
        return (end, count) if end > now else (now + self._seconds, 0)
