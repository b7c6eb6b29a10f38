"""How a detector that looks at a whole image once is shown images of any size.

A network finds faces between a smallest and a largest size in its own pixels. An image is scaled so that the smallest
face wanted is one the network can find, and shown again in quarters of that size while a face filling it would be too
large. It is first shown with half of those pixels, at which the smallest face wanted is still seen, if less surely;
with all of them only if that shows no face, a small one, or something in doubt.

Every face found is then looked at once more, at one size: there its landmarks, which decide how well it is recognised,
err least and always in the same direction, and what only looked like a face is seldom found again.
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
from vultus.models.detection.mtcnn import Halvings
from vultus.models.imaging.geometry import Floats, Indices, overlaps, scale_of, suppress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.models.runtime import Session

MULTIPLE = 32
"""Sides of what a network is shown are multiples of its coarsest stride."""

COARSER = math.sqrt(2)
"""By how much larger a face must be to be found surely at first sight; the image then has half of the pixels."""

SMALL = 1.5
"""In smallest sides wanted: a face narrower than this may have others near it that are missed at first sight."""

QUARTER = 0.25
"""Of one scale to the next: far less than from the smallest to the largest face a network finds."""

BORDERED_PX = 96
"""Longer side at which a face that fills its image is shown."""

CLOSER_REACH = 0.75
"""From the middle of a face to the edges of what is seen of it once more, in sides of its box."""

CANDIDATES_A_FACE = 10
"""Most candidates kept, on average, for every face that may be found."""

MOST_LOOKS = 3
STEADY = math.cos(math.radians(4))
"""A tilt that changed by less than this is not looked at again."""

SAME_FACE = 0.5
"""Boxes that overlap by at least this show one face, exactly enough to be averaged."""


@dataclass(frozen=True, slots=True)
class SearchParameters:
    """What a network sees well, and how its answers are taken.

    Attributes:
        threshold: Score a face must reach, 0..1.
        doubt: Score from which on something may be a face that is seen too small.
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
    doubt: float = 0.2


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

    def moved(self, ratio: Floats, margin: float) -> Candidates:
        """Return them without a margin at the left and top, then with x and y times a (2,) ratio."""
        boxes = (self.boxes - margin) * np.tile(ratio, 2)
        return Candidates(boxes, (self.points - margin) * ratio, self.scores)

    def carried(self, matrix: Floats) -> Candidates:
        """Return them where they were before a (2, 3) similarity; boxes stay upright, around the same middle."""
        backward = np.linalg.inv(matrix[:, :2])
        middles = ((self.boxes[:, :2] + self.boxes[:, 2:]) / 2 - matrix[:, 2]) @ backward.T
        halves = (self.boxes[:, 2:] - self.boxes[:, :2]) / (2 * scale_of(matrix))
        boxes = np.concatenate([middles - halves, middles + halves], axis=1)
        return Candidates(boxes, (self.points - matrix[:, 2]) @ backward.T, self.scores)

    def usable(self) -> NDArray[np.bool_]:
        """Say of each whether its box and score are numbers above zero."""
        whole = np.isfinite(self.boxes).all(axis=1) & (self.scores > 0)
        usable: NDArray[np.bool_] = whole & (self.boxes[:, 2:] > self.boxes[:, :2]).all(axis=1)
        return usable


