"""dlib's five-point shape predictor, without dlib: corners of the eyes and the base of the nose, in an upright crop.

Kazemi, Sullivan (2014), "One millisecond face alignment with an ensemble of regression trees", CVPR. A cascade of
forests moves a mean shape; each tree looks at differences of two pixels, whose places follow the shape found so far.

The file is one stream of integers, each a byte whose low nibble counts the little-endian bytes that follow and whose
high bit means negative. A float is two of them, mantissa and exponent of two; a matrix begins with its negative sides.
"""

from __future__ import annotations

import io
from array import array
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vultus.errors import WeightsError

if TYPE_CHECKING:
    from vultus.domain import FloatArray, Pixels

POINTS = 5
DECODER_VERSION = 1

LEAVES = 16
"""Of a tree: the answers to its 15 splits, and one more, fit a number of 16 bits."""

Array = NDArray[Any]


def _leaves_by_answers() -> Array:
    """Return the (65,536,) leaf of a tree for all answers to its splits, the first split's in the highest bit."""
    answers = np.arange(1 << LEAVES)
    node = np.zeros_like(answers)
    for _ in range(LEAVES.bit_length() - 1):
        node = 2 * node + 1 + (answers >> (LEAVES - 1 - node) & 1)
    return node - (LEAVES - 1)


LEAF_OF = _leaves_by_answers()


class DlibLandmarks:
    """The forests, ready to find points.

    Args:
        decoded: What `decode_predictor` made of dlib's file.
        square: Left, top and side, in the crops, of where dlib's face detector would see the face.
    """

    def __init__(self, decoded: bytes, square: tuple[float, float, float]) -> None:
        # dlib's rectangles and pixels count from the centre of the first pixel, this package from its corner.
        self._corner, self._side = np.array(square[:2], np.float32), square[2] - 1
        with np.load(io.BytesIO(decoded), allow_pickle=False) as arrays:
            self._mean = arrays["mean"]
            names = [field.name for field in fields(_Forest)]
            self._forests = [_Forest(*forest) for forest in zip(*(arrays[name] for name in names), strict=True)]
        self._centred = self._mean - self._mean.mean()
        self._first_leaf = np.arange(0, len(self._forests[0].steps), LEAVES)

    def find(self, chips: Pixels) -> FloatArray:
        """Return (n, 5, 2) points in pixels of crops: image-right eye out and in, image-left eye out and in, nose.

        Every split of every tree is answered, which takes less time than to walk from the roots to the leaves.

        Args:
            chips: (n, height, width, 3) uint8, each with an upright face.
        """
        grey, shapes = _Grey(chips), np.repeat(self._mean[None], len(chips), axis=0)
        spread = np.vdot(self._centred, self._centred)
        for forest in self._forests:
            # One at a time: a sum over a whole batch would be rounded otherwise.
            turns = np.array([np.vdot(self._centred, shape) for shape in shapes]) / spread
            places = shapes.take(forest.anchors, axis=1) + turns[:, None] * forest.deltas
            seen = grey.at(self._placed(places))
            answers = seen.take(forest.ones, axis=1) - seen.take(forest.others, axis=1) <= forest.limits
            node = LEAF_OF.take(np.packbits(answers, axis=1).view(">u2")) + self._first_leaf
            shapes = shapes + np.einsum("ntp->np", forest.steps.take(node, axis=0))
        return self._placed(shapes) + np.float32(0.5)

    def _placed(self, points: Array) -> FloatArray:
        """Return the (n, m, 2) places in crops of complex points."""
        placed: FloatArray = points.view(np.float32).reshape(*points.shape, 2) * self._side + self._corner
        return placed


@dataclass(frozen=True, slots=True, eq=False)
class _Forest:
    """One forest; points and vectors are complex numbers. Each tree has one split more than dlib's, never used.

    Attributes:
        anchors: (pixels,) the point each pixel lies near.
        deltas: (pixels,) from that point to the pixel, in the mean shape.
        ones: (splits,) of all trees, the pixel whose value counts.
        others: (splits,) the one whose value is subtracted.
        limits: (splits,) int16, the difference up to which the second branch is taken, rounded down as pixels are whole
            numbers.
        steps: (leaves, points) of all trees, how the shape moves.
    """

    anchors: Array
    deltas: Array
    ones: Array
    others: Array
    limits: Array
    steps: Array


class _Grey:
    """Crops without colour, (n, height, width, 3), inside a black border."""

    def __init__(self, chips: Pixels) -> None:
        total = chips[..., 0].astype(np.int16)
        total += chips[..., 1]
        total += chips[..., 2]
        self._pixels = np.pad(total // 3, ((0, 0), (1, 1), (1, 1)))

    def at(self, places: FloatArray) -> Array:
        """Return the (n, m) pixels nearest to (n, m, 2) places of each crop, 0 outside."""
        crops, height, width = self._pixels.shape
        x = np.minimum(np.maximum(np.floor(places[..., 0] + np.float32(0.5)), -1), width - 2)
        y = np.minimum(np.maximum(np.floor(places[..., 1] + np.float32(0.5)), -1), height - 2)
        first = (np.arange(crops) * height + 1)[:, None] * width + 1
        seen: Array = self._pixels.take(y.astype(np.int64) * width + x.astype(np.int64) + first)
        return seen


def decode_predictor(weights: bytes) -> bytes:
    """Return the arrays of a shape predictor as NumPy's archive: parsing the file takes most of a second.

    Args:
        weights: The file dlib wrote.

    Raises:
        WeightsError: It is not a shape predictor of five points.
    """
    stream = io.BytesIO()
    try:
        np.savez(stream, **_arrays(_integers(weights)))
    except (ValueError, IndexError) as error:
        raise WeightsError(f"The shape predictor cannot be read: {error}") from error
    return stream.getvalue()


def _arrays(numbers: Array) -> dict[str, Any]:
    """Take the arrays out of the stream; every tree of every forest has the same size."""
    mean, rest = _points(numbers[3 : 3 + 4 * POINTS]), numbers[3 + 4 * POINTS :]
    forests, trees, splits = (int(rest[at]) for at in (0, 1, 2))
    leaves, leaf = splits + 1, 2 + 4 * POINTS
    tree = 1 + 4 * splits + 1 + leaves * leaf
    end = 1 + forests * (1 + trees * tree)
    table = rest[1:end].reshape(forests, -1)[:, 1:].reshape(forests, trees, tree)
    nodes: Array = table[:, :, 1 : 1 + 4 * splits].reshape(forests, trees, splits, 4)
    steps = _points(table[:, :, 2 + 4 * splits :].reshape(forests, trees * leaves, leaf)[..., 2:])
    anchors, rest = _rows(rest[end:], forests, 1)
    deltas, rest = _rows(rest, forests, 4)
    if len(rest):
        raise ValueError(f"{len(rest)} numbers are left over")
    if leaves != LEAVES:
        raise ValueError(f"its trees have {leaves} leaves, not {LEAVES}")
    nodes = np.pad(nodes, ((0, 0), (0, 0), (0, 1), (0, 0))).reshape(forests, trees * leaves, 4)
    return {
        "mean": mean,
        "anchors": anchors[..., 0],
        "deltas": _points(deltas)[..., 0],
        "ones": nodes[..., 0],
        "others": nodes[..., 1],
        "limits": np.floor(_floats(nodes[..., 2:]))[..., 0].astype(np.int16),
        "steps": steps,
    }


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
