"""Photos reach the pool with what is known of them; the same face is found by two detectors, whose boxes differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vultus.domain import EMBEDDINGS, Analysis, Box, DescribedFace, DetectedFace, Lane, Quality
from vultus.services.photo_analysis import Photo, PhotoAnalyzer, find_matching_face

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


async def test_a_frame_reaches_the_pool_with_its_source() -> None:
    """Or the frames of two cameras would take each other's places."""
    asked: list[Any] = []

    class Pool:
        async def analyze_photo(self, *values: Any, **named: Any) -> Analysis:
            asked.append((*values, named))
            return Analysis(1, 1, "JPEG", (), {})

    pool: Any = Pool()
    analyzer = PhotoAnalyzer(pool, max_bytes=9)
    for source in ("door", "gate"):
        await analyzer.analyze_photo(Photo(b"frame"), "s", lane=Lane.LIVE, source=source)

    assert asked == [
        (b"frame", "s", EMBEDDINGS, Lane.LIVE, {"source": source, "reservation": None}) for source in ("door", "gate")
    ]
