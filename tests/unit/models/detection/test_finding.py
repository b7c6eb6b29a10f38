"""Photos are searched turned if no face is upright, and very long ones in tiles."""

from __future__ import annotations

import numpy as np
import pytest

from vultus.domain import Box, DetectedFace, Pixels
from vultus.models.detection.finding import MAX_TILES, FaceFinder
from vultus.models.imaging.decoding import DecodedPhoto

RED, GREEN, BLUE = range(3)


class MarkDetector:
    """Finds "faces": red rectangles whose upper edge is green; one on its side has it elsewhere and is not found.

    Attributes:
        searched: (height, width, min_face_px) of the images it was given.
    """

    def __init__(self) -> None:
        self.searched: list[tuple[int, int, float]] = []

    def detect(self, pixels: Pixels, min_face_px: float) -> list[DetectedFace]:
        self.searched.append((*pixels.shape[:2], min_face_px))
        found = []
        for row, column in np.argwhere(pixels[..., GREEN]):
            # The upper left corner of a mark: nothing to its left or above, red below.
            left = column == 0 or not pixels[row, column - 1, GREEN]
            below = row + 1 < len(pixels) and pixels[row + 1, column, RED]
            if left and below:
                width = int(np.argmin(np.append(pixels[row, column:, GREEN], 0)))
                height = 1 + int(np.argmin(np.append(pixels[row + 1 :, column, RED], 0)))
                box = Box(float(column), float(row), float(column + width), float(row + height))
                if height >= min_face_px:
                    points = np.full((5, 2), box.centre, np.float32)
                    found.append(DetectedFace(box, points, pixels[row, column, BLUE] / 255))
        return found


def score_faces(photo: DecodedPhoto, faces: list[DetectedFace]) -> list[float]:
    """Return the faces' own scores."""
    del photo
    return [face.score for face in faces]


def mark(pixels: Pixels, left: int, top: int, side: int, score: float = 1.0) -> None:
    pixels[top : top + side, left : left + side, RED] = 255
    pixels[top, left : left + side] = (0, 255, round(255 * score))


def blank(width: int, height: int) -> Pixels:
    return np.zeros((height, width, 3), np.uint8)


def photo_of(pixels: Pixels) -> DecodedPhoto:
    return DecodedPhoto(pixels, pixels.shape[1], pixels.shape[0])


@pytest.fixture
def detector() -> MarkDetector:
    return MarkDetector()


