"""Ids that sort by the time they were made: UUID version 7 (RFC 9562, section 5.7)."""

from __future__ import annotations

import secrets
import threading
import time
from uuid import UUID

_RANDOM_BITS = 74
_STEP_BITS = 32


class IdMaker:
    """Makes ids that rise within a process, also when the clock stands still or goes back.

    Method 2 of RFC 9562, section 6.2: the 74 random bits are one number, which grows by a random step while the
    millisecond stays the same. Steps are random, so neither the next id nor the number of ids in between can be told
    from one id, and two processes that share a state after a fork go apart at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unix_ms = 0
        self._random = 0

    def make(self, unix_ms: int | None = None) -> UUID:
        """Return the next id.

        Args:
            unix_ms: Milliseconds since 1970, for tests; now unless given.
        """
        now = time.time_ns() // 1_000_000 if unix_ms is None else unix_ms
        with self._lock:
            if now > self._unix_ms:
                self._unix_ms, self._random = now, secrets.randbits(_RANDOM_BITS)
            else:
                self._random += 1 + secrets.randbits(_STEP_BITS)
                if self._random >> _RANDOM_BITS:
                    self._unix_ms, self._random = self._unix_ms + 1, secrets.randbits(_RANDOM_BITS)
            return _compose(self._unix_ms, self._random)


def _compose(unix_ms: int, random: int) -> UUID:
    high, low = random >> 62, random & (1 << 62) - 1
    return UUID(int=(unix_ms & (1 << 48) - 1) << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low)


new_id = IdMaker().make
"""Return a new id; safe to call from several threads."""
