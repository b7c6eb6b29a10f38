"""How a photo is searched for faces: in overlapping tiles if it is very long, and turned if no face is upright."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import Box, DetectedFace
from vultus.models.imaging.decoding import DecodedPhoto
from vultus.models.imaging.geometry import suppress_non_maxima
from vultus.models.imaging.turning import QUARTER_TURNS, turn_face_back, turn_photo

if TYPE_CHECKING:
    from vultus.domain import Pixels
    from vultus.models.detection import Detector

MAX_ASPECT = 3.0
"""Longer side of a tile, in shorter sides; a photo with longer sides than this is searched in tiles."""

TILE_STEP = 2.0
"""Distance of successive tiles, in shorter sides: a face as wide as the photo is in one of them completely."""

MAX_TILES = 24
"""Tiles of one photo; beyond, they are longer than `MAX_ASPECT` and smaller faces are missed. Bounds the work."""

WHOLE_FACE_MARGIN = 0.75
"""Distance from the centre of a face to the edge of a tile, in sides of its box, beyond which it is not cut."""

SAME_FACE_OVERLAP = 0.5
"""Share of the smaller box from which boxes of two tiles are one face, which the edge of a tile may have cut."""


CONFIRMED_SCORE = 0.95
"""Face score from which a face is certainly upright.

