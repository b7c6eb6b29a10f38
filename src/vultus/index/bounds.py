"""How many bits may differ between a probe and a face that is at least so similar to it.

The squared distance of unit vectors at cosine c is 2 − 2c, and stays so when the centre is subtracted from both. With
the distances of probe and face from the centre, a and b, it gives the angle at which their codes see them:
cos θ = (a² + b² − 2 + 2c) / 2ab. Every bit of their codes differs with probability θ/π; how much their number varies
depends on the orthogonality of the hyperplanes. With all bits the cosine is estimated better than by counting.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import bdtrc, bdtrik, ndtri

from vultus.index.coding import RESIDUAL_NORM_STEP, RESIDUAL_NORM_STEPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DISTANCE_STEPS = 1024
"""Resolution of the relative Hamming distance."""

COSINE_ROUNDING = 5e-4
"""By how much a cosine between stored, half-precision vectors may exceed that between the vectors coded."""


RESIDUAL_NORMS = np.arange(RESIDUAL_NORM_STEPS) * RESIDUAL_NORM_STEP
"""The least distance from the centre of every step."""


def compute_expected_distances(cosines: Sequence[float], residual_norm: float) -> NDArray[np.float64]:
    """Return, for faces of every step of residual norm, the largest expected relative Hamming distance; 0 where none.

    Args:
        cosines: (k,) least similarities of probe and face.
        residual_norm: Distance of the probe from the centre.

    Returns:
        (k, `RESIDUAL_NORM_STEPS`) shares, 0..1.
    """
    squared_distances = 2 - 2 * (np.array(cosines)[:, None] - COSINE_ROUNDING)
    low, high = RESIDUAL_NORMS, RESIDUAL_NORMS + RESIDUAL_NORM_STEP
    # Over a step the angle is greatest where the line from the probe touches the circle, or at the nearest end.
    touching = np.sqrt(np.maximum(residual_norm**2 - squared_distances, 0))
    worst = np.maximum(np.minimum(np.maximum(touching, low), high), 1e-6)
    along = (residual_norm**2 + worst**2 - squared_distances) / (2 * max(residual_norm, 1e-6) * worst)
    widest: NDArray[np.float64] = np.arccos(np.minimum(np.maximum(along, -1), 1)) / np.pi
    # The residual norms differ by more than the distance allows: there is no such face.
    widest[np.maximum(np.maximum(low - residual_norm, residual_norm - high), 0) ** 2 > squared_distances] = 0.0
    return widest


def compute_hamming_radii(
    expected_distances: NDArray[np.float64], bits: int, orthogonality: float, risk: float
) -> NDArray[np.int64]:
    """Return how many bits fewer than which differ, with probability 1 − `risk`, for every expected share; 0 for none.

    Args:
        expected_distances: (n,) expected relative Hamming distances.
        bits: Looked at.
        orthogonality: Orthogonality of the hyperplanes, 0..1, of `compute_orthogonality`.
        risk: That a face has more.
    """
    found: NDArray[np.int64] = _compute_radius_table(bits, orthogonality, risk)[
        np.ceil(expected_distances * DISTANCE_STEPS).astype(int)
    ]
    return found


def compute_min_cosines(
    expected_distances: NDArray[np.float64], deviation: float, rounding: float, risk: float
) -> NDArray[np.float32]:
    """Return the (n,) least cosines estimated, with probability 1 − `risk`, for every share; infinite for none.

    Args:
        expected_distances: (n,) expected relative Hamming distances.
        deviation: Of an estimate, by the sine of the angle; it is normal, or falls off faster.
        rounding: The probe's deviation, whatever the angle.
        risk: That a face is estimated lower.
    """
    angles = np.pi * expected_distances
    lowest = np.cos(angles) + ndtri(risk) * np.hypot(deviation * np.sin(angles), rounding)
    lowest[expected_distances >= 1] = -np.inf
    return np.where(expected_distances > 0, lowest, np.inf).astype(np.float32)


@lru_cache(maxsize=32)
def _compute_radius_table(bits: int, orthogonality: float, risk: float) -> NDArray[np.int64]:
    """Return the radius of every step of share.

    Over all orthogonal hyperplanes a vector's squared distances add up to its own square, and so do the products of
    two vectors' distances. Given these sums, a bit loses sin²θ/π² of its own variance p(1 − p): the part it shares with
    them. What is left has the tails of a binomial distribution over more bits.
    """
    share = np.arange(DISTANCE_STEPS + 1) / DISTANCE_STEPS
    alone = share * (1 - share)
    spared = orthogonality * (np.sin(np.pi * share) / np.pi) ** 2
    more = np.floor(bits * alone / np.maximum(alone - spared, np.finfo(float).tiny))
    found = np.where(
        alone > 0, bits / np.maximum(more, 1) * _find_upper_quantiles(risk, np.maximum(more, 1), share), bits * share
    )
    return np.append(0, np.floor(found[1:]).astype(np.int64) + 1)


def _find_upper_quantiles(risk: float, trials: NDArray[Any], p: NDArray[Any]) -> NDArray[Any]:
    """Return the least k such that a binomial variable exceeds it with probability `risk` at most.

    SciPy's `binom.isf`, without the second that importing `scipy.stats` takes.

    Args:
        risk: 0 < risk < 1.
        trials: (n,) integers as floats, 1 at least.
        p: (n,) probabilities of success, 0..1.
    """
    n = trials.astype(np.int64)
    with np.errstate(invalid="ignore"):
        k: NDArray[Any] = np.clip(np.nan_to_num(np.ceil(bdtrik(1 - risk, trials, p))), 0, trials)
    # The inverse is accurate to a step: move to the exact one by the survival function.
    while np.any(lower := (k > 0) & (bdtrc(k - 1, n, p) <= risk)):
        k = k - lower
    while np.any(higher := (k < trials) & (bdtrc(k, n, p) > risk)):
        k = k + higher
    return k
