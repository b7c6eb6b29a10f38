"""How fast bytes must move, so that nobody holds a connection by sending or reading slowly."""

from __future__ import annotations

GRACE_S = 15.0
"""Longest pause between two parts of a body or of an answer, and the time before the average counts."""

MIN_BYTES_PER_S = 1_000
"""Least average of a body or of an answer, after the grace: a slow mobile line reaches ten times as much."""


class Pace:
    """The pace of one body or one answer.

    Args:
        now: Seconds of the event loop's clock.
    """

    __slots__ = ("_length", "_moved_at", "_started")

    def __init__(self, now: float) -> None:
        self._started = self._moved_at = now
        self._length = 0

    def add_bytes(self, length: int, now: float) -> None:
        """Record that bytes moved."""
        self._length += length
        self._moved_at = now

    def is_too_slow(self, now: float) -> bool:
        """Return whether nothing moved for too long, or too little on average."""
        counted_s = now - self._started - GRACE_S
        return now - self._moved_at > GRACE_S or self._length < counted_s * MIN_BYTES_PER_S
