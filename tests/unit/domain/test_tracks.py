"""Zones: polygons in shares of a picture."""

from __future__ import annotations

import pytest

from vultus.domain import Zone

NOTCHED = Zone(((0, 0), (1, 0), (1, 1), (0.5, 0.4), (0, 1)))
"""The whole picture without a triangle that points up from its lower edge."""


@pytest.mark.parametrize(
    ("x", "y", "inside"),
    [(0.5, 0.2, True), (0.1, 0.9, False), (0.05, 0.7, True), (0.5, 0.5, False), (0.95, 0.7, True), (1.2, 0.5, False)],
)
def test_a_point_is_in_a_zone_or_not_whatever_its_shape(x: float, y: float, inside: bool) -> None:
    turned = Zone((*NOTCHED.points[2:], *NOTCHED.points[:2]))

    assert NOTCHED.contains(x, y) == inside
    assert turned.contains(x, y) == inside
