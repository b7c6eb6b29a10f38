"""A limit on how many pixels are decoded at the same time, all photos together."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
