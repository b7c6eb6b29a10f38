"""The candidate index: every face's code, scanned exhaustively; what may be closest is re-scored elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.index.bounds import radii, shares
from vultus.index.codes import ERASED, PART_ROWS, SPARE, Codes, Distances, Rows, differing, plane_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from vultus.domain import FloatArray
    from vultus.index.codes import Numbers, Part
    from vultus.index.coding import Bytes, Coder

SAMPLE = 4096
"""Rows whose distances tell how many rows a radius will give."""

SCANNED = 0.04
"""Share of the rows that the first scan keeps: enough that a second one is seldom needed."""

REFINED = 8
"""Rows looked at with all their bits for every one that is wanted."""

TIDIED = 0.1
"""Share of erased rows, or of rows out of order, at which all are put in order anew."""


class CandidateIndex:
    """The codes of one collection's templates of one contract. One thread writes, any number search meanwhile.

    Args:
        coder: Makes the codes.
        risk: That a face which would have been the answer is not proposed, 0..1.
        room: For how many faces, to begin with.

    Attributes:
        last: Greatest number taken in: every face up to it is here or erased. Faces with greater numbers are not.
    """

    def __init__(self, coder: Coder, risk: float, room: int = PART_ROWS) -> None:
        self.coder = coder
        self.risk = risk
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
        return Hunt(self._codes, self.coder, self.risk, probe)


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows, and in how many of the bits looked at so far they differ from the probe's."""

    rows: Rows
    differing: Distances

    def take(self, chosen: NDArray[np.intp]) -> _Found:
        """Return some of them."""
        return _Found(self.rows.take(chosen), self.differing.take(chosen))

    def closest(self, count: int) -> _Found:
        """Return the about `count`, ties included, that differ least."""
        if len(self.rows) <= count:
            return self
        most = np.partition(self.differing, count - 1)[count - 1]
        return self.take(np.flatnonzero(self.differing <= most))


class Hunt:
    """A search for one probe: first the faces whose codes are closest, then those that a found cosine leaves open.

    Args:
        codes: Of an index.
        coder: That made them.
        risk: That `above` misses a face, 0..1.
        probe: (d,) of length 1.
    """

    def __init__(self, codes: Codes, coder: Coder, risk: float, probe: FloatArray) -> None:
        code = coder.encode(probe[None])[0]
        self._reach = float(coder.reach(probe[None])[0])
        ends = np.cumsum(plane_bytes(coder.bits)).tolist()
        self._probe = [code[start:end].copy() for start, end in zip([0, *ends], ends, strict=False)]
        self._bits_seen: list[int] = [8 * end for end in ends]
        # Every plane is another chance to lose a face.
        self._risk = risk / len(ends)
        self._codes = codes
        self._parts = codes.parts
        self._radius = 0
        self._kept: dict[Part, _Found] = {}

    def closest(self, count: int) -> Numbers:
        """Return the numbers of the about `count` faces whose codes are closest."""
        if not self._parts:
            return np.empty(0, np.int64)
        self._radius = self._radius_of(REFINED * count)
        self._kept = {part: self._within(part, self._radius) for part in self._parts}
        best = _joined(self._kept.values()).closest(REFINED * count)
        for plane in range(1, len(self._probe)):
            best = self._refined(best, plane)
        return self._numbers(best.closest(count))

    def above(self, cosine: float) -> Numbers:
        """Return the numbers of all faces that may be at least so similar; the index's risk is that one is missing.

        Args:
            cosine: Least similarity.
        """
        if not self._parts:
            return np.empty(0, np.int64)
        expected = shares(cosine, self._reach)
        allowed = [radii(expected, bits, self._risk) for bits in self._bits_seen]
        found = _joined([self._part_above(part, allowed[0]) for part in self._parts])
        for plane in range(len(self._probe)):
            if plane:
                found = self._refined(found, plane)
            limit = allowed[plane].take(self._codes.reaches.take(found.rows))
            found = found.take(np.flatnonzero(found.differing < limit))
        return self._numbers(found)

    def _part_above(self, part: Part, allowed: NDArray[np.int64]) -> _Found:
        """Return a part's rows that differ in few enough bits of the first plane, and some more."""
        radius = int(allowed[part.low : part.high + 1].max())
        kept = self._kept.get(part)
        return kept if kept is not None and radius <= self._radius else self._within(part, radius)

    def _within(self, part: Part, radius: int) -> _Found:
        return _Found(*self._codes.within(part, self._probe[0], radius))

    def _refined(self, found: _Found, plane: int) -> _Found:
        """Return rows with one more plane looked at."""
        more = self._codes.differing(plane, found.rows, self._probe[plane])
        return _Found(found.rows, found.differing + more)

    def _numbers(self, found: _Found) -> Numbers:
        numbers = self._codes.numbers.take(found.rows)
        alive: Numbers = numbers[numbers != ERASED]
        return alive

    def _radius_of(self, count: int) -> int:
        """Return the radius, in the first plane, within which about `count` rows and a share of all lie."""
        total, bits = self._parts[-1].end, self._bits_seen[0]
        sample = self._codes.planes[0][: total : -(-total // SAMPLE)].copy()
        place = int(max(SCANNED, count / total) * len(sample))
        if place >= len(sample):
            return bits + 1
        return int(np.partition(differing(sample, self._probe[0]), place)[place]) + 1


def _joined(parts: Iterable[_Found]) -> _Found:
    listed = list(parts)
    return _Found(np.concatenate([part.rows for part in listed]), np.concatenate([part.differing for part in listed]))
