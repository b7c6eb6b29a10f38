"""The doubles rule: which pairs of names in a data set are one person.

Data sets hold some people under two names (about 80 pairs of LFW). Counted as false matches they make strict
thresholds stricter than they have to be. A network must not excuse its own false matches, so it has no say: a pair of
names is left out for a network where every other network family, of which there must be two, puts a pair of their
photos above its own threshold of FMR 10⁻⁵. A family is all packs with one embedder. The rule is for adults: networks
take small children for each other so often that two agree by chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vultus.statistics.all_pairs import NO_PERSON_PAIRS, PersonPairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from vultus.domain import FloatArray
    from vultus.statistics.metrics import Indices

DOUBLES_FMR = 1e-5
MIN_OTHER_FAMILIES = 2

PersonPair = tuple[int, int]
"""Indices of two persons, the smaller one first."""


def find_alike_persons(
    vectors: FloatArray, person: Indices, threshold: float, *, block: int = 256
) -> frozenset[PersonPair]:
    """Return the pairs of different persons of whom a pair of photos reaches the threshold.

    Args:
        vectors: (n, d) float32 unit vectors.
        person: (n,) index of the person in each photo; non-decreasing.
        threshold: Cosine; choose it so that such pairs are few.
        block: Rows compared at a time.
    """
    found: set[PersonPair] = set()
    for start in range(0, len(vectors), block):
        row, column = np.nonzero(vectors[start : start + block] @ vectors[start:].T >= threshold)
        first, second = person[start + row], person[start + column]
        is_new = first < second
        found |= set(zip(first[is_new].tolist(), second[is_new].tolist(), strict=True))
    return frozenset(found)


def find_doubles(alike_by_family: Mapping[str, Set[PersonPair]], family: str) -> PersonPairs:
    """Return the pairs of persons to leave out for a family, in order; none where fewer than two others have spoken.

    Args:
        alike_by_family: Pairs above each family's own threshold of `DOUBLES_FMR`.
        family: Of the network under evaluation.
    """
    others = [set(pairs) for name, pairs in alike_by_family.items() if name != family]
    if len(others) < MIN_OTHER_FAMILIES:
        return NO_PERSON_PAIRS
    return np.array(sorted(set.intersection(*others)), np.int64).reshape(-1, 2)
