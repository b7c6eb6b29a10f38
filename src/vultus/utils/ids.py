"""Ids that sort by creation time: UUID version 7 (RFC 9562, section 5.7)."""

from __future__ import annotations

import secrets
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RANDOM_BITS = 74
_STEP_BITS = 32
_LOW_BITS = 62  # of the random number, behind the variant; the others are behind the version
LAST_S = datetime.max.replace(tzinfo=UTC).timestamp() - 1
_LOW_MASK = (1 << _LOW_BITS) - 1


class IdGenerator:
    """Generates ids that ascend within a process, also when the clock does not advance or is set back.

    Method 2 of RFC 9562, section 6.2: the 74 random bits are one number, which grows by a random step while the
    millisecond stays the same. Random steps prevent guessing the next id or the number of ids in between, and let two
    processes that share a state after a fork diverge immediately.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unix_ms = 0
        self._random = 0

    def make_id(self, unix_ms: int | None = None) -> UUID:
        """Return the next id.

        Args:
            unix_ms: Milliseconds since 1970, for tests; the current time by default.
        """
        with self._lock:
            ms, random = self._advance_clock(1 + secrets.randbits(_STEP_BITS), unix_ms)
        return UUID(int=ms << 80 | 7 << 76 | random >> _LOW_BITS << 64 | 0b10 << _LOW_BITS | random & _LOW_MASK)

    def make_ids(self, count: int) -> NDArray[np.uint8]:
        """Return (count, 16) bytes of ascending ids, after all previous ones; ten times as fast for thousands."""
        steps = 1 + np.frombuffer(secrets.token_bytes(4 * count), "<u4").astype(np.uint64)
        passed = np.cumsum(steps)
        with self._lock:
            ms, last = self._advance_clock(int(steps.sum()))
        first = last - int(steps.sum())
        low = np.uint64(first & _LOW_MASK) + passed
        high = np.uint64(first >> _LOW_BITS) + (low >> np.uint64(_LOW_BITS))
        ids = np.empty((count, 2), ">u8")
        ids[:, 0] = np.uint64(ms << 16 | 7 << 12) | high
        ids[:, 1] = np.uint64(0b10 << _LOW_BITS) | low & np.uint64(_LOW_MASK)
        return ids.view(np.uint8)

    def _advance_clock(self, step: int, unix_ms: int | None = None) -> tuple[int, int]:
        """Advance the random number by a step, or redraw it in a new millisecond; return millisecond and number."""
        current_ms = time.time_ns() // 1_000_000 if unix_ms is None else unix_ms
        if current_ms > self._unix_ms:
            self._unix_ms, self._random = current_ms, step + secrets.randbits(_RANDOM_BITS)
        else:
            self._random += step
        while self._random >> _RANDOM_BITS:
            self._unix_ms, self._random = self._unix_ms + 1, step + secrets.randbits(_RANDOM_BITS)
        return self._unix_ms & (1 << 48) - 1, self._random


_generator = IdGenerator()
new_id = _generator.make_id
"""Return a new id; safe to call from several threads."""
new_ids = _generator.make_ids
"""Return the bytes of many new ids; safe to call from several threads."""


def make_first_id(moment: datetime) -> UUID:
    """Return an id before those made from a moment on."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def read_time(made: UUID) -> datetime:
    """Return when an id was made, by the clock of the process that made it; the last moment for one from nowhere."""
    return datetime.fromtimestamp(min((made.int >> 80) / 1000, LAST_S), UTC)
