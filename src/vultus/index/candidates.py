"""The candidate index: every face's code, scanned exhaustively; what may be closest is re-scored elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.index.bounds import least, radii, shares
from vultus.index.codes import ERASED, PART_ROWS, SPARE, Codes, Distances, Rows
from vultus.index.coding import REACH_STEP, REACH_STEPS, together

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.domain import FloatArray
    from vultus.index.codes import Numbers
    from vultus.index.coding import Bytes, Coder

FIRST, SCANNED = 32, 0.003
"""Rows looked at beyond the first plane for every one that is wanted; at least this share of all."""

REFINED = 12
"""Rows looked at with all bits for every one that is wanted."""

PROPOSED = 255
"""In the place of the bits that differ, of rows not to be proposed again."""

SAMPLE = 4096
"""Rows whose distances tell how many of all a limit leaves."""

TIDIED = 0.1
"""Share of erased rows, or of rows out of order, at which all are put in order anew."""


class CandidateIndex:
    """The codes of one collection's templates of one contract. One thread writes, any number search meanwhile.

    Args:
        coder: Makes the codes.
        room: For how many faces, to begin with.

    Attributes:
        last: Greatest number taken in: every face up to it is here or erased. Faces with greater numbers are not.
    """

    def __init__(self, coder: Coder, room: int = PART_ROWS) -> None:
        self.coder = coder
        self.last = 0
        self._codes = Codes(coder.bits, room)
        self._erased = 0
        self._in_order = 0

    def __len__(self) -> int:
        """Return how many faces are here."""
        return self._codes.count - self._erased

    @property
    def bytes(self) -> int:
        """Return the memory that the rows take."""
        return self._codes.count * self._codes.row_bytes

    def append(self, numbers: Numbers, codes: Bytes, last: int | None = None) -> None:
        """Take faces in.

        Args:
            numbers: (n,) of the faces.
            codes: (n, width) as the coder makes them.
            last: Up to which number every face is here now; the greatest given unless said.
        """
        held = self._codes
        if held.count + len(numbers) > held.room:
            held = held.sorted(room=int(SPARE * (held.count + len(numbers))))
        in_order = held.count
        held.append(numbers, codes)
        if held is not self._codes:
            self._codes, self._erased, self._in_order = held, 0, in_order
        self.last = max(self.last, int(numbers.max(initial=0)) if last is None else last)

    def retain(self, numbers: Numbers) -> int:
        """Erase every face that is not among the given numbers; return how many went.

        Args:
            numbers: Of all faces there are, up to `last` at least.
        """
        alive = np.sort(numbers)
        held = self._codes.numbers[: self._codes.count]
        places = np.searchsorted(alive, held)
        known = places < len(alive)
        known[known] = alive[places[known]] == held[known]
        rows = np.flatnonzero(~known & (held != ERASED))
        self._codes.erase(rows)
        self._erased += len(rows)
        return len(rows)

    def tidy(self) -> None:
        """Put rows in order and close gaps, if that pays. Searches under way keep the old rows."""
        out_of_order = self._codes.count - self._in_order
        if max(self._erased, out_of_order) > TIDIED * self._codes.count:
            self._codes = self._codes.sorted()
            self._erased, self._in_order = 0, self._codes.count

    def hunt(self, probe: FloatArray) -> Hunt:
        """Begin a search for a (d,) probe of length 1."""
        return Hunt(self._codes, self.coder, probe)


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows, and in how many of the bits looked at so far they differ from the probe's."""

    rows: Rows
    differing: Distances

    def take(self, chosen: NDArray[np.intp]) -> _Found:
        """Return some of them."""
        return _Found(self.rows.take(chosen), self.differing.take(chosen))


