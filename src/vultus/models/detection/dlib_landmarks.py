"""dlib's five-point shape predictor, without dlib: corners of the eyes and the base of the nose, in an upright crop.

Kazemi, Sullivan (2014), "One millisecond face alignment with an ensemble of regression trees", CVPR. A cascade of
forests refines a mean shape; each split compares the difference of two pixels with a limit, and the positions of the
pixels follow the current shape.

The file is one stream of integers, each a byte whose low nibble counts the little-endian bytes that follow and whose
high bit means negative. A float is two of them, mantissa and exponent of two; a matrix begins with its negated sides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vultus.errors import WeightsError

if TYPE_CHECKING:
    from vultus.domain import FloatArray, Pixels

LANDMARK_COUNT = 5

INTEGER = re.compile(
    b"|".join(b"[%s]" % re.escape(bytes([size, size | 0x80])) + b"." * size for size in range(9)), re.DOTALL
)
"""An integer of the stream: its head and the bytes that follow."""

LEAVES_PER_TREE = 16
"""The outcomes of a tree's 15 splits, and one padding bit, fit 16 bits."""

Array = NDArray[Any]


def _compute_leaf_table() -> Array:
    """Return the (65,536,) leaf indices for all outcomes of a tree's splits, the first split in the highest bit."""
    outcomes = np.arange(1 << LEAVES_PER_TREE)
    node = np.zeros_like(outcomes)
    for _ in range(LEAVES_PER_TREE.bit_length() - 1):
        node = 2 * node + 1 + (outcomes >> (LEAVES_PER_TREE - 1 - node) & 1)
    return node - (LEAVES_PER_TREE - 1)


LEAF_TABLE = _compute_leaf_table()


class DlibLandmarkPredictor:
    """The decoded forests, which predict landmarks in crops.

    Args:
        weights: Content of dlib's file.
        square: Left, top and side, in pixels of the crops, of the box that dlib's face detector would return.
    """

    def __init__(self, weights: bytes, square: tuple[float, float, float]) -> None:
        # dlib's coordinates start at the centre of the first pixel, this package's at its corner.
        self._corner, self._side = np.array(square[:2], np.float32), square[2] - 1
        arrays = _decode_predictor(weights)
        self._mean = arrays["mean"]
        names = [field.name for field in fields(_Forest)]
        self._forests = [_Forest(*forest) for forest in zip(*(arrays[name] for name in names), strict=True)]
        self._centred = self._mean - self._mean.mean()
        self._first_leaf = np.arange(0, len(self._forests[0].steps), LEAVES_PER_TREE)

    def find_landmarks(self, chips: Pixels) -> FloatArray:
        """Return (n, 5, 2) landmarks in pixels of the crops: image-right eye outer and inner, image-left eye, nose.

        Every split of every tree is evaluated, which is faster than descending from the roots to the leaves.

        Args:
            chips: (n, height, width, 3) uint8, each with an upright face.
        """
        grey, shapes = _GreyCrops(chips), np.repeat(self._mean[None], len(chips), axis=0)
        spread = np.vdot(self._centred, self._centred)
        for forest in self._forests:
            # One at a time: a sum over the batch would be rounded differently.
            turns = np.array([np.vdot(self._centred, shape) for shape in shapes]) / spread
            positions = shapes.take(forest.anchors, axis=1) + turns[:, None] * forest.deltas
            values = grey.get_nearest_pixels(self._convert_to_crop_pixels(positions))
            outcomes = values.take(forest.ones, axis=1) - values.take(forest.others, axis=1) <= forest.limits
            node = LEAF_TABLE.take(np.packbits(outcomes, axis=1).view(">u2")) + self._first_leaf
            shapes = shapes + np.einsum("ntp->np", forest.steps.take(node, axis=0))
        return self._convert_to_crop_pixels(shapes) + np.float32(0.5)

    def _convert_to_crop_pixels(self, points: Array) -> FloatArray:
        """Return the (n, m, 2) positions, in pixels of the crops, of (n, m) complex points of the shape."""
        positions: FloatArray = points.view(np.float32).reshape(*points.shape, 2) * self._side + self._corner
        return positions


@dataclass(frozen=True, slots=True, eq=False)
class _Forest:
    """One forest; points and vectors are complex numbers. Each tree is padded with one split that is never used.

    Attributes:
        anchors: (pixels,) index of the shape's point next to each pixel.
        deltas: (pixels,) offset of the pixel from that point, in the mean shape.
        ones: (splits,) of all trees, index of the minuend pixel.
        others: (splits,) index of the subtrahend pixel.
        limits: (splits,) int16, largest difference for the second branch, rounded down as pixels are integers.
        steps: (leaves, points) of all trees, displacement of the shape.
    """

    anchors: Array
    deltas: Array
    ones: Array
    others: Array
    limits: Array
    steps: Array


