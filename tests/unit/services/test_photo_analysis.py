"""The same face found by two detectors, whose boxes differ."""

from __future__ import annotations

import numpy as np
import pytest

from vultus.domain import Box, DescribedFace, DetectedFace, Quality
from vultus.services.photo_analysis import find_matching_face

HEAD = Box(100, 100, 200, 240)
QUALITY = Quality(100, 50, 0.5, 0, 0, 0)


def face(*box: float) -> DescribedFace:
    return DescribedFace(DetectedFace(Box(*box), np.zeros((5, 2), np.float32), 0.9), QUALITY, None)


@pytest.mark.parametrize(
    ("boxes", "found"),
    [
        ([], None),
        ([(105, 110, 195, 235), (180, 100, 280, 240)], 0),
        ([(180, 100, 280, 240), (105, 110, 195, 235)], 1),
        ([(130, 150, 170, 200)], 0),  # small, around its middle
        ([(100, 180, 200, 300)], 0),  # a third of both shared
        ([(185, 100, 285, 240)], None),  # the neighbour, with less overlap
        ([(400, 100, 500, 240)], None),
    ],
)
def test_the_face_is_the_one_whose_box_overlaps_most(boxes: list[tuple[float, ...]], found: int | None) -> None:
    faces = [face(*box) for box in boxes]

    assert find_matching_face(faces, HEAD) is (None if found is None else faces[found])
