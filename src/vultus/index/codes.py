"""The codes in memory, and the exhaustive scan over them: the only file that imports FAISS.

A row is 138 bytes for 1,024 bits: the code in planes, so that a scan reads the first bits of every row and the rest of
the few that these leave, reach and clearance, and the face's number. Rows are sorted by reach, but for those that came
last: how many bits may differ depends on it, so that one number does for a whole part of the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from vultus.index.coding import CLEARANCE_LOW, CLEARANCE_STEP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import FloatArray
    from vultus.index.coding import Bytes, Probe

Numbers = NDArray[np.int64]
Rows = NDArray[np.int64]
Distances = NDArray[np.int32]

ERASED = -1
"""The number of a row whose face is gone."""

PLANES_BITS = (256, 256, 512)
"""How the bits of a code are laid out: a scan over all rows reads the first plane only."""

PART_ROWS = 1 << 16
"""Rows held to one radius: few enough to have a similar reach, many enough to be worth a call."""

SPARE = 1.25
"""Room for so many times the rows there are; what is not written to yet takes no memory."""


class Part(NamedTuple):
    """Rows `start` to `end`, and the steps of reach they have, `low` to `high`."""

    start: int
    end: int
    low: int
    high: int


class Codes:
    """Rows of codes; appended to by one thread while others read.

    Args:
        bits: Of a code.
        room: Most rows.

    Attributes:
        ends: How many bits a code has up to the end of every plane: those of `PLANES_BITS`, the rest in the last.
        count: Rows there are.
        parts: All of them.
    """

    def __init__(self, bits: int, room: int) -> None:
        self.bits = bits
        self.ends = (*(int(end) for end in np.cumsum(PLANES_BITS[:-1]) if end < bits), bits)
        self.room = room
        self.count = 0
        self.planes = [np.empty((room, size // 8), np.uint8) for size in np.diff((0, *self.ends))]
        self.reaches = np.empty(room, np.uint8)
        self.clearances = np.empty(room, np.uint8)
        self.numbers: Numbers = np.empty(room, np.int64)
        self.parts: tuple[Part, ...] = ()

    @property
    def row_bytes(self) -> int:
        """Return the memory a row takes."""
        return self.bits // 8 + 2 + 8

    def append(self, numbers: Numbers, codes: Bytes) -> None:
        """Take rows for which there is room: (n,) numbers and their (n, width) codes."""
        end, at = self.count + len(numbers), 0
        for plane in self.planes:
            plane[self.count : end] = codes[:, at : at + plane.shape[1]]
            at += plane.shape[1]
        self.reaches[self.count : end], self.clearances[self.count : end] = codes[:, at], codes[:, at + 1]
        self.numbers[self.count : end] = numbers
        self._close(end)

    def erase(self, rows: Rows) -> None:
        """Overwrite rows."""
        self.numbers[rows] = ERASED
        for plane in self.planes:
            plane[rows] = 0

    def sorted(self, room: int = 0) -> Codes:
        """Return the rows that are not erased, in order of reach, with room for more: at least as much as asked."""
        alive = np.flatnonzero(self.numbers[: self.count] != ERASED)
        order = alive[np.argsort(self.reaches[alive], kind="stable")]
        copy = Codes(self.bits, max(PART_ROWS, int(SPARE * len(order)), room))
        mine: list[NDArray[Any]] = [*self.planes, self.reaches, self.clearances, self.numbers]
        theirs: list[NDArray[Any]] = [*copy.planes, copy.reaches, copy.clearances, copy.numbers]
        for column, ordered in zip(mine, theirs, strict=True):
            # With mode "raise" NumPy would make one more copy.
            np.take(column, order, axis=0, out=ordered[: len(order)], mode="clip")
        copy._close(len(order))
        return copy

    def _close(self, end: int) -> None:
        """Let rows up to `end` be seen."""
        full = self.parts[: self.count // PART_ROWS]
        starts = range(len(full) * PART_ROWS, end, PART_ROWS)
        # Last, and at once: who reads meanwhile sees whole rows only.
        self.count, self.parts = end, (*full, *(self._part(start, min(start + PART_ROWS, end)) for start in starts))

    def _part(self, start: int, end: int) -> Part:
        reaches = self.reaches[start:end]
        return Part(start, end, int(reaches.min()), int(reaches.max()))

    def scan(self, parts: Sequence[Part], code: Bytes) -> Bytes:
        """Return in how many bits of the first plane each of the (n,) rows differs from a code; 256 is told as 0."""
        first, found = self._of(0, code[None]), np.empty(parts[-1].end, np.uint8)
        for part in parts:
            # A part at a time: the wide numbers that FAISS counts in stay in the processor's cache.
            found[part.start : part.end] = differing(self.planes[0][part.start : part.end], first)[0]
        return found

    def differing(self, plane: int, rows: Rows, code: Bytes) -> Distances:
        """Return in how many bits of a plane each of some rows differs from a code."""
        found: Distances = differing(self.planes[plane].take(rows, axis=0), self._of(plane, code[None]))[0]
        return found

    def cosines(self, rows: Rows, probe: Probe) -> FloatArray:
        """Return the cosines that (n,) rows seem to have with a probe, as seen from the centre, (n,)."""
        found = np.empty(len(rows), np.float32)
        weights = 1 << np.arange(len(probe.digits), dtype=np.int32)
        for start in range(0, len(rows), PART_ROWS):
            some = rows[start : start + PART_ROWS]
            against = np.zeros(len(some), np.int32)
            for plane, codes in enumerate(self.planes):
                against += weights @ differing(codes.take(some, axis=0), self._of(plane, probe.digits))
            clearance = CLEARANCE_LOW + CLEARANCE_STEP * self.clearances.take(some).astype(np.float32)
            # A digit is worth half of its place's weight, for or against.
            together = ((2 ** len(probe.digits) - 1) * self.bits - 2 * against).astype(np.float32)
            found[start : start + PART_ROWS] = together * np.float32(probe.step / 2 / self.bits) / clearance
        return found

    def _of(self, plane: int, codes: Bytes) -> Bytes:
        """Return a plane's bytes of (n, width) codes."""
        start, end = (0, *self.ends)[plane : plane + 2]
        return np.ascontiguousarray(codes[:, start // 8 : end // 8])


def differing(codes: Bytes, others: Bytes) -> Distances:
    """Return in how many bits each of (n, width) codes differs from each of (m, width) others, (m, n)."""
    counted = np.empty((len(others), len(codes)), np.int32)
    faiss.hammings(
        faiss.swig_ptr(others),
        faiss.swig_ptr(codes),
        len(others),
        len(codes),
        codes.shape[1],
        faiss.swig_ptr(counted),
    )
    return counted


def one_thread() -> None:
    """Keep FAISS, in this thread, from starting threads of its own."""
    faiss.omp_set_num_threads(1)