Detectors find upside-down faces too, with landmarks in wrong places: YuNet 68 of 80, with a face score below this for
nine in ten. Of 4,010 upright faces of LFW, UTK and NUAA 8 are below it.
"""

ScoreFaces = Callable[[DecodedPhoto, list[DetectedFace]], list[float]]
"""Returns the face score of each of the faces of a photo, 0..1: see `Quality.face_score`."""


@dataclass(frozen=True, slots=True)
class FoundFaces:
    """Faces of a photo, left to right in the photo as it was sent.

    Attributes:
        photo: Turned so that the faces are upright.
        quarters: By which it was turned counterclockwise, 0..3.
        upright: The faces, in pixels of the turned photo at full size.
        scores: Their face scores, 0..1.
        left_out: How many smaller faces were found beyond the limit.
    """

    photo: DecodedPhoto
    quarters: int
    upright: list[DetectedFace]
    scores: list[float]
    left_out: int = 0

    def get_best_score(self, min_detection_score: float) -> float:
        """Return the highest face score of the faces of which the detector is sure; 0 without one."""
        sure = zip(self.upright, self.scores, strict=True)
        return max((score for face, score in sure if face.score >= min_detection_score), default=0.0)

    def list_sent_faces(self) -> list[DetectedFace]:
        """Return the faces in pixels of the photo as it was sent."""
        width, height = self.photo.width, self.photo.height
        if self.quarters % 2:
            width, height = height, width
        return [turn_face_back(face, self.quarters, width, height) for face in self.upright]


class FaceFinder:
    """Searches photos with one detector; safe for concurrent use by several threads.

    Args:
        detector: Finds faces in an image.
        score_faces: Tells upright faces from turned ones and from other things.
        min_face_px: Smallest face to find, in pixels of a photo, or of a tile, scaled to at most `max_side_px`.
        max_side_px: Longer side, pixels.
        sure_score: The detector's score, 0..1, from which a face may be certainly upright.
        max_faces: Faces of a photo that are kept, the largest.
    """

    def __init__(
        self,
        detector: Detector,
        score_faces: ScoreFaces,
        *,
        min_face_px: float,
        max_side_px: int,
        sure_score: float = 0.0,
        max_faces: int | None = None,
    ) -> None:
        self.detector = detector
        self._score_faces = score_faces
        self.min_face_px = min_face_px
        self._max_side_px = max_side_px
        self._sure_score = sure_score
        self._max_faces = max_faces

    def compute_decoding_side(self, width: int, height: int) -> int:
        """Return the longer side, in pixels, that suffices to search a photo of a width and height."""
        longer, shorter = max(width, height), min(width, height)
        return math.ceil(self._max_side_px * longer / _compute_tile_length(longer, shorter))

    def compute_smallest_face(self, photo: DecodedPhoto) -> float:
        """Return the width of the smallest face that is looked for in a photo, in pixels of the photo at full size."""
        return float(self._compute_min_face(photo) * photo.width / photo.pixels.shape[1])

    def _compute_min_face(self, photo: DecodedPhoto) -> float:
        height, width = photo.pixels.shape[:2]
        length = _compute_tile_length(max(height, width), min(height, width))
        return self.min_face_px * max(1.0, length / self._max_side_px)

    def find_faces(self, photo: DecodedPhoto, *, turned: bool) -> FoundFaces:
        """Return every face of a photo.

        Args:
            photo: Decoded to at least `compute_decoding_side`.
            turned: Whether to search the photo turned too if no face is certainly upright; very long ones are not.
        """
        found = self._search_turned_photo(photo, 0)
        is_long = max(photo.width, photo.height) > MAX_ASPECT * min(photo.width, photo.height)
        if not turned or is_long or found.get_best_score(self._sure_score) >= CONFIRMED_SCORE:
            return found
        best = found
        for quarters in QUARTER_TURNS:  # one turned copy of the pixels at a time, besides the best
            other = self._search_turned_photo(photo, quarters)
            if other.get_best_score(self._sure_score) > best.get_best_score(self._sure_score):
                best = other
        return best if best.get_best_score(self._sure_score) >= CONFIRMED_SCORE else found

    def _search_turned_photo(self, photo: DecodedPhoto, quarters: int) -> FoundFaces:
        """Return the faces that are upright once the photo is turned counterclockwise by quarters of a circle, 0..3."""
        view = turn_photo(photo, quarters)
        found = self._search_photo(view)
        # Before anything else is computed for them: every further stage takes as long as there are faces.
        upright = sorted(found, key=lambda face: min(face.box.width, face.box.height), reverse=True)[: self._max_faces]
        upright.sort(key=lambda face: turn_face_back(face, quarters, photo.width, photo.height).box.left)
        return FoundFaces(view, quarters, upright, self._score_faces(view, upright), len(found) - len(upright))

    def _search_photo(self, photo: DecodedPhoto) -> list[DetectedFace]:
        """Return the upright faces of a photo, in pixels of the photo at full size."""
        height, width = photo.pixels.shape[:2]
        factor = np.array([photo.width / width, photo.height / height])
        # The detector shrinks its input itself: its cost depends on the smallest face to find, not on the pixels.
        length = _compute_tile_length(max(height, width), min(height, width))
        min_face_px = self._compute_min_face(photo)
        if length >= max(height, width):
            found = self.detector.detect(photo.pixels, min_face_px)
        else:
            found = self._search_tiles(photo.pixels, length, min_face_px)
        return [scale_face(face, factor) for face in found]

    def _search_tiles(self, pixels: Pixels, length: float, min_face_px: float) -> list[DetectedFace]:
        """Return every face of a very long image once, found in overlapping tiles.

        Args:
            pixels: (height, width, 3) uint8.
            length: Of a tile along the longer side, pixels.
            min_face_px: Smallest face to find, in pixels of the image.
        """
        axis = int(pixels.shape[1] > pixels.shape[0])
        longer, shorter = max(pixels.shape[:2]), min(pixels.shape[:2])
        count = math.ceil((longer - length) / (length - (MAX_ASPECT - TILE_STEP) * shorter)) + 1
        found: list[DetectedFace] = []
        ranks: list[float] = []
        for start in np.linspace(0, longer - length, count).round().astype(int).tolist():
            end = min(longer, start + math.ceil(length))
            tile = pixels[:, start:end] if axis else pixels[start:end]
            for face in self.detector.detect(np.ascontiguousarray(tile), min_face_px):
                centre = face.box.centre[1 - axis]
                # A face that the edge of a tile may have cut ranks below the same face in the next tile.
                margin = min(centre if start else math.inf, end - start - centre if end < longer else math.inf)
                found.append(_shift_face(face, *((start, 0) if axis else (0, start))))
                ranks.append(face.score + (margin > WHOLE_FACE_MARGIN * max(face.box.width, face.box.height)))
        boxes = np.array([(box.left, box.top, box.right, box.bottom) for box in (face.box for face in found)])
        kept = suppress_non_maxima(boxes.reshape(-1, 4), np.array(ranks), SAME_FACE_OVERLAP, "min")
        return [found[at] for at in kept]


def scale_face(face: DetectedFace, factor: np.ndarray) -> DetectedFace:
    """Return a face in the pixels of a scaled image: x and y are multiplied by the (2,) factor."""
    x, y = map(float, factor)
    box = Box(face.box.left * x, face.box.top * y, face.box.right * x, face.box.bottom * y)
    return replace(face, box=box, landmarks=(face.landmarks * factor).astype(np.float32))


def _compute_tile_length(longer: float, shorter: float) -> float:
    """Return the length of a tile along the longer side; the longer side itself if the image is not very long."""
    if longer <= MAX_ASPECT * shorter:
        return longer
    overlap = (MAX_ASPECT - TILE_STEP) * shorter
    return max(MAX_ASPECT * shorter, (longer - overlap) / MAX_TILES + overlap)


def _shift_face(face: DetectedFace, right: int, down: int) -> DetectedFace:
    box = Box(face.box.left + right, face.box.top + down, face.box.right + right, face.box.bottom + down)
    return replace(face, box=box, landmarks=face.landmarks + np.array([right, down], np.float32))
