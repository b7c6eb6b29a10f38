"""Vectors to one-bit codes: on which side of random planes through the gallery's centre a vector lies.

Charikar (2002), "Similarity estimation techniques from rounding algorithms", STOC: of two vectors at an angle of θ a
random plane separates a share of θ/π, so the number of bits that differ between two codes is binomial.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

if TYPE_CHECKING:
    from vultus.domain import FloatArray

Bytes = NDArray[np.uint8]

BITS = 1024
"""Of a code. With 512, ten of 1,527 true mates were lost among 500,000 faces where 1,024 lost none."""

REACH_STEPS = 256
REACH_STEP = 2 / REACH_STEPS
"""Resolution at which a vector's distance from the centre is kept; unit vectors and their mean are within 2."""


class Coder:
    """Makes the codes of one vector space.

    Args:
        centre: (d,) mean of the gallery's vectors: face networks use a part of the sphere only, and planes that do not
            pass through it tell nothing.
        bits: Of a code, a multiple of 8.
    """

    def __init__(self, centre: FloatArray, bits: int = BITS) -> None:
        self.centre = np.asarray(centre, np.float32)
        self.bits = bits
        self._planes = planes(len(self.centre), bits)

    def encode(self, vectors: FloatArray) -> Bytes:
        """Return (n, width) codes of (n, d) vectors: a bit a plane, and in the last byte the distance from the centre.

        The distance is in steps of `REACH_STEP`, rounded down.
        """
        centred = np.asarray(vectors, np.float32) - self.centre
        bits = np.packbits(centred @ self._planes > 0, axis=1)
        return np.concatenate([bits, reach_steps(self.reach(vectors))[:, None]], axis=1)

    def reach(self, vectors: FloatArray) -> FloatArray:
        """Return the (n,) distances of (n, d) vectors from the centre."""
        reach: FloatArray = np.linalg.norm(np.asarray(vectors, np.float32) - self.centre, axis=1)
        return reach


def reach_steps(reach: FloatArray) -> Bytes:
    """Return distances in whole steps, rounded down."""
    steps: Bytes = np.minimum(reach / REACH_STEP, REACH_STEPS - 1).astype(np.uint8)
    return steps


@lru_cache(maxsize=8)
def planes(dimension: int, bits: int) -> FloatArray:
    """Return the (dimension, bits) normals of the planes: the same numbers on every machine, for ever.

    Codes are stored, so the planes must not depend on a random generator whose stream may change: they are Gaussian
    quantiles of the bytes of an extendable hash.
    """
    drawn = hashlib.shake_256(f"vultus one-bit codes {dimension} {bits}".encode()).digest(4 * dimension * bits)
    uniform = (np.frombuffer(drawn, "<u4").reshape(dimension, bits) + 0.5) / 2**32
    normals: FloatArray = ndtri(uniform).astype(np.float32)
    return normals