@pytest.fixture
def finder(detector: MarkDetector) -> FaceFinder:
    return FaceFinder(detector, score_faces, min_face_px=20, max_side_px=600)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_that_lies_is_found_where_it_is_in_the_photo(finder: FaceFinder, quarters: int) -> None:
    upright = blank(200, 150)
    mark(upright, 20, 30, 40)
    sent = photo_of(np.ascontiguousarray(np.rot90(upright, -quarters)))

    found = finder.find_faces(sent, turned=True)

    (face,) = found.list_sent_faces()
    box = face.box
    covered = sent.pixels[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
    assert (found.quarters, box.width, box.height) == (quarters, 40, 40)
    assert covered.any(axis=2).all()
    np.testing.assert_array_equal(found.photo.pixels, upright)


def test_a_photo_with_an_upright_face_is_searched_once(finder: FaceFinder, detector: MarkDetector) -> None:
    pixels = blank(200, 150)
    mark(pixels, 20, 30, 40)

    found = finder.find_faces(photo_of(pixels), turned=True)

    assert (found.quarters, len(detector.searched)) == (0, 1)


def test_a_photo_is_not_searched_turned_unless_wanted(finder: FaceFinder, detector: MarkDetector) -> None:
    assert finder.find_faces(photo_of(blank(200, 150)), turned=False).upright == []
    assert len(detector.searched) == 1


def test_an_unsure_face_gives_way_to_a_sure_one_in_the_turned_photo(finder: FaceFinder) -> None:
    lying = blank(200, 200)
    mark(lying, 20, 30, 40)
    sent = np.ascontiguousarray(np.rot90(lying, -1))
    mark(sent, 20, 150, 40, score=0.8)

    assert finder.find_faces(photo_of(sent), turned=True).quarters == 1


def test_a_face_that_the_detector_doubts_gives_way_too(detector: MarkDetector) -> None:
    lying = blank(200, 200)
    mark(lying, 20, 30, 40)
    sent = np.ascontiguousarray(np.rot90(lying, -1))
    mark(sent, 20, 150, 40, score=0.97)
    finder = FaceFinder(detector, score_faces, min_face_px=20, max_side_px=600, sure_score=0.98)

    assert finder.find_faces(photo_of(sent), turned=True).quarters == 1


def test_an_unsure_face_is_kept_if_no_turn_shows_a_sure_one(finder: FaceFinder) -> None:
    lying = blank(200, 200)
    mark(lying, 20, 30, 40, score=0.9)
    sent = np.ascontiguousarray(np.rot90(lying, -1))
    mark(sent, 20, 150, 40, score=0.8)

    found = finder.find_faces(photo_of(sent), turned=True)

    assert (found.quarters, round(found.get_best_score(0), 1)) == (0, 0.8)


@pytest.mark.parametrize("is_tall", [True, False])
def test_faces_of_a_very_long_photo_are_found_once_in_order(finder: FaceFinder, *, is_tall: bool) -> None:
    pixels = blank(6000, 200)
    places = [10, 390, 1500, 2777, 5900]
    for left in places:
        mark(pixels, left, 60, 30)
    if is_tall:
        tall = blank(200, 6000)
        for top in places:
            mark(tall, 60, top, 30)
        pixels = tall

    found = finder.find_faces(photo_of(pixels), turned=True).list_sent_faces()

    assert sorted(face.box.top if is_tall else face.box.left for face in found) == places
    assert {(face.box.width, face.box.height) for face in found} == {(30, 30)}


def test_a_face_as_wide_as_a_long_photo_is_in_one_tile_completely(finder: FaceFinder) -> None:
    pixels = blank(100, 900)
    mark(pixels, 0, 250, 100)

    (face,) = finder.find_faces(photo_of(pixels), turned=False).upright

    assert face.box == Box(0, 250, 100, 350)


def test_tiles_are_bounded_however_long_the_photo(finder: FaceFinder, detector: MarkDetector) -> None:
    finder.find_faces(photo_of(blank(20, 30_000)), turned=True)

    assert len(detector.searched) == MAX_TILES
    height, _, min_face_px = detector.searched[0]
    assert min_face_px == pytest.approx(20 * height / 600, rel=0.01)


@pytest.mark.parametrize(
    ("width", "height", "divisor", "smallest"),
    [(200, 150, 1, 20), (200, 150, 8, 160), (1200, 800, 2, 80), (200, 800, 1, 20)],
)
def test_the_smallest_face_looked_for_is_told_in_pixels_of_the_whole_photo(
    finder: FaceFinder, detector: MarkDetector, width: int, height: int, divisor: int, smallest: float
) -> None:
    photo = DecodedPhoto(blank(width, height), divisor * width, divisor * height)

    finder.find_faces(photo, turned=False)

    assert finder.compute_smallest_face(photo) == smallest
    assert {divisor * searched for *_, searched in detector.searched} == {smallest}


def test_a_long_photo_is_decoded_as_large_as_its_tiles_need(finder: FaceFinder) -> None:
    assert finder.compute_decoding_side(4000, 3000) == 600
    assert finder.compute_decoding_side(600, 18_000) == 600 * 10


def test_of_too_many_faces_the_largest_are_kept_in_order(detector: MarkDetector) -> None:
    photo = blank(400, 300)
    for left, side in ((10, 30), (100, 60), (200, 40), (300, 50)):
        mark(photo, left, 30, side)
    finder = FaceFinder(detector, score_faces, min_face_px=20, max_side_px=600, max_faces=2)

    found = finder.find_faces(photo_of(photo), turned=True)

    assert [face.box.left for face in found.upright] == [100, 300]
    assert (len(found.scores), found.left_out) == (2, 2)
