"""How a detector that looks at a whole image once is shown images of any size.

A network finds faces between a smallest and a largest size in its own pixels. An image is scaled so that the smallest
face wanted is one the network can find, and shown again in quarters of that size while a face filling it would be too
large. Every face found is then looked at once more, at one size: there its landmarks, which decide how well it is
recognised, err least and always in the same direction, and what only looked like a face is seldom found again.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import cv2
import numpy as np

from vultus.domain import Box, DetectedFace, Pixels
from vultus.errors import WeightsError
from vultus.models.geometry import Floats, Indices, overlaps, suppress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.models.runtime import Session

MULTIPLE = 32
"""Sides of what a network is shown are multiples of its coarsest stride."""

QUARTER = 0.25
"""Of one scale to the next: far less than from the smallest to the largest face a network finds."""

BORDERED_PX = 96
"""Longer side at which a face that fills its image is shown."""

CLOSER_REACH = 0.75
"""From the middle of a face to the edges of the closer look, in sides of its box."""

SAME_FACE = 0.5
"""Boxes that overlap by at least this show one face, exactly enough to be averaged."""


@dataclass(frozen=True, slots=True)
class SearchParameters:
    """What a network sees well, and how its answers are taken.

    Attributes:
        threshold: Score a face must reach, 0..1.
        overlap: Of two boxes that overlap by more than this (intersection over union) the better one is kept.
        smallest_px: Side of the smallest face found reliably, in pixels the network sees.
        largest_px: Side of the largest one.
        closer_px: Side at which every face is looked at once more: where the network's landmarks are most exact.
        least_side_px: Images are not shrunk below this longer side.
        most_side_px: Images are never shown with a longer side than this: bounds time and memory.
        most_faces: Most faces looked at once more; the best are kept. Bounds the time a hostile texture can cost.
    """

    threshold: float
    overlap: float
    smallest_px: float
    largest_px: float
    closer_px: float
    least_side_px: int = 160
    most_side_px: int = 1280
    most_faces: int = 500


Checked = TypeVar("Checked", bound="OneShotDetector")


class Candidates(NamedTuple):
    """Possible faces, in pixels of the image the network was shown.

    Attributes:
        boxes: (n, 4) left, top, right, bottom.
        points: (n, 5, 2) landmarks, x then y, in the order of `DetectedFace`.
        scores: (n,) 0..1.
    """

    boxes: Floats
    points: Floats
    scores: Floats

    def take(self, indices: Indices | NDArray[np.bool_]) -> Candidates:
        """Return some of them, in the order of the indices."""
        return Candidates(self.boxes[indices], self.points[indices], self.scores[indices])

    def moved(self, ratio: Floats, corner: Floats) -> Candidates:
        """Return them with x and y times a (2,) ratio, then shifted by a (2,) corner."""
        boxes = self.boxes * np.tile(ratio, 2) + np.tile(corner, 2)
        return Candidates(boxes, self.points * ratio + corner, self.scores)

    def sides(self) -> Floats:
        """Return the (n,) longer sides of the boxes."""
        sides: Floats = (self.boxes[:, 2:] - self.boxes[:, :2]).max(axis=1)
        return sides


_NONE = Candidates(np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0))


def joined(parts: list[Candidates]) -> Candidates:
    """Return all candidates of several lists."""
    return Candidates(*(np.concatenate(values) for values in zip(*parts, strict=True)))


class OneShotDetector(ABC):
    """A detector over one network that sees a whole image at once."""

    def __init__(self, network: Session, parameters: SearchParameters) -> None:
        self._network = network
        self._parameters = parameters

    @abstractmethod
    def look(self, image: Pixels) -> Candidates:
        """Return the possible faces whose score reaches the threshold, overlapping ones included.

        Args:
            image: (height, width, 3) uint8, RGB, sides multiples of `MULTIPLE`.
        """

    def detect(self, pixels: Pixels, min_face_px: float) -> list[DetectedFace]:
        """Return every face once, best first, in the coordinates of `pixels`."""
        found = self._closer(pixels, self._everywhere(pixels, min_face_px))
        if not len(found.scores):
            found = self._closer(pixels, self._bordered(pixels))
        return [
            DetectedFace(Box(*map(float, box)), points.astype(np.float32), float(score))
            for box, points, score in zip(*found, strict=True)
            if max(box[2:] - box[:2]) >= min_face_px
        ]

    def _everywhere(self, pixels: Pixels, min_face_px: float) -> Candidates:
        """Return the faces of the image at the scale that shows the smallest one wanted, and at quarters of it."""
        scale, parts, view = self._scale(max(pixels.shape[:2]), min_face_px), [], pixels
        while True:
            view = _resized(view, scale * _size(pixels))
            found = self._shown(view)
            last = max(view.shape[:2]) <= self._parameters.largest_px
            if not last:
                found = found.take(found.sides() <= self._parameters.largest_px)
            parts.append(found.moved(_size(pixels) / _size(view), np.zeros(2)))
            if last:
                return self._vote(joined(parts))
            scale *= QUARTER

    def _scale(self, side: int, min_face_px: float) -> float:
        """Return how much an image with this longer side is scaled."""
        parameters = self._parameters
        wanted = max(parameters.smallest_px / min_face_px, min(1.0, parameters.least_side_px / side))
        return min(wanted, parameters.most_side_px / side)

    def _bordered(self, pixels: Pixels) -> Candidates:
        """Return the faces that fill the image: it is shown small, in the middle of a black one twice as large."""
        view = _resized(pixels, _size(pixels) * (BORDERED_PX / max(pixels.shape[:2])))
        corner = BORDERED_PX - _size(view) // 2
        ratio = _size(pixels) / _size(view)
        return self._vote(self._shown(view, 2 * BORDERED_PX, corner).moved(ratio, -ratio * corner))

    def _closer(self, pixels: Pixels, found: Candidates) -> Candidates:
        """Return the faces as they are seen once more, without those that are not."""
        again = [self._once_more(pixels, box) for box in found.boxes]
        return self._vote(joined([_NONE, *again]))

    def _once_more(self, pixels: Pixels, box: Floats) -> Candidates:
        """Return the face of a box as it is seen in the middle of its surroundings; none if it is not."""
        closer = self._parameters.closer_px
        side = math.ceil(2 * CLOSER_REACH * closer / MULTIPLE) * MULTIPLE
        scale = closer / (box[2:] - box[:2]).max()
        centre = (box[:2] + box[2:]) / 2
        first = np.maximum(np.ceil(centre - side / scale / 2), 0).astype(int)
        last = np.minimum(np.floor(centre + side / scale / 2), _size(pixels)).astype(int)
        if (last <= first).any():
            return _NONE
        view = _resized(pixels[first[1] : last[1], first[0] : last[0]], (last - first) * scale)
        corner = np.clip(np.round((first - centre) * scale + side / 2), 0, side - _size(view))
        ratio = (last - first) / _size(view)
        seen = self._vote(self._shown(view, side, corner).moved(ratio, first - ratio * corner))
        shared = overlaps(box[None], seen.boxes)[0]
        same = np.flatnonzero(shared >= SAME_FACE)
        return seen.take(same[np.argsort(-shared[same], kind="stable")[:1]])

    def _shown(self, view: Pixels, side: int = 0, corner: Floats | None = None) -> Candidates:
        """Return the possible faces of a black image with another one in it.

        Args:
            view: Any size.
            side: The black image is at least this wide and high.
            corner: (2,) where the view lies, x then y; in the black image's corner by default.
        """
        left, top = (0, 0) if corner is None else corner.astype(int).tolist()
        height, width = (-(-max(side, length) // MULTIPLE) * MULTIPLE for length in view.shape[:2])
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[top : top + view.shape[0], left : left + view.shape[1]] = view
        return self.look(canvas)

    def _vote(self, found: Candidates) -> Candidates:
        """Return every face once, best first: the mean of the candidates that agree, weighted by their scores.

        Gidaris, Komodakis (2015), "Object Detection via a Multi-Region and Semantic Segmentation-Aware CNN Model",
        ICCV, section 4: "box voting"; here landmarks are voted on too.
        """
        kept = suppress(found.boxes, found.scores, self._parameters.overlap)[: self._parameters.most_faces]
        votes = np.where(overlaps(found.boxes[kept], found.boxes) >= SAME_FACE, found.scores, 0)
        votes /= votes.sum(axis=1, keepdims=True)
        return Candidates(votes @ found.boxes, np.einsum("mn,npc->mpc", votes, found.points), found.scores[kept])


def checked(detector: Checked) -> Checked:
    """Return a detector that can look at images of any size and answers as it should.

    Raises:
        WeightsError: Its network is another one.
    """
    try:
        detector.detect(np.zeros((2 * MULTIPLE, 3 * MULTIPLE, 3), np.uint8), MULTIPLE)
    except WeightsError:
        raise
    except Exception as error:
        name = type(detector).__name__
        raise WeightsError(f"The network does not answer as {name} does; it is another network: {error}") from error
    return detector


def _size(pixels: Pixels) -> Floats:
    """Return the (2,) width and height of an image."""
    return np.array(pixels.shape[1::-1], np.float64)


def _resized(pixels: Pixels, size: Floats) -> Pixels:
    """Return an image resized to a (2,) width and height."""
    width, height = (max(1, round(float(side))) for side in size)
    if (height, width) == pixels.shape[:2]:
        return pixels
    way = cv2.INTER_AREA if width < pixels.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height), interpolation=way).astype(np.uint8, copy=False)
