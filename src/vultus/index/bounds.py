"""How many bits may differ between a probe and a face that is at least so similar to it.

The squared distance of unit vectors at cosine c is 2 − 2c, and stays so when the centre is subtracted from both. With
the distances of probe and face from the centre, a and b, it gives the angle at which their codes see them:
cos θ = (a² + b² − 2 + 2c) / 2ab. Every bit of their codes differs with probability θ/π; how much their number varies
depends on how many of the planes are at right angles. With all bits the cosine is estimated better than by counting.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri
from scipy.stats import binom

from vultus.index.coding import REACH_STEP, REACH_STEPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SHARE_STEPS = 1024
"""Resolution of the share of bits that differ."""

ROUNDING = 5e-4
"""By how much a cosine between stored, half-precision vectors may exceed that between the vectors coded."""


REACHES = np.arange(REACH_STEPS) * REACH_STEP
"""The least distance from the centre of every step."""


def shares(cosines: Sequence[float], reach: float) -> NDArray[np.float64]:
    """Return, for faces of every step of reach, the largest share of bits expected to differ; 0 where none can be.

    Args:
        cosines: (k,) least similarities of probe and face.
        reach: Distance of the probe from the centre.

    Returns:
        (k, `REACH_STEPS`) shares, 0..1.
    """
    apart = 2 - 2 * (np.array(cosines)[:, None] - ROUNDING)
    low, high = REACHES, REACHES + REACH_STEP
    # Over a step the angle is greatest where the line from the probe touches the circle, or at the nearest end.
    touching = np.sqrt(np.maximum(reach**2 - apart, 0))
    worst = np.maximum(np.minimum(np.maximum(touching, low), high), 1e-6)
    along = (reach**2 + worst**2 - apart) / (2 * max(reach, 1e-6) * worst)
    widest: NDArray[np.float64] = np.arccos(np.minimum(np.maximum(along, -1), 1)) / np.pi
    # Further from the probe's own reach than the two are apart: no such face.
    widest[np.maximum(np.maximum(low - reach, reach - high), 0) ** 2 > apart] = 0.0
    return widest


def radii(shares: NDArray[np.float64], bits: int, together: float, risk: float) -> NDArray[np.int64]:
    """Return how many bits fewer than which differ, with probability 1 − `risk`, for every expected share; 0 for none.

    Args:
        shares: (n,) expected shares of bits that differ.
        bits: Looked at.
        together: How much of them is at right angles, 0..1: `coding.together`.
        risk: That a face has more.
    """
    found: NDArray[np.int64] = _radii(bits, together, risk)[np.ceil(shares * SHARE_STEPS).astype(int)]
    return found


def least(shares: NDArray[np.float64], deviation: float, rounding: float, risk: float) -> NDArray[np.float32]:
    """Return the (n,) least cosines estimated, with probability 1 − `risk`, for every share; infinite for none.

    Args:
        shares: (n,) expected shares of bits that differ.
        deviation: Of an estimate, by the sine of the angle; it is normal, or falls off faster.
        rounding: The probe's deviation, whatever the angle.
        risk: That a face is estimated lower.
    """
    angles = np.pi * shares
    lowest = np.cos(angles) + ndtri(risk) * np.hypot(deviation * np.sin(angles), rounding)
    lowest[shares >= 1] = -np.inf
    return np.where(shares > 0, lowest, np.inf).astype(np.float32)


@lru_cache(maxsize=32)
def _radii(bits: int, together: float, risk: float) -> NDArray[np.int64]:
    """Return the radius of every step of share.

    Over all planes at right angles a vector's squared distances add up to its own square, and so do the products of
    two vectors' distances. Given these sums, of the variance p(1 − p) that a bit has by itself, sin²θ/π² is gone: what
    the bit has in common with them. What is left has the tails of a binomial number of more bits.
    """
    share = np.arange(SHARE_STEPS + 1) / SHARE_STEPS
    alone = share * (1 - share)
    spared = together * (np.sin(np.pi * share) / np.pi) ** 2
    more = np.floor(bits * alone / np.maximum(alone - spared, np.finfo(float).tiny))
    found = np.where(alone > 0, bits / np.maximum(more, 1) * binom.isf(risk, np.maximum(more, 1), share), bits * share)
    return np.append(0, np.floor(found[1:]).astype(np.int64) + 1)
