"""The candidate index: every face's code, scanned exhaustively; candidates are rescored in the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.index.bounds import compute_expected_distances, compute_hamming_radii, compute_min_cosines
from vultus.index.codes import ERASED_NUMBER, PART_ROWS, SPARE_CAPACITY_FACTOR, CodeStore, HammingDistances, Rows
from vultus.index.coding import RESIDUAL_NORM_STEP, RESIDUAL_NORM_STEPS, compute_orthogonality

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.domain import FloatArray
    from vultus.index.codes import FaceNumbers
    from vultus.index.coding import ByteArray, Quantizer

FIRST_SEGMENT_FACTOR, MIN_FIRST_SEGMENT_SHARE = 32, 0.003
"""Rows examined beyond the first segment per requested row; at least this share of all rows."""

WHOLE_CODE_FACTOR = 12
"""Rows examined with all bits per requested row."""

PROPOSED_DISTANCE = 255
"""Replaces the Hamming distance of rows that must not be proposed again."""

SAMPLE_ROWS = 4096
"""Rows sampled to estimate how many of all are within a limit."""

COMPACTION_SHARE = 0.1
"""Share of erased or unsorted rows above which all rows are sorted and compacted."""


class CandidateIndex:
    """Codes of a collection's templates in one embedding space. One thread writes while any number search.

    Args:
        quantizer: Quantizer of the codes.
        capacity: Initial capacity in faces.

    Attributes:
        last_number: Every face up to this number is indexed or erased; no face with a greater one is indexed.
    """

    def __init__(self, quantizer: Quantizer, capacity: int = PART_ROWS) -> None:
        self.quantizer = quantizer
        self.last_number = 0
        self._codes = CodeStore(quantizer.bits, capacity)
        self._erased = 0
        self._in_order = 0

    def __len__(self) -> int:
        """Return the number of indexed faces."""
        return self._codes.count - self._erased

    @property
    def size_bytes(self) -> int:
        """Memory of the rows in bytes."""
        return self._codes.count * self._codes.row_bytes

    def add_faces(self, numbers: FaceNumbers, codes: ByteArray, last_number: int | None = None) -> None:
        """Add faces.

        Args:
            numbers: (n,) numbers of the faces.
            codes: (n, width) codes from the quantizer.
            last_number: Number up to which every face is now indexed; None: the greatest of `numbers`.
        """
        store = self._codes
        if store.count + len(numbers) > store.capacity:
            store = store.create_sorted_copy(min_capacity=int(SPARE_CAPACITY_FACTOR * (store.count + len(numbers))))
        in_order = store.count
        store.add_rows(numbers, codes)
        if store is not self._codes:
            self._codes, self._erased, self._in_order = store, 0, in_order
        self.last_number = max(self.last_number, int(numbers.max(initial=0)) if last_number is None else last_number)

    def erase_faces(self, numbers: FaceNumbers) -> int:
        """Erase the faces with the given numbers, as far as they are indexed; return how many were erased."""
        return self._erase_rows(np.isin(self._codes.numbers[: self._codes.count], numbers))

    def retain_faces(self, numbers: FaceNumbers) -> int:
        """Erase every face that is not among the given numbers; return how many were erased.

        Args:
            numbers: Numbers of all existing faces, at least up to `last_number`.
        """
        stored_numbers = self._codes.numbers[: self._codes.count]
        return self._erase_rows(~np.isin(stored_numbers, numbers) & (stored_numbers != ERASED_NUMBER))

    def _erase_rows(self, erased: NDArray[np.bool]) -> int:
        rows = np.flatnonzero(erased)
        self._codes.erase_rows(rows)
        self._erased += len(rows)
        return len(rows)

    def compact_rows(self) -> None:
        """Sort and compact rows when enough are erased or unsorted. Running searches keep the old rows."""
        out_of_order = self._codes.count - self._in_order
        if max(self._erased, out_of_order) > COMPACTION_SHARE * self._codes.count:
            self._codes = self._codes.create_sorted_copy()
            self._erased, self._in_order = 0, self._codes.count

    def start_search(self, probe: FloatArray) -> ProbeSearch:
        """Return a search for a (d,) probe of length 1."""
        return ProbeSearch(self._codes, self.quantizer, probe)


@dataclass(frozen=True, slots=True)
class _CandidateRows:
    """Rows and their Hamming distances to the probe in the segments examined so far."""

    rows: Rows
    hamming_distances: HammingDistances

    def select_rows(self, chosen: NDArray[np.intp]) -> _CandidateRows:
        """Return the rows at some positions."""
        return _CandidateRows(self.rows.take(chosen), self.hamming_distances.take(chosen))


class ProbeSearch:
    """A search for one probe: first the nearest faces by estimate, then all others that may reach a found cosine.

    Args:
        codes: Codes of an index.
        quantizer: Quantizer of these codes.
        probe: (d,) of length 1.
    """

    def __init__(self, codes: CodeStore, quantizer: Quantizer, probe: FloatArray) -> None:
        self._probe = quantizer.encode_probe(probe)
        self._cosine_deviation = quantizer.cosine_deviation
        self._codes = codes
        # For each segment examined by Hamming distance, the bits up to its end and their orthogonality. The last
        # segment is not: the whole code gives a better estimate.
        self._counted_segments = [
            (bits, compute_orthogonality(len(probe), bits)) for bits in codes.segment_ends[:-1] or codes.segment_ends
        ]
        self._parts = codes.parts
        self._scanned: ByteArray | None = None
        self._proposed: Rows = np.empty(0, np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory of what was scanned, in bytes; not of the index's rows."""
        return (0 if self._scanned is None else self._scanned.nbytes) + self._proposed.nbytes

    @property
    def _hamming_distances(self) -> ByteArray:
        """Hamming distances of all rows in the first segment, scanned once."""
        if self._scanned is None:
            self._scanned = self._codes.scan_first_segment(self._parts, self._probe.code)
        return self._scanned

    def nearest(self, count: int) -> FaceNumbers:
        """Return the (n,) numbers of about `count` nearest faces by estimated squared distance, in any order."""
        if not self._parts:
            return np.empty(0, np.int64)
        found = self._find_within_limits(self._compute_first_limits(count))
        for segment in range(1, len(self._counted_segments)):
            found = self._select_nearest(
                self._add_segment_distances(found, segment), WHOLE_CODE_FACTOR * count, segment
            )
        rows = found.rows
        squared_distances = self._estimated_squared_distance(self._estimate_cosines(rows), self._get_norm_steps(rows))
        self._proposed = rows[squared_distances <= _find_nth_smallest(squared_distances, count)]
        return self._get_live_numbers(self._proposed)

    def above_similarity(self, *floors: tuple[float, float]) -> list[FaceNumbers]:
        """Return the (n,) numbers of all faces that may reach a similarity, in any order, one array per floor.

        Faces already proposed by `nearest` are excluded, unless the floors exclude no face.

        Args:
            floors: Cosines, each with the risk that a face with exactly this cosine is missed; for closer faces it is
                lower.
        """
        if not self._parts:
            return [np.empty(0, np.int64) for _ in floors]
        self._hamming_distances[self._proposed] = PROPOSED_DISTANCE
        # Every examined segment can miss a face, so the risk is divided among them.
        risks = [risk / (len(self._counted_segments) + 1) for _, risk in floors]
        expected = list(
            zip(
                compute_expected_distances([cosine for cosine, _ in floors], self._probe.residual_norm),
                risks,
                strict=True,
            )
        )
        limits = [
            np.max([compute_hamming_radii(distances, *counted, risk) for distances, risk in expected], axis=0)
            for counted in self._counted_segments
        ]
        found = self._filter_within_limits(self._find_within_limits(limits[0]), limits[0])
        for segment in range(1, len(self._counted_segments)):
            found = self._filter_within_limits(self._add_segment_distances(found, segment), limits[segment])
        cosines, norm_steps = self._estimate_cosines(found.rows), self._get_norm_steps(found.rows)
        min_cosines = [
            compute_min_cosines(distances, self._cosine_deviation, self._probe.rounding_deviation, risk)
            for distances, risk in expected
        ]
        return [self._get_live_numbers(found.rows[cosines >= limit.take(norm_steps)]) for limit in min_cosines]

    def _filter_within_limits(self, found: _CandidateRows, limits: NDArray[np.int64]) -> _CandidateRows:
        """Return the rows below the limit of their residual norm step."""
        return found.select_rows(
            np.flatnonzero(found.hamming_distances < limits.take(self._get_norm_steps(found.rows)))
        )

    def _estimate_cosines(self, rows: Rows) -> FloatArray:
        return self._codes.estimate_cosines(rows, self._probe)

    def _get_norm_steps(self, rows: Rows) -> ByteArray:
        return self._codes.residual_norm_steps.take(rows)

    def _find_within_limits(self, limits: NDArray[np.int64]) -> _CandidateRows:
        """Return at least all rows below the limit of their residual norm step, in the first segment."""
        distances, rows = self._hamming_distances, []
        for part in self._parts:
            radius = int(limits[part.min_norm_step : part.max_norm_step + 1].max())
            rows.append(np.flatnonzero(distances[part.start : part.end] < radius) + part.start)
        found = np.concatenate(rows)
        return _CandidateRows(found, distances.take(found).astype(np.int32))

    def _compute_first_limits(self, count: int) -> NDArray[np.int64]:
        """Return limits for a cosine reached by about `FIRST_SEGMENT_FACTOR` * `count` rows, or the share of all."""
        distances = self._hamming_distances
        step = -(-len(distances) // SAMPLE_ROWS)
        squared_distances = self._convert_hamming_distances(
            distances[::step], self._codes.residual_norm_steps[: len(distances) : step], 0
        )
        place = (
            int(max(MIN_FIRST_SEGMENT_SHARE, FIRST_SEGMENT_FACTOR * count / len(distances)) * len(squared_distances))
            + 1
        )
        cosine = 1 - min(float(_find_nth_smallest(squared_distances, place)), 4.0) / 2
        # Half of the rows with exactly this cosine are within the limits, and as many with a lower one.
        return compute_hamming_radii(
            compute_expected_distances([cosine], self._probe.residual_norm)[0], *self._counted_segments[0], risk=0.5
        )

    def _select_nearest(self, found: _CandidateRows, count: int, segment: int) -> _CandidateRows:
        """Return about `count` nearest rows by the squared distance estimated from Hamming distances."""
        squared_distances = self._convert_hamming_distances(
            found.hamming_distances, self._get_norm_steps(found.rows), segment
        )
        return found.select_rows(np.flatnonzero(squared_distances <= _find_nth_smallest(squared_distances, count)))

    def _convert_hamming_distances(
        self, distances: HammingDistances | ByteArray, norm_steps: ByteArray, segment: int
    ) -> FloatArray:
        """Return the (n,) squared distances estimated from (n,) Hamming distances up to a segment's end."""
        bits, _ = self._counted_segments[segment]
        cosines = np.cos(np.pi / bits * np.arange(bits + 1)).astype(np.float32)
        return self._estimated_squared_distance(cosines.take(distances), norm_steps)

    def _estimated_squared_distance(self, cosines: FloatArray, norm_steps: ByteArray) -> FloatArray:
        """Return the (n,) squared distances of rows with (n,) residual norm steps and (n,) cosines after centring."""
        step_norms = (np.arange(RESIDUAL_NORM_STEPS, dtype=np.float32) + np.float32(0.5)) * np.float32(
            RESIDUAL_NORM_STEP
        )
        row_norms = step_norms.take(norm_steps)
        probe_norm = np.float32(self._probe.residual_norm)
        squared_distances: FloatArray = row_norms * (row_norms - 2 * probe_norm * cosines) + probe_norm * probe_norm
        return squared_distances

    def _add_segment_distances(self, found: _CandidateRows, segment: int) -> _CandidateRows:
        """Return rows with the distances of one more segment added."""
        added = self._codes.compute_segment_distances(segment, found.rows, self._probe.code)
        return _CandidateRows(found.rows, found.hamming_distances + added)

    def _get_live_numbers(self, rows: Rows) -> FaceNumbers:
        numbers = self._codes.numbers.take(rows)
        live_numbers: FaceNumbers = numbers[numbers != ERASED_NUMBER]
        return live_numbers


def _find_nth_smallest(values: FloatArray, count: int) -> np.float32 | float:
    """Return the `count`-th smallest value; infinity if there are no more than `count`."""
    return np.inf if len(values) <= count else np.partition(values, count - 1)[count - 1]
