"""Vectors to one-bit codes: on which side of planes through the gallery's centre a vector lies.

Charikar (2002), "Similarity estimation techniques from rounding algorithms", STOC: two vectors at an angle of θ are
separated by a share of θ/π of random planes, and in so many bits their codes differ, on average.

The planes are at right angles to each other, as many at a time as there are dimensions. Each is as random as before,
but together they leave less to chance, and a probe, whose distances from the planes are known, says more than its own
bits do: Gao and Long (2024), "RaBitQ: Quantizing high-dimensional vectors with a theoretical error bound", SIGMOD.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

if TYPE_CHECKING:
    from vultus.domain import FloatArray

Bytes = NDArray[np.uint8]

BITS = 1024
"""Of a code. With 512, ten of 1,527 true mates were lost among 500,000 faces where 1,024 lost none."""

EPSILON = 1e-6

REACH_STEPS = 256
REACH_STEP = 2 / REACH_STEPS
"""Resolution at which a vector's distance from the centre is kept; unit vectors and their mean are within 2."""


CLEARANCE_LOW, CLEARANCE_STEP = 0.5, 0.5 / 256
"""Range and resolution at which a vector's clearance is kept."""

FINE = 4
"""Binary digits of a probe's distance from a plane."""

MEAN_CLEARANCE = np.sqrt(2 / np.pi)
"""Of random vectors: the mean of a normal number's size."""


class Probe(NamedTuple):
    """What is searched for, as codes are compared with it.

    Attributes:
        code: (bits / 8,) its own code.
        reach: Its distance from the centre.
        digits: (`FINE`, bits / 8) its distances from the planes, the least significant digit first, each packed like a
            code. All digits 0 is the furthest on the side where a code's bit is 0, all 1 on the side where it is 1.
        step: Between two such numbers that differ by 1, in units of the distances' root mean square.
        rounding: Standard deviation that this adds to a cosine estimated from a face's code.
    """

    code: Bytes
    reach: float
    digits: Bytes
    step: float
    rounding: float


class Coder:
    """Makes the codes of one vector space.

    Args:
        centre: (d,) mean of the gallery's vectors: face networks use a part of the sphere only, and planes that do not
            pass through it tell nothing.
        bits: Of a code, a multiple of 8.

    Attributes:
        deviation: Standard deviation of a cosine estimated from a face's code, by the sine of the angle.
    """

    def __init__(self, centre: FloatArray, bits: int = BITS) -> None:
        self.centre = np.asarray(centre, np.float32)
        self.bits = bits
        self._planes = planes(len(self.centre), bits)
        self.deviation = _deviation(len(self.centre), bits)

    def encode(self, vectors: FloatArray) -> Bytes:
        """Return (n, width) codes of (n, d) vectors: a bit a plane, then a byte each for reach and clearance.

        The reach is the distance from the centre, in steps of `REACH_STEP`, rounded down. The clearance is the mean
        distance from the planes by the root of the mean square of such distances, nearly 0.8 for most.
        """
        along, reach = self._along(vectors)
        clearance = np.abs(along).mean(axis=1)
        steps = np.clip(np.rint((clearance - CLEARANCE_LOW) / CLEARANCE_STEP), 0, 255).astype(np.uint8)
        return np.concatenate([np.packbits(along > 0, axis=1), reach_steps(reach)[:, None], steps[:, None]], axis=1)

    def probe(self, vector: FloatArray) -> Probe:
        """Return what a (d,) vector is searched with."""
        (along,), (reach,) = self._along(vector[None])
        step = max(2 * float(np.abs(along).max()) / (2**FINE - 1), EPSILON)
        levels = np.rint(along / step + (2**FINE - 1) / 2).astype(np.uint8)
        digits = np.packbits(levels >> np.arange(FINE, dtype=np.uint8)[:, None] & 1, axis=1)
        rounding = step / float(np.sqrt(12 * self.bits) * MEAN_CLEARANCE)
        return Probe(np.packbits(along > 0), float(reach), digits, step, rounding)

    def _along(self, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (n, bits) signed distances from the planes by their root mean square, and (n,) reaches."""
        centred = np.asarray(vectors, np.float32) - self.centre
        reach: FloatArray = np.linalg.norm(centred, axis=1)
        along = np.asarray(centred @ self._planes, np.float32)
        np.multiply(along, math.sqrt(len(self.centre)) / np.maximum(reach, EPSILON)[:, None], out=along)
        return along, reach


def _deviation(dimension: int, bits: int) -> float:
    """Return how much an estimated cosine varies.

    What a code keeps of a vector is the vector times a number and something at right angles to it, in a direction
    left to chance.
    """
    astray = bits * (1 - MEAN_CLEARANCE**2 * together(dimension, bits)) * dimension / max(dimension - 1, 1)
    return float(np.sqrt(astray) / (bits * MEAN_CLEARANCE))


@lru_cache(maxsize=64)
def together(dimension: int, bits: int) -> float:
    """Return what share of all dimensions the planes at right angles to a plane are, itself included, on average.

    Args:
        dimension: Of the vectors.
        bits: The first of a code.
    """
    blocks = np.diff([*range(0, bits, dimension), bits])
    return float((blocks**2).sum() / (bits * dimension))


def reach_steps(reach: FloatArray) -> Bytes:
    """Return distances in whole steps, rounded down."""
    steps: Bytes = np.minimum(reach / REACH_STEP, REACH_STEPS - 1).astype(np.uint8)
    return steps


@lru_cache(maxsize=8)
def planes(dimension: int, bits: int) -> FloatArray:
    """Return the (dimension, bits) normals of the planes, of length 1: the same on every machine, for ever.

    Codes are stored, so the planes must not depend on a random generator whose stream may change: they are Gaussian
    quantiles of the bytes of an extendable hash. As many as there are dimensions, or the rest, are turned until they
    are at right angles to each other, in the one way that leaves each on its own side of those before it.
    """
    drawn = hashlib.shake_256(f"vultus one-bit codes {dimension} {bits}".encode()).digest(4 * dimension * bits)
    gaussian = ndtri((np.frombuffer(drawn, "<u4").reshape(dimension, bits) + 0.5) / 2**32)
    blocks = []
    for start in range(0, bits, dimension):
        turned, triangle = np.linalg.qr(gaussian[:, start : start + dimension])
        blocks.append(turned * np.sign(np.diag(triangle)))
    return np.concatenate(blocks, axis=1).astype(np.float32)