NONE = Candidates(np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0))


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
        """Return the possible faces whose score reaches that of a doubt, overlapping ones included.

        Args:
            image: (height, width, 3) uint8, RGB, sides multiples of `MULTIPLE`.
        """

    def detect(self, pixels: Pixels, min_face_px: float) -> list[DetectedFace]:
        """Return every face once, best first, in the coordinates of `pixels`."""
        image = Halvings(pixels)
        found = self._closer(image, self._search(image, min_face_px))
        if not len(found.scores):
            found = self._closer(image, self._bordered(image))
        return [
            DetectedFace(Box(*map(float, box)), points.astype(np.float32), float(score))
            for box, points, score in zip(*found, strict=True)
            if max(box[2:] - box[:2]) >= min_face_px
        ]

    def _search(self, image: Halvings, min_face_px: float) -> Candidates:
        """Return the faces of the image: those of a first sight, or of a second where that leaves a doubt."""
        first, second = (self._scale(image, side) for side in (COARSER * min_face_px, min_face_px))
        seen = self._everywhere(image, first)
        found = self._vote(seen)
        if first == second:
            return found
        doubtful = seen.take((seen.scores < self._parameters.threshold) & seen.usable())
        apart = (overlaps(doubtful.boxes, found.boxes, "min") < SAME_FACE).all(axis=1)
        small = found.boxes[:, 2] - found.boxes[:, 0] < SMALL * min_face_px
        if len(found.scores) and not apart.any() and not small.any():
            return found
        return self._vote(self._everywhere(image, second))

    def _scale(self, image: Halvings, face_px: float) -> float:
        """Return the scale at which a face of `face_px` is found surely, within the bounds of what is shown."""
        parameters, longer = self._parameters, image.size.max()
        scale = max(parameters.smallest_px / face_px, min(1.0, parameters.least_side_px / longer))
        return float(min(scale, parameters.most_side_px / longer))

    def _everywhere(self, image: Halvings, scale: float) -> Candidates:
        """Return the possible faces of the image at a scale, and at quarters of it."""
        scales = [scale]
        while image.size.max() * scales[-1] > self._parameters.largest_px:
            scales.append(scales[-1] * QUARTER)
        return joined([self._shown(image, scale) for scale in scales])

    def _bordered(self, image: Halvings) -> Candidates:
        """Return the faces that fill the image: it is shown small, in the middle of a black one twice as large."""
        return self._vote(self._shown(image, BORDERED_PX / image.size.max(), margin=BORDERED_PX // 2))

    def _shown(self, image: Halvings, scale: float, margin: int = 0) -> Candidates:
        """Return the possible faces of the whole image at a scale, with a black margin around it."""
        level, pitch = image.at_least(scale)
        covered = pitch * level.shape[1::-1]
        width, height = np.maximum(np.round(covered * scale), 1).astype(int).tolist()
        view = cv2.resize(level, (width, height), interpolation=cv2.INTER_AREA)
        last = [-(side + 2 * margin) % MULTIPLE + margin for side in (height, width)]
        framed = np.pad(view, ((margin, last[0]), (margin, last[1]), (0, 0)))
        return self.look(framed.astype(np.uint8, copy=False)).moved(covered / (width, height), margin)

    def _closer(self, image: Halvings, found: Candidates) -> Candidates:
        """Return the faces as they are seen once more, without those that are not."""
        again = [self._steady(image, box, points) for box, points in zip(found.boxes, found.points, strict=True)]
        return self._vote(joined([NONE, *again]))

    def _steady(self, image: Halvings, box: Floats, points: Floats) -> Candidates:
        """Return a face as it is seen once its tilt is seen no differently; none if it is not seen again.

        Networks trained on upright faces take a tilted one for less tilted than it is, and misplace its landmarks.
        """
        seen = NONE
        for _ in range(MOST_LOOKS):
            turn = _direction(points)
            seen = self._once_more(image, box, turn)
            if not len(seen.scores):
                break
            box, points = seen.boxes[0], seen.points[0]
            if turn @ _direction(points) > STEADY:
                break
        return seen

    def _once_more(self, image: Halvings, box: Floats, direction: Floats) -> Candidates:
        """Return a face as it is seen upright in the middle of its surroundings; none if it is not.

        Args:
            image: To look at.
            box: (4,) around the face.
            direction: (2,) of length 1, across the face from its left in the image to its right.
        """
        side = math.ceil(2 * CLOSER_REACH * self._parameters.closer_px / MULTIPLE) * MULTIPLE
        scale = self._parameters.closer_px / (box[2:] - box[:2]).max()
        turn = scale * direction
        matrix = np.array([[turn[0], turn[1], 0], [-turn[1], turn[0], 0]])
        matrix[:, 2] = side / 2 - matrix[:, :2] @ ((box[:2] + box[2:]) / 2)
        seen = self._vote(self.look(_cut(image, matrix, scale, side)).carried(matrix))
        shared = overlaps(box[None], seen.boxes)[0]
        same = np.flatnonzero(shared >= SAME_FACE)
        return seen.take(same[np.argsort(-shared[same], kind="stable")[:1]])

    def _vote(self, found: Candidates) -> Candidates:
        """Return every face once, best first: the mean of the candidates that agree, weighted by their scores.

        Gidaris, Komodakis (2015), "Object Detection via a Multi-Region and Semantic Segmentation-Aware CNN Model",
        ICCV, section 4: "box voting"; here landmarks are voted on too.
        """
        found = found.take(found.usable() & (found.scores >= self._parameters.threshold))
        found = found.take(np.argsort(-found.scores, kind="stable")[: CANDIDATES_A_FACE * self._parameters.most_faces])
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


def _direction(points: Floats) -> Floats:
    """Return the direction, (2,) of length 1, of a face's eyes and mouth: from the image's left to its right."""
    across = points[1] - points[0] + points[4] - points[3]
    angle = math.atan2(across[1], across[0])
    return np.array([math.cos(angle), math.sin(angle)])


def _cut(image: Halvings, matrix: Floats, scale: float, side: int) -> Pixels:
    """Return the (side, side, 3) pixels a (2, 3) similarity carries there, black outside the image."""
    level, pitch = image.at_least(scale)
    moved = matrix.copy()
    moved[:, :2] *= pitch
    # OpenCV counts from the centre of the first pixel, this package from its corner.
    moved[:, 2] += (moved[:, 0] + moved[:, 1]) / 2 - 0.5
    return cv2.warpAffine(level, moved, (side, side), flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
