"""Invariants of boxes, suppression and similarity transforms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vultus.models.imaging.geometry import (
    compute_box_areas,
    compute_overlaps,
    compute_transform_scale,
    convert_to_squares,
    estimate_similarity_transform,
    shift_sides,
    suppress_non_maxima,
    transform_points,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACE = np.array([[46.6, 44.9], [100.4, 45.0], [74.0, 77.1], [49.5, 103.7], [97.0, 104.5]])

coordinates = st.floats(-1000, 1000, allow_nan=False, width=32)
corners = arrays(np.float64, (12, 2), elements=coordinates)
sides = arrays(np.float64, (12, 2), elements=st.floats(0, 500, width=32))


@st.composite
def boxes(draw: st.DrawFn) -> np.ndarray:
    first = draw(corners)
    return np.concatenate([first, first + draw(sides)], axis=1)


@given(
    angle=st.floats(-math.pi, math.pi),
    scale=st.floats(0.05, 20),
    shift=st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000)),
)
def test_a_face_rotated_scaled_and_shifted_is_aligned(angle: float, scale: float, shift: tuple[float, float]) -> None:
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    photographed = FACE @ turn.T + shift

    matrix = estimate_similarity_transform(photographed, FACE)

    np.testing.assert_allclose(transform_points(photographed, matrix), FACE, atol=1e-6)
    assert compute_transform_scale(matrix) == pytest.approx(1 / scale)


@given(source=arrays(np.float64, (5, 2), elements=st.floats(-100, 100, width=32)))
def test_the_transform_never_mirrors(source: NDArray[Any]) -> None:
    # Points within a thousandth of each other have no defined shape.
    source = source + FACE * 0.01

    try:
        matrix = estimate_similarity_transform(source, FACE)
    except ValueError:
        return

    assert np.linalg.det(matrix[:, :2]) >= 0


@given(
    noise=arrays(np.float64, (5, 2), elements=st.floats(-10, 10, width=32)),
    nudge=arrays(np.float64, (2, 3), elements=st.floats(-0.02, 0.02)),
)
def test_no_similarity_nearby_fits_better(noise: NDArray[Any], nudge: NDArray[Any]) -> None:
    source = FACE + noise
    matrix = estimate_similarity_transform(source, FACE)
    # A similarity has equal diagonals and opposite off-diagonals.
    other = matrix + np.array([[nudge[0, 0], -nudge[0, 1], nudge[0, 2]], [nudge[0, 1], nudge[0, 0], nudge[1, 2]]])

    best, worse = (((transform_points(source, m) - FACE) ** 2).sum() for m in (matrix, other))

    assert best <= worse + 1e-9


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.ones((5, 2)), FACE),
        (FACE[:4], FACE),
        (FACE[:1], FACE[:1]),
        (FACE.T, FACE.T),
        (np.full((5, 2), np.nan), FACE),
        (FACE, np.full((5, 2), np.inf)),
    ],
)
def test_points_without_a_transform_are_refused(source: NDArray[Any], target: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"points|finite|coincide"):
        estimate_similarity_transform(source, target)


@given(boxes=boxes())
def test_overlap_is_symmetric_bounded_and_full_with_oneself(boxes: NDArray[Any]) -> None:
    for mode in ("union", "min"):
        shares = compute_overlaps(boxes, boxes, mode)

        np.testing.assert_allclose(shares, shares.T)
        assert ((shares >= 0) & (shares <= 1 + 1e-9)).all()
        assert (shares.diagonal()[compute_box_areas(boxes) > 0] > 0.99).all()


def test_a_box_inside_another_overlaps_it_fully_by_the_smaller_area() -> None:
    outer, inner = np.array([[0.0, 0, 10, 10]]), np.array([[2.0, 2, 4, 4]])

    assert compute_overlaps(outer, inner, "min")[0, 0] == 1
    assert compute_overlaps(outer, inner, "union")[0, 0] == pytest.approx(0.04)


@given(boxes=boxes(), limit=st.floats(0.1, 0.9), data=st.data())
def test_suppression_keeps_a_best_box_of_every_group_and_no_two_of_one(
    boxes: NDArray[Any], limit: float, data: st.DataObject
) -> None:
    scores = data.draw(arrays(np.float64, (12,), elements=st.floats(0, 1, width=32)))

    kept = suppress_non_maxima(boxes, scores, limit)

    assert kept[0] == scores.argmax()
    assert (np.diff(scores[kept]) <= 0).all()
    shares = compute_overlaps(boxes[kept], boxes[kept])
    assert (shares[~np.eye(len(kept), dtype=bool)] <= limit).all()
    for dropped in set(range(12)) - set(kept.tolist()):
        rivals = kept[scores[kept] >= scores[dropped]]
        assert (compute_overlaps(boxes[[dropped]], boxes[rivals]) > limit).any()


def test_suppression_in_blocks_equals_one_box_at_a_time() -> None:
    rng = np.random.default_rng(3)
    first = rng.uniform(0, 300, (700, 2))
    many = np.concatenate([first, first + rng.uniform(20, 60, (700, 2))], axis=1)
    scores = rng.uniform(size=700)

    kept: list[int] = []
    for i in np.argsort(-scores):
        if not kept or compute_overlaps(many[[i]], many[kept]).max() <= 0.4:
            kept.append(int(i))

    assert suppress_non_maxima(many, scores, 0.4).tolist() == kept


def test_nothing_is_kept_of_nothing() -> None:
    assert suppress_non_maxima(np.zeros((0, 4)), np.zeros(0), 0.5).size == 0


@given(boxes=boxes())
def test_squares_keep_centre_and_longer_side(boxes: NDArray[Any]) -> None:
    square = convert_to_squares(boxes)

    sides = square[:, 2:] - square[:, :2]
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], atol=1e-9)
    np.testing.assert_allclose(sides[:, 0], (boxes[:, 2:] - boxes[:, :2]).max(axis=1), atol=1e-9)
    np.testing.assert_allclose(square[:, :2] + square[:, 2:], boxes[:, :2] + boxes[:, 2:], atol=1e-9)


def test_sides_move_by_fractions_of_the_box() -> None:
    moved = shift_sides(np.array([[10.0, 20, 30, 60]]), np.array([[0.1, 0.1, -0.5, 0.25]]))

    np.testing.assert_allclose(moved, [[12, 24, 20, 70]])