class Hunt:
    """A search for one probe: first the faces that seem closest, then those that a found cosine leaves open.

    Args:
        codes: Of an index.
        coder: That made them.
        probe: (d,) of length 1.
    """

    def __init__(self, codes: Codes, coder: Coder, probe: FloatArray) -> None:
        self._probe = coder.probe(probe)
        self._deviation = coder.deviation
        self._codes = codes
        # Of the planes whose differing bits are counted, before the whole code says more than their number: how many
        # bits there are up to its end, and how much of them is at right angles.
        self._counted = [(bits, together(len(probe), bits)) for bits in codes.ends[:-1] or codes.ends]
        self._parts = codes.parts
        self._scanned: Bytes | None = None
        self._proposed: Rows = np.empty(0, np.int64)

    @property
    def _far(self) -> Bytes:
        """In how many bits of the first plane every row differs, scanned once."""
        if self._scanned is None:
            self._scanned = self._codes.scan(self._parts, self._probe.code)
        return self._scanned

    def closest(self, count: int) -> Numbers:
        """Return the (n,) numbers of the about `count` faces that seem closest, in any order."""
        if not self._parts:
            return np.empty(0, np.int64)
        found = self._within(self._first_limits(count))
        for plane in range(1, len(self._counted)):
            found = self._seemingly_closest(self._refined(found, plane), REFINED * count, plane)
        rows = found.rows
        seems = self._seems(self._cosines(rows), self._reaches(rows))
        self._proposed = rows[seems <= _least_of(seems, count)]
        return self._numbers(self._proposed)

    def above(self, *floors: tuple[float, float]) -> list[Numbers]:
        """Return the (n,) numbers of all faces that may be at least so similar, in any order, an array a floor.

        Those that were proposed as the closest are left out, unless no face is.

        Args:
            floors: Cosines, each with the risk that a face exactly so similar is missing; one that is closer is missing
                more rarely.
        """
        if not self._parts:
            return [np.empty(0, np.int64) for _ in floors]
        self._far[self._proposed] = PROPOSED
        # Every look at more bits is another chance to lose a face.
        chances = [risk / (len(self._counted) + 1) for _, risk in floors]
        expected = list(zip(shares([cosine for cosine, _ in floors], self._probe.reach), chances, strict=True))
        limits = [
            np.max([radii(share, *counted, chance) for share, chance in expected], axis=0) for counted in self._counted
        ]
        found = self._nearer(self._within(limits[0]), limits[0])
        for plane in range(1, len(self._counted)):
            found = self._nearer(self._refined(found, plane), limits[plane])
        cosines, reaches = self._cosines(found.rows), self._reaches(found.rows)
        lowest = [least(share, self._deviation, self._probe.rounding, chance) for share, chance in expected]
        return [self._numbers(found.rows[cosines >= each.take(reaches)]) for each in lowest]

    def _nearer(self, found: _Found, limits: NDArray[np.int64]) -> _Found:
        """Return the rows within a limit a step of reach."""
        return found.take(np.flatnonzero(found.differing < limits.take(self._reaches(found.rows))))

    def _cosines(self, rows: Rows) -> FloatArray:
        return self._codes.cosines(rows, self._probe)

    def _reaches(self, rows: Rows) -> Bytes:
        return self._codes.reaches.take(rows)

    def _within(self, limits: NDArray[np.int64]) -> _Found:
        """Return at least all rows within a limit a step of reach, in the first plane."""
        far, rows = self._far, []
        for part in self._parts:
            radius = int(limits[part.low : part.high + 1].max())
            rows.append(np.flatnonzero(far[part.start : part.end] < radius) + part.start)
        found = np.concatenate(rows)
        return _Found(found, far.take(found).astype(np.int32))

    def _first_limits(self, count: int) -> NDArray[np.int64]:
        """Return limits, those of some cosine, within which about `FIRST` * `count` rows lie, or the share of all."""
        far = self._far
        step = -(-len(far) // SAMPLE)
        apart = self._apart(far[::step], self._codes.reaches[: len(far) : step], 0)
        place = int(max(SCANNED, FIRST * count / len(far)) * len(apart)) + 1
        cosine = 1 - min(float(_least_of(apart, place)), 4.0) / 2
        # Half of the rows that are exactly so similar are within, and with them as many that are less.
        return radii(shares([cosine], self._probe.reach)[0], *self._counted[0], risk=0.5)

    def _seemingly_closest(self, found: _Found, count: int, plane: int) -> _Found:
        """Return the about `count` rows with the greatest cosines, as the share of bits that differ lets it seem."""
        apart = self._apart(found.differing, self._reaches(found.rows), plane)
        return found.take(np.flatnonzero(apart <= _least_of(apart, count)))

    def _apart(self, differing: Distances | Bytes, reaches: Bytes, plane: int) -> FloatArray:
        """Return the squared distances that (n,) bits differing up to a plane let rows of (n,) reaches seem to have."""
        bits, _ = self._counted[plane]
        cosines = np.cos(np.pi / bits * np.arange(bits + 1)).astype(np.float32)
        return self._seems(cosines.take(differing), reaches)

    def _seems(self, cosines: FloatArray, reaches: Bytes) -> FloatArray:
        """Return the squared distances of rows of (n,) reaches that are seen from the centre at (n,) cosines."""
        reach = (np.arange(REACH_STEPS, dtype=np.float32) + np.float32(0.5)) * np.float32(REACH_STEP)
        theirs = reach.take(reaches)
        ours = np.float32(self._probe.reach)
        apart: FloatArray = theirs * (theirs - 2 * ours * cosines) + ours * ours
        return apart

    def _refined(self, found: _Found, plane: int) -> _Found:
        """Return rows with one more plane looked at."""
        more = self._codes.differing(plane, found.rows, self._probe.code)
        return _Found(found.rows, found.differing + more)

    def _numbers(self, rows: Rows) -> Numbers:
        numbers = self._codes.numbers.take(rows)
        alive: Numbers = numbers[numbers != ERASED]
        return alive


def _least_of(values: FloatArray, count: int) -> np.float32 | float:
    """Return the value that `count` of some do not exceed; infinity if there are fewer."""
    return np.inf if len(values) <= count else np.partition(values, count - 1)[count - 1]
