"""Every comparison a data set allows, block by block: memory stays bounded whatever the number of pairs.

Scores are counted in 2^20 bins of 1.9·10⁻⁶ cosine. The scale is a power of two, so that a score's bin is exact and
"reaches the edge of a bin" is decided exactly as a comparison with that threshold would decide it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vultus.statistics.metrics import Counts, Floats, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.domain import FloatArray
    from vultus.statistics.metrics import Indices

HALF = 2**19
BINS = 2 * HALF + 1  # one more: a cosine of exactly 1 starts a bin of its own
NOT_A_PAIR = -1

Bins = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Accepted:
    """Accepted comparisons by person, for intervals over persons.

    Attributes:
        genuine: (thresholds, persons) accepted comparisons of the person with themselves.
        impostor: (thresholds, persons) accepted comparisons of the person with others; both persons count each.
        genuine_trials: (persons,) comparisons of the person with themselves.
        impostor_trials: (persons,) comparisons of the person with others.
        closest: Impostor pairs that reach `name_from`: photo, photo, cosine; best first.
        nearest: (n,) highest cosine of each photo with another person's; −inf without one.
    """

    genuine: Counts
    impostor: Counts
    genuine_trials: Counts
    impostor_trials: Counts
    closest: tuple[tuple[int, int, float], ...]
    nearest: Floats


def tally_pairs(vectors: FloatArray, person: Indices, *, genuine_missed: int = 0, block: int = 256) -> Tally:
    """Count the scores of all pairs.

    Args:
        vectors: (n, d) float32 unit vectors.
        person: (n,) whom each shows; never falls.
        genuine_missed: As in `Tally`.
        block: Rows compared at a time.
    """
    genuine, impostor = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    for own, others, _ in _blocks(vectors, person, block):
        np.add.at(genuine, own[own != NOT_A_PAIR], 1)
        np.add.at(impostor, others[others != NOT_A_PAIR], 1)
    used = np.flatnonzero(genuine + impostor)
    return Tally(
        scores=edges_of(used),
        genuine=genuine[used],
        impostor=impostor[used],
        beyond=float(edges_of(used[-1:] + 1)[0]) if len(used) else 0.0,
        genuine_missed=genuine_missed,
    )


def accepted_by_person(
    vectors: FloatArray,
    person: Indices,
    thresholds: NDArray[np.float64],
    *,
    persons: int,
    name_from: float = np.inf,
    block: int = 256,
) -> Accepted:
    """Count accepted pairs for each threshold and person.

    Args:
        vectors: (n, d) float32 unit vectors.
        person: (n,) whom each shows; never falls.
        thresholds: (t,) edges of bins, such as a `Tally` of `tally_pairs` has.
        persons: How many there are.
        name_from: Impostor pairs that reach this cosine are named; choose it so that they are few.
        block: Rows compared at a time.
    """
    limits = np.ceil(np.append(thresholds, min(name_from, 2)) * HALF).astype(np.int64) + HALF
    naming = limits[-1]
    genuine, impostor = (np.zeros((len(thresholds), persons), np.int64) for _ in range(2))
    closest: list[tuple[int, int, float]] = []
    nearest = np.full(len(vectors), NOT_A_PAIR, np.int32)
    for own, others, start in _blocks(vectors, person, block):
        for bins, total in ((own, genuine), (others, impostor)):
            # Accepted pairs are few: they are looked up once, for the lowest threshold, and counted for each.
            row, column = np.nonzero(bins >= limits.min())
            score = bins[row, column]
            for at, limit in enumerate(limits[:-1]):
                hit = score >= limit
                total[at] += np.bincount(person[start + row[hit]], minlength=persons)
                if bins is others:
                    total[at] += np.bincount(person[start + column[hit]], minlength=persons)
        rows = slice(start, start + len(others))
        nearest[rows] = np.maximum(nearest[rows], others.max(axis=1))
        nearest[start:] = np.maximum(nearest[start:], others.max(axis=0))
        named = score >= naming
        pairs = zip(start + row[named], start + column[named], edges_of(score[named]), strict=True)
        closest += [(int(one), int(two), float(cosine)) for one, two, cosine in pairs]
    count = np.bincount(person, minlength=persons).astype(np.int64)
    return Accepted(
        genuine=genuine,
        impostor=impostor,
        genuine_trials=count * (count - 1) // 2,
        impostor_trials=count * (len(vectors) - count),
        closest=tuple(sorted(closest, key=lambda pair: -pair[2])),
        nearest=np.where(nearest == NOT_A_PAIR, -np.inf, edges_of(nearest)),
    )


def _blocks(vectors: FloatArray, person: Indices, block: int) -> Iterator[tuple[Bins, Bins, int]]:
    """Yield the bins of genuine and of impostor pairs, and the first row, for some rows at a time.

    Each pair occurs once, with its earlier photo as the row. Column c is photo start + c. The array of genuine pairs
    ends with the last photo of the rows' persons. What is not such a pair is `NOT_A_PAIR`.
    """
    ends = np.searchsorted(person, person, side="right")  # photos of a person are neighbours
    for start in range(0, len(vectors), block):
        rows = vectors[start : start + block]
        scores = rows @ vectors[start:].T
        others = bins_of(scores)
        last = int(ends[start + len(rows) - 1]) - start
        own = np.full((len(rows), last), NOT_A_PAIR, np.int32)
        for row in range(len(rows)):
            end = int(ends[start + row]) - start
            own[row, row + 1 : end] = others[row, row + 1 : end]
            others[row, :end] = NOT_A_PAIR
        yield own, others, start


def bins_of(scores: FloatArray) -> Bins:
    """Return the bins of float32 cosines."""
    bins: Bins = np.clip(np.floor(scores * np.float32(HALF)).astype(np.int32) + HALF, 0, BINS - 1).astype(np.int32)
    return bins


def edges_of(bins: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the lower edge of bins."""
    edges: NDArray[np.float64] = (np.asarray(bins, np.float64) - HALF) / HALF
    return edges
