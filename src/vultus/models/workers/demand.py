"""How many photos are wanted, served or not: tells a burst, which a queue absorbs, from more than can be served."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DRAIN_FACTOR = 1.25
"""How much faster than it serves photos the queue forgets those it refused: the service time is an estimate."""

ENTER_FACTOR, LEAVE_FACTOR, MAX_FACTOR = 1.5, 0.5, 2.0
"""Demand in capacities from which more is wanted than can be served, until which it is, and that is remembered."""


class DemandMeter:
    """A queue in which refused photos are counted as if they waited too.

    Clients that send the next photo after an answer never fill it beyond their number. Callers that do not wait for
    answers, faster than photos are served, fill it however many are refused.

    Args:
        capacity: Most photos that wait or run.
        clock: Returns seconds.
    """

    def __init__(self, capacity: int, clock: Callable[[], float]) -> None:
        self._capacity = capacity
        self._clock = clock
        self._updated_at = clock()
        self.wanted = 0.0
        self.is_excessive = False

    def update(self, present: int, photos_per_s: float) -> None:
        """Let the time pass since the last call.

        Args:
            present: Photos that wait or run.
            photos_per_s: That the workers serve; infinite if unknown.
        """
        now = self._clock()
        elapsed_s, self._updated_at = now - self._updated_at, now
        served = DRAIN_FACTOR * photos_per_s * elapsed_s if elapsed_s else 0.0
        self.wanted = min(max(present, self.wanted - served), MAX_FACTOR * self._capacity)
        if self.wanted <= LEAVE_FACTOR * self._capacity:
            self.is_excessive = False

    def record_arrival(self) -> None:
        """Count a photo, accepted or refused."""
        self.wanted = min(self.wanted + 1, MAX_FACTOR * self._capacity)
        if self.wanted >= ENTER_FACTOR * self._capacity:
            self.is_excessive = True
