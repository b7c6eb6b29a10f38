"""The codes in memory, and the exhaustive scan over them: the only file that imports FAISS.

A row is 138 bytes for 1,024 bits: the code in segments, so that a scan reads the first bits of every row and the rest
of the few rows that remain; residual norm and quantization correction factor; the face's number. Rows are sorted by
residual norm, except those added last: the limit of the Hamming distance depends on it, so that one radius serves a
whole part of the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from vultus.index.coding import CORRECTION_STEP, MIN_CORRECTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import FloatArray
    from vultus.index.coding import ByteArray, QuantizedProbe

FaceNumbers = NDArray[np.int64]
Rows = NDArray[np.int64]
HammingDistances = NDArray[np.int32]

ERASED_NUMBER = -1
"""The number in a row whose face has been erased."""

SEGMENT_BITS = (256, 256, 512)
"""Layout of a code's bits in segments: a scan over all rows reads the first segment only."""

PART_ROWS = 1 << 16
"""Rows that share a radius: few enough to have similar residual norms, many enough to be worth a call."""

SPARE_CAPACITY_FACTOR = 1.25
"""Capacity as a multiple of the rows; capacity not yet written takes no memory."""


class RowRange(NamedTuple):
    """Rows `start` to `end`, and the range of their residual norm steps, both ends included."""

    start: int
    end: int
    min_norm_step: int
    max_norm_step: int


class CodeStore:
    """Rows of codes; appended to by one thread while others read.

    Args:
        bits: Bits of a code.
        capacity: Maximum number of rows.

    Attributes:
        segment_ends: Bits of a code up to the end of each segment: as in `SEGMENT_BITS`, the last takes the rest.
        count: Number of rows.
        parts: All rows, in ranges of at most `PART_ROWS`.
    """

    def __init__(self, bits: int, capacity: int) -> None:
        self.bits = bits
        self.segment_ends = (*(int(end) for end in np.cumsum(SEGMENT_BITS[:-1]) if end < bits), bits)
        self.capacity = capacity
        self.count = 0
        self.segments = [np.empty((capacity, size // 8), np.uint8) for size in np.diff((0, *self.segment_ends))]
        self.residual_norm_steps = np.empty(capacity, np.uint8)
        self.correction_steps = np.empty(capacity, np.uint8)
        self.numbers: FaceNumbers = np.empty(capacity, np.int64)
        self.parts: tuple[RowRange, ...] = ()

    @property
    def row_bytes(self) -> int:
        """Memory of a row in bytes."""
        return self.bits // 8 + 2 + 8

    def add_rows(self, numbers: FaceNumbers, codes: ByteArray) -> None:
        """Append rows within the capacity: (n,) numbers and their (n, width) codes."""
        end, offset = self.count + len(numbers), 0
        for segment in self.segments:
            segment[self.count : end] = codes[:, offset : offset + segment.shape[1]]
            offset += segment.shape[1]
        self.residual_norm_steps[self.count : end] = codes[:, offset]
        self.correction_steps[self.count : end] = codes[:, offset + 1]
        self.numbers[self.count : end] = numbers
        self._publish_rows(end)

    def erase_rows(self, rows: Rows) -> None:
        """Overwrite the numbers and codes of rows."""
        self.numbers[rows] = ERASED_NUMBER
        for segment in self.segments:
            segment[rows] = 0

    def create_sorted_copy(self, min_capacity: int = 0) -> CodeStore:
        """Return a copy without erased rows, sorted by residual norm, with spare capacity, `min_capacity` or more."""
        live_rows = np.flatnonzero(self.numbers[: self.count] != ERASED_NUMBER)
        order = live_rows[np.argsort(self.residual_norm_steps[live_rows], kind="stable")]
        copy = CodeStore(self.bits, max(PART_ROWS, int(SPARE_CAPACITY_FACTOR * len(order)), min_capacity))
        source_columns: list[NDArray[Any]] = [
            *self.segments,
            self.residual_norm_steps,
            self.correction_steps,
            self.numbers,
        ]
        target_columns: list[NDArray[Any]] = [
            *copy.segments,
            copy.residual_norm_steps,
            copy.correction_steps,
            copy.numbers,
        ]
        for column, ordered in zip(source_columns, target_columns, strict=True):
            # With mode "raise" NumPy would allocate another copy.
            np.take(column, order, axis=0, out=ordered[: len(order)], mode="clip")
        copy._publish_rows(len(order))
        return copy

    def _publish_rows(self, end: int) -> None:
        """Publish rows up to `end` to readers."""
        full = self.parts[: self.count // PART_ROWS]
        starts = range(len(full) * PART_ROWS, end, PART_ROWS)
        added = [self._build_part(start, min(start + PART_ROWS, end)) for start in starts]
        # Assigned last, so that concurrent readers see complete rows only.
        self.count, self.parts = end, (*full, *added)

    def _build_part(self, start: int, end: int) -> RowRange:
        norm_steps = self.residual_norm_steps[start:end]
        return RowRange(start, end, int(norm_steps.min()), int(norm_steps.max()))

    def scan_first_segment(self, parts: Sequence[RowRange], code: ByteArray) -> ByteArray:
        """Return the (n,) Hamming distances of all rows to a code in the first segment; 256 overflows to 0."""
        first, found = self._get_segment_bytes(0, code[None]), np.empty(parts[-1].end, np.uint8)
        for part in parts:
            # One part at a time: the 32-bit distances that FAISS writes stay in the processor's cache.
            found[part.start : part.end] = compute_hamming_distances(self.segments[0][part.start : part.end], first)[0]
        return found

    def compute_segment_distances(self, segment: int, rows: Rows, code: ByteArray) -> HammingDistances:
        """Return the (n,) Hamming distances of (n,) rows to a code in one segment."""
        found: HammingDistances = compute_hamming_distances(
            self.segments[segment].take(rows, axis=0), self._get_segment_bytes(segment, code[None])
        )[0]
        return found

    def estimate_cosines(self, rows: Rows, probe: QuantizedProbe) -> FloatArray:
        """Return the (n,) estimated cosines of (n,) rows with a probe, after subtraction of the centre."""
        found = np.empty(len(rows), np.float32)
        weights = 1 << np.arange(len(probe.digits), dtype=np.int32)
        for start in range(0, len(rows), PART_ROWS):
            some = rows[start : start + PART_ROWS]
            differing_weights = np.zeros(len(some), np.int32)
            for segment, codes in enumerate(self.segments):
                differing_weights += weights @ compute_hamming_distances(
                    codes.take(some, axis=0), self._get_segment_bytes(segment, probe.digits)
                )
            corrections = MIN_CORRECTION + CORRECTION_STEP * self.correction_steps.take(some).astype(np.float32)
            # A digit counts half of its place value, positive or negative.
            weighted_sums = ((2 ** len(probe.digits) - 1) * self.bits - 2 * differing_weights).astype(np.float32)
            found[start : start + PART_ROWS] = weighted_sums * np.float32(probe.step / 2 / self.bits) / corrections
        return found

    def _get_segment_bytes(self, segment: int, codes: ByteArray) -> ByteArray:
        """Return one segment's bytes of (n, width) codes."""
        start, end = (0, *self.segment_ends)[segment : segment + 2]
        return np.ascontiguousarray(codes[:, start // 8 : end // 8])


def compute_hamming_distances(codes: ByteArray, others: ByteArray) -> HammingDistances:
    """Return the (m, n) Hamming distances of (m, width) others to (n, width) codes."""
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


def set_single_thread() -> None:
    """Keep FAISS from starting threads for calls from this thread."""
    faiss.omp_set_num_threads(1)
