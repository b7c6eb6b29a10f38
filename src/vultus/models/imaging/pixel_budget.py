"""A limit on how many pixels are decoded at the same time, all photos together."""

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


SHARES = 64
"""In how many parts processes share a budget."""


class Budget(Protocol):
    """Room for pixels."""

    def hold(self, pixels: int) -> AbstractContextManager[None]:
        """Wait for room, keep it for the block, give it back."""
        ...


class PixelBudget:
    """A weighted semaphore that serves in order of arrival, so that large photos are not overtaken for ever.

    Args:
        pixels: That may be held at once. A photo that needs more waits until it is alone.
    """

    def __init__(self, pixels: int) -> None:
        self._total = pixels
        self._free = pixels
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @property
    def free(self) -> int:
        """Pixels that could be taken now."""
        return self._free

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait for room, keep it for the block, give it back."""
        weight = min(pixels, self._total)
        self._take(weight)
        try:
            yield
        finally:
            with self._changed:
                self._free += weight
                self._changed.notify_all()

    def _take(self, weight: int) -> None:
        me = object()
        with self._changed:
            self._waiting.append(me)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is me and self._free >= weight)
                self._free -= weight
            finally:
                self._waiting.remove(me)
                self._changed.notify_all()


class SharedPixelBudget:
    """The same among processes forked from the one that makes it, for one thread in each.

    A part of the budget is a locked byte of a file without a name: what a process that dies held, the system frees.

    Args:
        pixels: That all processes together may hold at once.
    """

    def __init__(self, pixels: int) -> None:
        self._share = math.ceil(pixels / SHARES)
        self._file, path = tempfile.mkstemp()  # open as long as its processes
        Path(path).unlink()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait for room, keep it for the block, give it back."""
        wanted = min(SHARES, math.ceil(pixels / self._share))
        held: set[int] = set()
        try:
            # Whoever takes shares takes all it needs before the next one begins: nobody waits holding half.
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, SHARES)
            try:
                while len(held) < wanted:
                    held.update(self._free(wanted - len(held), held))
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, SHARES)
            yield
        finally:
            for share in held:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, share)

    def _free(self, wanted: int, held: set[int]) -> Iterator[int]:
        """Lock the shares that are free, or wait for one."""
        others = [share for share in range(SHARES) if share not in held]
        taken = 0
        for share in others:
            if taken == wanted:
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
