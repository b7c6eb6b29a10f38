"""All comparisons of a data set, block by block: memory stays bounded whatever the number of pairs.

Scores are counted in 2^20 bins of 1.9·10⁻⁶ cosine. The scale is a power of two, so that a score's bin is exact and
"reaches the edge of a bin" is exactly a comparison with that threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vultus.statistics.metrics import Counts, Floats, ScoreHistogram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.domain import FloatArray
    from vultus.statistics.metrics import Indices

BINS_PER_UNIT = 2**19
BIN_COUNT = 2 * BINS_PER_UNIT + 1  # one more: a cosine of exactly 1 starts a bin of its own
NOT_A_PAIR = -1

Bins = NDArray[np.int32]

PersonPairs = NDArray[np.int64]
"""(m, 2) indices of two persons each."""

NO_PERSON_PAIRS: PersonPairs = np.zeros((0, 2), np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class AcceptedCounts:
    """Accepted comparisons by person, for intervals over persons.

    Attributes:
        genuine: (thresholds, persons) accepted comparisons of the person with themselves.
        impostor: (thresholds, persons) accepted comparisons of the person with others; both persons count each.
        genuine_trials: (persons,) comparisons of the person with themselves.
        impostor_trials: (persons,) comparisons of the person with others.
        closest_impostors: Impostor pairs that reach `report_from`: photo, photo, cosine; descending by cosine.
        nearest_cosines: (n,) highest cosine of each photo with another person's; −inf without one.
    """

    genuine: Counts
    impostor: Counts
    genuine_trials: Counts
    impostor_trials: Counts
    closest_impostors: tuple[tuple[int, int, float], ...]
    nearest_cosines: Floats


def count_pair_scores(
    vectors: FloatArray,
    person: Indices,
    *,
    genuine_missed: int = 0,
    left_out: PersonPairs = NO_PERSON_PAIRS,
    block: int = 256,
) -> ScoreHistogram:
    """Return the histogram of the scores of all pairs.

    Args:
        vectors: (n, d) float32 unit vectors.
        person: (n,) index of the person in each photo; non-decreasing.
        genuine_missed: As in `ScoreHistogram`.
        left_out: Different persons who are not compared.
        block: Rows compared at a time.
    """
    genuine, impostor = np.zeros(BIN_COUNT, np.int64), np.zeros(BIN_COUNT, np.int64)
    for own, others, _ in _compare_blocks(vectors, person, left_out, block):
        np.add.at(genuine, own[own != NOT_A_PAIR], 1)
        np.add.at(impostor, others[others != NOT_A_PAIR], 1)
    used = np.flatnonzero(genuine + impostor)
    return ScoreHistogram(
        scores=compute_bin_edges(used),
        genuine=genuine[used],
        impostor=impostor[used],
        rejecting_threshold=float(compute_bin_edges(used[-1:] + 1)[0]) if len(used) else 0.0,
        genuine_missed=genuine_missed,
    )


def count_accepted_by_person(
    vectors: FloatArray,
    person: Indices,
    thresholds: NDArray[np.float64],
    *,
    persons: int,
    report_from: float = np.inf,
    left_out: PersonPairs = NO_PERSON_PAIRS,
    block: int = 256,
) -> AcceptedCounts:
    """Count accepted pairs for each threshold and person.

    Args:
        vectors: (n, d) float32 unit vectors.
        person: (n,) index of the person in each photo; non-decreasing.
        thresholds: (t,) edges of bins, such as the scores of the `ScoreHistogram` from `count_pair_scores`.
        persons: Number of persons.
        report_from: Impostor pairs that reach this cosine are reported; choose it so that they are few.
        left_out: Different persons who are not compared.
        block: Rows compared at a time.
    """
    limits = np.ceil(np.append(thresholds, min(report_from, 2)) * BINS_PER_UNIT).astype(np.int64) + BINS_PER_UNIT
    reporting_limit = limits[-1]
    genuine, impostor = (np.zeros((len(thresholds), persons), np.int64) for _ in range(2))
    closest: list[tuple[int, int, float]] = []
    nearest = np.full(len(vectors), NOT_A_PAIR, np.int32)
    for own, others, start in _compare_blocks(vectors, person, left_out, block):
        for bins, total in ((own, genuine), (others, impostor)):
            # Accepted pairs are few: they are found once, for the lowest threshold, and counted for each.
            row, column = np.nonzero(bins >= limits.min())
            score = bins[row, column]
            for index, limit in enumerate(limits[:-1]):
                is_accepted = score >= limit
                total[index] += np.bincount(person[start + row[is_accepted]], minlength=persons)
                if bins is others:
                    total[index] += np.bincount(person[start + column[is_accepted]], minlength=persons)
        rows = slice(start, start + len(others))
        nearest[rows] = np.maximum(nearest[rows], others.max(axis=1))
        nearest[start:] = np.maximum(nearest[start:], others.max(axis=0))
        is_reported = score >= reporting_limit
        pairs = zip(
            start + row[is_reported], start + column[is_reported], compute_bin_edges(score[is_reported]), strict=True
        )
        closest += [(int(first), int(second), float(cosine)) for first, second, cosine in pairs]
    count = np.bincount(person, minlength=persons).astype(np.int64)
    not_compared = np.zeros(persons, np.int64)
    for ends in (left_out, left_out[:, ::-1]):
        np.add.at(not_compared, ends[:, 0], count[ends[:, 1]])
    return AcceptedCounts(
        genuine=genuine,
        impostor=impostor,
        genuine_trials=count * (count - 1) // 2,
        impostor_trials=count * (len(vectors) - count - not_compared),
        closest_impostors=tuple(sorted(closest, key=lambda pair: -pair[2])),
        nearest_cosines=np.where(nearest == NOT_A_PAIR, -np.inf, compute_bin_edges(nearest)),
    )


def _compare_blocks(
    vectors: FloatArray, person: Indices, left_out: PersonPairs, block: int
) -> Iterator[tuple[Bins, Bins, int]]:
    """Yield the bins of genuine and of impostor pairs, and the first row, for some rows at a time.

    Each pair occurs once, with its earlier photo as the row. Column c is photo start + c. The array of genuine pairs
    ends with the last photo of the rows' persons. Other entries are `NOT_A_PAIR`.
    """
    ends = np.searchsorted(person, person, side="right")  # a person's photos are adjacent
    earlier, later = np.sort(left_out, axis=1).T
    first_rows, end_rows = np.searchsorted(person, earlier), np.searchsorted(person, earlier, side="right")
    first_columns, end_columns = np.searchsorted(person, later), np.searchsorted(person, later, side="right")
    for start in range(0, len(vectors), block):
        rows = vectors[start : start + block]
        scores = rows @ vectors[start:].T
        others = compute_bins(scores)
        last = int(ends[start + len(rows) - 1]) - start
        own = np.full((len(rows), last), NOT_A_PAIR, np.int32)
        for row in range(len(rows)):
            end = int(ends[start + row]) - start
            own[row, row + 1 : end] = others[row, row + 1 : end]
            others[row, :end] = NOT_A_PAIR
        for pair in np.flatnonzero((first_rows < start + len(rows)) & (end_rows > start)):
            own_rows = slice(max(0, int(first_rows[pair]) - start), int(end_rows[pair]) - start)
            others[own_rows, int(first_columns[pair]) - start : int(end_columns[pair]) - start] = NOT_A_PAIR
        yield own, others, start


def compute_bins(scores: FloatArray) -> Bins:
    """Return the bins of float32 cosines."""
    bins: Bins = np.clip(
        np.floor(scores * np.float32(BINS_PER_UNIT)).astype(np.int32) + BINS_PER_UNIT, 0, BIN_COUNT - 1
    ).astype(np.int32)
    return bins


def compute_bin_edges(bins: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the lower edges of bins, as cosines."""
    edges: NDArray[np.float64] = (np.asarray(bins, np.float64) - BINS_PER_UNIT) / BINS_PER_UNIT
    return edges
