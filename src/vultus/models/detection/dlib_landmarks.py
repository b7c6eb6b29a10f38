"""dlib's five-point shape predictor, without dlib: corners of the eyes and the base of the nose, in an upright crop.

Kazemi, Sullivan (2014), "One millisecond face alignment with an ensemble of regression trees", CVPR. A cascade of
forests moves a mean shape; each tree looks at differences of two pixels, whose places follow the shape found so far.

The file is one stream of integers, each a byte whose low nibble counts the little-endian bytes that follow and whose
high bit means negative. A float is two of them, mantissa and exponent of two; a matrix begins with its negative sides.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vultus.errors import WeightsError

if TYPE_CHECKING:
    from vultus.domain import FloatArray, Pixels

POINTS = 5

Array = NDArray[Any]


class DlibLandmarks:
    """The forests, ready to find points.

    Args:
        weights: The file dlib wrote.
        square: Left, top and side, in the crops, of where dlib's face detector would see the face.

    Raises:
        WeightsError: It is not a shape predictor of five points.
    """

    def __init__(self, weights: bytes, square: tuple[float, float, float]) -> None:
        # dlib's rectangles and pixels count from the centre of the first pixel, this package from its corner.
        self._corner, self._side = complex(*square[:2]), square[2] - 1
        try:
            self._read(_integers(weights))
        except (ValueError, IndexError) as error:
            raise WeightsError(f"The shape predictor cannot be read: {error}") from error

    def _read(self, numbers: Array) -> None:
        """Take the arrays out of the stream; every tree of every forest has the same size."""
        mean, rest = _points(numbers[3 : 3 + 4 * POINTS]), numbers[3 + 4 * POINTS :]
        forests, trees, splits = (int(rest[at]) for at in (0, 1, 2))
        leaves, leaf = splits + 1, 2 + 4 * POINTS
        tree = 1 + 4 * splits + 1 + leaves * leaf
        end = 1 + forests * (1 + trees * tree)
        table = rest[1:end].reshape(forests, -1)[:, 1:].reshape(forests, trees, tree)
        nodes = table[:, :, 1 : 1 + 4 * splits].reshape(forests, trees * splits, 4)
        steps = _points(table[:, :, 2 + 4 * splits :].reshape(forests, trees * leaves, leaf)[..., 2:])
        anchors, rest = _rows(rest[end:], forests, 1)
        deltas, rest = _rows(rest, forests, 4)
        if len(rest):
            raise ValueError(f"{len(rest)} numbers are left over")
        self._mean, self._splits = mean, splits
        self._first_split, self._first_leaf = np.arange(trees) * splits, np.arange(trees) * leaves
        self._forests = [
            _Forest(
                anchors=anchors[at, :, 0],
                deltas=_points(deltas[at])[:, 0],
                splits=np.column_stack([nodes[at, :, :2], np.floor(_floats(nodes[at, :, 2:]))]).astype(np.int16),
                steps=steps[at],
            )
            for at in range(forests)
        ]

    def find(self, chip: Pixels) -> FloatArray:
        """Return (5, 2) points in pixels of a crop: image-right eye out and in, image-left eye out and in, nose.

        Args:
            chip: (height, width, 3) uint8 with an upright face.
        """
        grey = chip.sum(axis=2, dtype=np.int32) // 3
        shape, centred = self._mean, self._mean - self._mean.mean()
        for forest in self._forests:
            turn = np.vdot(centred, shape) / np.vdot(centred, centred)
            seen = _look(grey, (shape[forest.anchors] + turn * forest.deltas) * self._side + self._corner)
            node = np.zeros_like(self._first_split)
            while node[0] < self._splits:
                one, other, limit = forest.splits.take(self._first_split + node, axis=0).T
                node = 2 * node + 1 + (seen.take(one) - seen.take(other) <= limit)
            shape = shape + forest.steps.take(self._first_leaf + node - self._splits, axis=0).sum(axis=0)
        found = shape * self._side + self._corner
        points: FloatArray = np.stack([found.real, found.imag], axis=1).astype(np.float32) + np.float32(0.5)
        return points


@dataclass(frozen=True, slots=True, eq=False)
class _Forest:
    """One forest; points and vectors are complex numbers.

    Attributes:
        anchors: (pixels,) the point each pixel lies near.
        deltas: (pixels,) from that point to the pixel, in the mean shape.
        splits: (splits, 3) of all trees: the pixel whose value counts, the one whose value is subtracted, and the
            difference up to which the second branch is taken, rounded down as pixels are whole numbers.
        steps: (leaves, points) of all trees, how the shape moves.
    """

    anchors: Array
    deltas: Array
    splits: Array
    steps: Array


def _look(grey: Array, places: Array) -> Array:
    """Return the pixels nearest to complex places, 0 outside."""
    x, y = np.floor(places.real + 0.5).astype(int), np.floor(places.imag + 0.5).astype(int)
    inside = (x >= 0) & (y >= 0) & (x < grey.shape[1]) & (y < grey.shape[0])
    return np.where(inside, grey[np.where(inside, y, 0), np.where(inside, x, 0)], 0)


def _integers(stream: bytes) -> Array:
    """Return every integer of the stream."""
    starts, at = array("q"), 0
    while at < len(stream):
        starts.append(at)
        at += 1 + (stream[at] & 0x0F)
    content, place = np.frombuffer(stream + bytes(8), np.uint8), np.array(starts)
    heads = content[place]
    size = heads & 0x0F
    if at != len(stream) or size.max(initial=0) > 8:
        raise ValueError("it does not consist of integers")
    values = np.zeros(len(place), np.int64)
    for byte in range(int(size.max(initial=0))):
        there = size > byte
        values[there] |= content[place[there] + 1 + byte].astype(np.int64) << (8 * byte)
    return np.where(heads & 0x80, -values, values)


def _floats(pairs: Array) -> Array:
    """Turn (…, 2 n) mantissas and exponents into (…, n) numbers."""
    return np.ldexp(pairs[..., 0::2].astype(np.float32), pairs[..., 1::2].astype(np.int32))


def _points(pairs: Array) -> Array:
    """Turn (…, 4 n) mantissas and exponents of x and y into (…, n) complex numbers."""
    numbers = _floats(pairs)
    points: Array = np.ascontiguousarray(numbers).view(np.complex64)
    return points


def _rows(numbers: Array, rows: int, width: int) -> tuple[Array, Array]:
    """Return the first list of lists in a stream as (rows, n, width), and what follows it."""
    length = int(numbers[1])
    end = 1 + rows * (1 + length * width)
    return numbers[1:end].reshape(rows, -1)[:, 1:].reshape(rows, length, width), numbers[end:]
