"""A limit on the memory held by all photos that are decoded concurrently."""

from __future__ import annotations

import fcntl
import math
import tempfile
import threading
from collections import deque
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


SHARE_COUNT = 64
"""Number of shares into which a budget is divided among processes."""


class Budget(Protocol):
    """A budget of memory."""

    def reserve_bytes(self, size: int) -> AbstractContextManager[None]:
        """Reserve bytes of the budget for the block; wait until they are available."""
        ...


class MemoryBudget:
    """A weighted semaphore, first in first out, so that large photos are not starved indefinitely.

    Args:
        size: Bytes that may be held concurrently. A photo that needs more waits until no other is held.
    """

    def __init__(self, size: int) -> None:
        self._total = size
        self._available = size
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @property
    def available(self) -> int:
        """Bytes that could be reserved now."""
        return self._available

    @contextmanager
    def reserve_bytes(self, size: int) -> Iterator[None]:
        """Reserve bytes of the budget for the block; wait until they are available."""
        weight = min(size, self._total)
        self._acquire_bytes(weight)
        try:
            yield
        finally:
            with self._changed:
                self._available += weight
                self._changed.notify_all()

    def _acquire_bytes(self, weight: int) -> None:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and self._available >= weight)
                self._available -= weight
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()


class SharedMemoryBudget:
    """A memory budget shared by the processes forked from the one that creates it, for one thread in each.

    A share of the budget is a locked byte of an unlinked file: the system releases the shares of a process that ends.

    Args:
        size: Bytes that all processes together may hold concurrently.
    """

    def __init__(self, size: int) -> None:
        self._share = math.ceil(size / SHARE_COUNT)
        self._file, path = tempfile.mkstemp()  # stays open until its processes end
        Path(path).unlink()

    @contextmanager
    def reserve_bytes(self, size: int) -> Iterator[None]:
        """Reserve bytes of the budget for the block; wait until they are available."""
        needed = min(SHARE_COUNT, math.ceil(size / self._share))
        held: set[int] = set()
        try:
            # Only one process at a time acquires shares, all it needs, so that no two wait for each other's.
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, SHARE_COUNT)
            try:
                while len(held) < needed:
                    held.update(self._lock_free_shares(needed - len(held), held))
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, SHARE_COUNT)
            yield
        finally:
            for share in held:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, share)

    def _lock_free_shares(self, count: int, held: set[int]) -> Iterator[int]:
        """Lock and yield up to `count` free shares, or wait for one if none is free."""
        others = [share for share in range(SHARE_COUNT) if share not in held]
        taken = 0
        for share in others:
            if taken == count:
                return
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, share)
            except OSError:
                continue
            taken += 1
            yield share
        if not taken:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, others[0])
            yield others[0]
