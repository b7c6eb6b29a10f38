"""Which photo a worker decodes, and since when: written by the worker, read by the process that may stop it.

A decoder runs in C and hears no signal handler of Python; and the time of a batch, which the other process knows, says
nothing about one photo's decoding. What a compromised worker writes here can end nothing but itself.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from mmap import mmap

MAX_WORKERS = 4096
SLOT = struct.Struct("<dH")
"""Processor time of the worker when decoding began, seconds; 0 or one more than the position of the photo."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """A photo that is being decoded.

    Attributes:
        position: Of the photo in its batch.
        started_s: Processor time of the worker when its decoding began, seconds.
    """

    position: int
    started_s: float


class DecodingWatch:
    """Memory shared with every process that is forked later, a slot for each worker."""

    def __init__(self) -> None:
        self._memory = mmap(-1, SLOT.size * MAX_WORKERS)

    def record_decoding(self, worker: int, position: int | None) -> None:
        """Record that a worker, this process, begins to decode the photo at a position of its batch, or has ended."""
        SLOT.pack_into(self._memory, SLOT.size * worker, time.process_time(), 0 if position is None else position + 1)

    def find_decoding(self, worker: int) -> Decoding | None:
        """Return what a worker is decoding."""
        started_s, number = SLOT.unpack_from(self._memory, SLOT.size * worker)
        return Decoding(number - 1, started_s) if number else None