class _GreyCrops:
    """Greyscale versions of (n, height, width, 3) crops, with a black border of one pixel."""

    def __init__(self, chips: Pixels) -> None:
        total = chips[..., 0].astype(np.int16)
        total += chips[..., 1]
        total += chips[..., 2]
        self._pixels = np.pad(total // 3, ((0, 0), (1, 1), (1, 1)))

    def get_nearest_pixels(self, positions: FloatArray) -> Array:
        """Return the (n, m) pixel values nearest to (n, m, 2) positions in each crop, 0 outside."""
        crops, height, width = self._pixels.shape
        x = np.minimum(np.maximum(np.floor(positions[..., 0] + np.float32(0.5)), -1), width - 2)
        y = np.minimum(np.maximum(np.floor(positions[..., 1] + np.float32(0.5)), -1), height - 2)
        first = (np.arange(crops) * height + 1)[:, None] * width + 1
        values: Array = self._pixels.take(y.astype(np.int64) * width + x.astype(np.int64) + first)
        return values


def _decode_predictor(weights: bytes) -> dict[str, Any]:
    """Return the arrays of a shape predictor.

    Raises:
        WeightsError: It is not a shape predictor of five points.
    """
    try:
        return _parse_arrays(_parse_integers(weights))
    except (ValueError, IndexError) as error:
        raise WeightsError(f"The shape predictor cannot be read: {error}") from error


def _parse_arrays(numbers: Array) -> dict[str, Any]:
    """Return the arrays of the stream by name; every tree of every forest has the same size."""
    mean, rest = _convert_to_points(numbers[3 : 3 + 4 * LANDMARK_COUNT]), numbers[3 + 4 * LANDMARK_COUNT :]
    forests, trees, splits = (int(rest[index]) for index in (0, 1, 2))
    leaves, leaf = splits + 1, 2 + 4 * LANDMARK_COUNT
    tree = 1 + 4 * splits + 1 + leaves * leaf
    end = 1 + forests * (1 + trees * tree)
    table = rest[1:end].reshape(forests, -1)[:, 1:].reshape(forests, trees, tree)
    nodes: Array = table[:, :, 1 : 1 + 4 * splits].reshape(forests, trees, splits, 4)
    steps = _convert_to_points(table[:, :, 2 + 4 * splits :].reshape(forests, trees * leaves, leaf)[..., 2:])
    anchors, rest = _read_rows(rest[end:], forests, 1)
    deltas, rest = _read_rows(rest, forests, 4)
    if len(rest):
        raise ValueError(f"{len(rest)} numbers are left over")
    if leaves != LEAVES_PER_TREE:
        raise ValueError(f"its trees have {leaves} leaves, not {LEAVES_PER_TREE}")
    nodes = np.pad(nodes, ((0, 0), (0, 0), (0, 1), (0, 0))).reshape(forests, trees * leaves, 4)
    return {
        "mean": mean,
        "anchors": anchors[..., 0],
        "deltas": _convert_to_points(deltas)[..., 0],
        "ones": nodes[..., 0],
        "others": nodes[..., 1],
        "limits": np.floor(_convert_to_floats(nodes[..., 2:]))[..., 0].astype(np.int16),
        "steps": steps,
    }


def _parse_integers(stream: bytes) -> Array:
    """Return every integer of the stream."""
    # Three million: a regular expression finds their ends in a third of the time of a loop.
    lengths = np.fromiter(map(len, INTEGER.findall(stream)), np.int64)
    if lengths.sum() != len(stream):
        raise ValueError("it does not consist of integers")
    offsets = np.cumsum(lengths) - lengths
    content = np.frombuffer(stream, np.uint8)
    heads, sizes = content[offsets], lengths - 1
    values = np.zeros(len(offsets), np.int64)
    for byte in range(int(sizes.max(initial=0))):
        present = sizes > byte
        values[present] |= content[offsets[present] + 1 + byte].astype(np.int64) << (8 * byte)
    return np.where(heads & 0x80, -values, values)


def _convert_to_floats(pairs: Array) -> Array:
    """Convert (…, 2 n) mantissas and exponents to (…, n) float32."""
    return np.ldexp(pairs[..., 0::2].astype(np.float32), pairs[..., 1::2].astype(np.int32))


def _convert_to_points(pairs: Array) -> Array:
    """Convert (…, 4 n) mantissas and exponents of x and y to (…, n) complex numbers."""
    numbers = _convert_to_floats(pairs)
    points: Array = np.ascontiguousarray(numbers).view(np.complex64)
    return points


def _read_rows(numbers: Array, rows: int, width: int) -> tuple[Array, Array]:
    """Return the first list of lists in a stream as (rows, n, width), and the rest of the stream."""
    length = int(numbers[1])
    end = 1 + rows * (1 + length * width)
    return numbers[1:end].reshape(rows, -1)[:, 1:].reshape(rows, length, width), numbers[end:]
