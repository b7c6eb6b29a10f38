"""Single-shot detectors: the scales at which an image of any size becomes the network's input.

A network finds faces between a smallest and a largest size in pixels of its input. An image is scaled so that the
smallest face to find is one the network detects; further pyramid levels, each a quarter of the scale, follow while a
frame-filling face would be too large. The first pass uses half of those pixels, at which the smallest face is still
detected, if less reliably; a second pass uses all of them if the first finds no face, a small one, or a low-confidence
detection.

Every face is then refined in a crop at a fixed size: there its landmarks, which determine how well it is recognised,
have the smallest and most consistent errors, and false positives are rarely confirmed.
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
from vultus.models.detection.mtcnn import ImagePyramid
from vultus.models.imaging.geometry import (
    Floats,
    Indices,
    compute_overlaps,
    compute_transform_scale,
    suppress_non_maxima,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.models.runtime import NetworkSession

SIDE_MULTIPLE_PX = 32
"""Coarsest stride of the networks; the sides of their input are multiples of it."""

FIRST_PASS_FACE_RATIO = math.sqrt(2)
"""Size of a face that the first pass detects reliably, relative to `min_face_px`; it uses half of the pixels."""

SMALL_FACE_RATIO = 1.5
"""In multiples of `min_face_px`: near a face narrower than this there may be others that the first pass misses."""

SCALE_STEP = 0.25
"""Ratio of successive scales: the range of face sizes that a network finds is far wider."""

BORDERED_SIDE_PX = 96
"""Longer side to which an image is scaled to find a frame-filling face."""

REFINEMENT_REACH = 0.75
"""Distance from the centre of a face to the edges of its refinement crop, in sides of its box."""

DETECTIONS_PER_FACE = 10
"""Most detections kept before suppression, per face of `max_faces`."""

MAX_REFINEMENTS = 3
STABLE_TILT_COSINE = math.cos(math.radians(4))
"""Cosine of the change of tilt below which refinement stops."""

SAME_FACE_OVERLAP = 0.5
"""Boxes that overlap by at least this are the same face, and accurate enough to be averaged."""


@dataclass(frozen=True, slots=True)
class DetectionParameters:
    """The face sizes that a network detects, and the limits applied to its outputs.

    Attributes:
        threshold: Least score of a face, 0..1.
        min_doubtful_score: Least score of a low-confidence detection, which may be a face at too small a scale.
        max_overlap: Of two boxes that overlap by more than this (intersection over union) the better one is kept.
        min_detectable_px: Side of the smallest face detected reliably, in pixels of the network's input.
        max_detectable_px: Side of the largest one.
        refinement_px: Side of every face in its refinement crop, where the network's landmarks are most accurate.
        min_side_px: Least longer side to which images are shrunk.
        max_side_px: Largest longer side of the network's input: bounds time and memory.
        max_faces: Most faces to refine; the best are kept. Bounds the cost of a hostile texture.
    """

    threshold: float
    max_overlap: float
    min_detectable_px: float
    max_detectable_px: float
    refinement_px: float
    min_side_px: int = 160
    max_side_px: int = 1280
    max_faces: int = 500
    min_doubtful_score: float = 0.2


DetectorT = TypeVar("DetectorT", bound="SingleShotDetector")


class Detections(NamedTuple):
    """Detections, in pixels of the network's input or of the image.

    Attributes:
        boxes: (n, 4) left, top, right, bottom.
        landmarks: (n, 5, 2) x then y, in the order of `DetectedFace`.
        scores: (n,) 0..1.
    """

    boxes: Floats
    landmarks: Floats
    scores: Floats

    def select(self, indices: Indices | NDArray[np.bool_]) -> Detections:
        """Return the detections of the indices, in their order."""
        return Detections(self.boxes[indices], self.landmarks[indices], self.scores[indices])

    def remove_margin(self, ratio: Floats, margin: float) -> Detections:
        """Return the detections with a left and top margin subtracted, then x and y multiplied by the (2,) ratio."""
        boxes = (self.boxes - margin) * np.tile(ratio, 2)
        return Detections(boxes, (self.landmarks - margin) * ratio, self.scores)

    def undo_similarity(self, matrix: Floats) -> Detections:
        """Return the detections before a (2, 3) similarity was applied; boxes stay upright, around their centres."""
        backward = np.linalg.inv(matrix[:, :2])
        middles = ((self.boxes[:, :2] + self.boxes[:, 2:]) / 2 - matrix[:, 2]) @ backward.T
        halves = (self.boxes[:, 2:] - self.boxes[:, :2]) / (2 * compute_transform_scale(matrix))
        boxes = np.concatenate([middles - halves, middles + halves], axis=1)
        return Detections(boxes, (self.landmarks - matrix[:, 2]) @ backward.T, self.scores)

    def check_usable(self) -> NDArray[np.bool_]:
        """Return the (n,) mask of detections with a finite, non-empty box and a score above zero."""
        whole = np.isfinite(self.boxes).all(axis=1) & (self.scores > 0)
        usable: NDArray[np.bool_] = whole & (self.boxes[:, 2:] > self.boxes[:, :2]).all(axis=1)
        return usable


NO_DETECTIONS = Detections(np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0))


def concatenate_detections(parts: list[Detections]) -> Detections:
    """Return the detections of several lists as one."""
    return Detections(*(np.concatenate(values) for values in zip(*parts, strict=True)))


class SingleShotDetector(ABC):
    """A detector over one network whose input is the whole image."""

    def __init__(self, session: NetworkSession, parameters: DetectionParameters) -> None:
        self._session = session
        self._parameters = parameters

    @abstractmethod
    def compute_detections(self, image: Pixels) -> Detections:
        """Return the detections before suppression whose score is at least `min_doubtful_score`.

        Args:
            image: (height, width, 3) uint8, RGB, sides multiples of `SIDE_MULTIPLE_PX`.
        """

    def detect(self, pixels: Pixels, min_face_px: float) -> list[DetectedFace]:
        """Return every face once, best first, in the coordinates of `pixels`."""
        image = ImagePyramid(pixels)
        found = self._refine_faces(image, self._search_image(image, min_face_px))
        if not len(found.scores):
            found = self._refine_faces(image, self._find_frame_filling_faces(image))
        return [
            DetectedFace(Box(*map(float, box)), points.astype(np.float32), float(score))
            for box, points, score in zip(*found, strict=True)
            if max(box[2:] - box[:2]) >= min_face_px
        ]

    def _search_image(self, image: ImagePyramid, min_face_px: float) -> Detections:
        """Return the faces of the first pass, or of the second if the first is inconclusive, best first."""
        first_scale, second_scale = (
            self._compute_scale(image, side) for side in (FIRST_PASS_FACE_RATIO * min_face_px, min_face_px)
        )
        detections = self._run_at_all_scales(image, first_scale)
        found = self._merge_by_voting(detections)
        if first_scale == second_scale:
            return found
        doubtful = detections.select((detections.scores < self._parameters.threshold) & detections.check_usable())
        unmatched = (compute_overlaps(doubtful.boxes, found.boxes, "min") < SAME_FACE_OVERLAP).all(axis=1)
        small = found.boxes[:, 2] - found.boxes[:, 0] < SMALL_FACE_RATIO * min_face_px
        if len(found.scores) and not unmatched.any() and not small.any():
            return found
        return self._merge_by_voting(self._run_at_all_scales(image, second_scale))

    def _compute_scale(self, image: ImagePyramid, face_px: float) -> float:
        """Return the scale at which a face of `face_px` is detected reliably, within the limits of the input."""
        parameters, longer = self._parameters, image.size.max()
        scale = max(parameters.min_detectable_px / face_px, min(1.0, parameters.min_side_px / longer))
        return float(min(scale, parameters.max_side_px / longer))

    def _run_at_all_scales(self, image: ImagePyramid, scale: float) -> Detections:
        """Return the detections at a scale and at further pyramid levels, each a quarter of the scale."""
        scales = [scale]
        while image.size.max() * scales[-1] > self._parameters.max_detectable_px:
            scales.append(scales[-1] * SCALE_STEP)
        return concatenate_detections([self._run_at_scale(image, scale) for scale in scales])

    def _find_frame_filling_faces(self, image: ImagePyramid) -> Detections:
        """Return the frame-filling faces: the image is shrunk and centred in a black one twice as large."""
        return self._merge_by_voting(
            self._run_at_scale(image, BORDERED_SIDE_PX / image.size.max(), margin=BORDERED_SIDE_PX // 2)
        )

    def _run_at_scale(self, image: ImagePyramid, scale: float, margin: int = 0) -> Detections:
        """Return the detections in the whole image at a scale, with a black margin around it."""
        level, pitch = image.find_level(scale)
        covered = pitch * level.shape[1::-1]
        width, height = np.maximum(np.round(covered * scale), 1).astype(int).tolist()
        view = cv2.resize(level, (width, height), interpolation=cv2.INTER_AREA)
        last = [-(side + 2 * margin) % SIDE_MULTIPLE_PX + margin for side in (height, width)]
        framed = np.pad(view, ((margin, last[0]), (margin, last[1]), (0, 0)))
        return self.compute_detections(framed.astype(np.uint8, copy=False)).remove_margin(
            covered / (width, height), margin
        )

    def _refine_faces(self, image: ImagePyramid, found: Detections) -> Detections:
        """Return the refined faces, without those that are not confirmed, best first."""
        refined = [
            self._refine_until_stable(image, box, points)
            for box, points in zip(found.boxes, found.landmarks, strict=True)
        ]
        return self._merge_by_voting(concatenate_detections([NO_DETECTIONS, *refined]))

    def _refine_until_stable(self, image: ImagePyramid, box: Floats, points: Floats) -> Detections:
        """Return a face refined until its tilt is stable, `MAX_REFINEMENTS` times at most; empty if not confirmed.

        Networks trained on upright faces underestimate the tilt of a face, and misplace its landmarks.
        """
        refined = NO_DETECTIONS
        for _ in range(MAX_REFINEMENTS):
            direction = _compute_face_direction(points)
            refined = self._find_upright_face(image, box, direction)
            if not len(refined.scores):
                break
            box, points = refined.boxes[0], refined.landmarks[0]
            if direction @ _compute_face_direction(points) > STABLE_TILT_COSINE:
                break
        return refined

    def _find_upright_face(self, image: ImagePyramid, box: Floats, direction: Floats) -> Detections:
        """Return the face detected in an upright crop around a box; empty if there is none.

        Args:
            image: To crop.
            box: (4,) around the face.
            direction: (2,) unit vector across the face, from the image's left to its right.
        """
        side = math.ceil(2 * REFINEMENT_REACH * self._parameters.refinement_px / SIDE_MULTIPLE_PX) * SIDE_MULTIPLE_PX
        scale = self._parameters.refinement_px / (box[2:] - box[:2]).max()
        turn = scale * direction
        matrix = np.array([[turn[0], turn[1], 0], [-turn[1], turn[0], 0]])
        matrix[:, 2] = side / 2 - matrix[:, :2] @ ((box[:2] + box[2:]) / 2)
        found = self._merge_by_voting(
            self.compute_detections(_crop_by_similarity(image, matrix, scale, side)).undo_similarity(matrix)
        )
        overlaps = compute_overlaps(box[None], found.boxes)[0]
        same = np.flatnonzero(overlaps >= SAME_FACE_OVERLAP)
        return found.select(same[np.argsort(-overlaps[same], kind="stable")[:1]])

    def _merge_by_voting(self, found: Detections) -> Detections:
        """Return every face once, best first: the mean of its overlapping detections, weighted by their scores.

        Gidaris, Komodakis (2015), "Object Detection via a Multi-Region and Semantic Segmentation-Aware CNN Model",
        ICCV, section 4: "box voting"; here landmarks are voted on too.
        """
        found = found.select(found.check_usable() & (found.scores >= self._parameters.threshold))
        found = found.select(
            np.argsort(-found.scores, kind="stable")[: DETECTIONS_PER_FACE * self._parameters.max_faces]
        )
        kept = suppress_non_maxima(found.boxes, found.scores, self._parameters.max_overlap)[
            : self._parameters.max_faces
        ]
        votes = np.where(compute_overlaps(found.boxes[kept], found.boxes) >= SAME_FACE_OVERLAP, found.scores, 0)
        votes /= votes.sum(axis=1, keepdims=True)
        return Detections(votes @ found.boxes, np.einsum("mn,npc->mpc", votes, found.landmarks), found.scores[kept])


def validate_detector(detector: DetectorT) -> DetectorT:
    """Return the detector; raise unless its network accepts images of any size and has the expected outputs.

    Raises:
        WeightsError: Its network is another one.
    """
    try:
        detector.detect(np.zeros((2 * SIDE_MULTIPLE_PX, 3 * SIDE_MULTIPLE_PX, 3), np.uint8), SIDE_MULTIPLE_PX)
    except WeightsError:
        raise
    except Exception as error:
        name = type(detector).__name__
        raise WeightsError(f"The network does not answer as {name} does; it is another network: {error}") from error
    return detector


def _compute_face_direction(points: Floats) -> Floats:
    """Return the (2,) unit vector of a face's eyes and mouth, from the image's left to its right."""
    across = points[1] - points[0] + points[4] - points[3]
    angle = math.atan2(across[1], across[0])
    return np.array([math.cos(angle), math.sin(angle)])


def _crop_by_similarity(image: ImagePyramid, matrix: Floats, scale: float, side: int) -> Pixels:
    """Return the (side, side, 3) crop to which a (2, 3) similarity maps the image, black outside it."""
    level, pitch = image.find_level(scale)
    moved = matrix.copy()
    moved[:, :2] *= pitch
    # OpenCV's coordinates start at the centre of the first pixel, this package's at its corner.
    moved[:, 2] += (moved[:, 0] + moved[:, 1]) / 2 - 0.5
    return cv2.warpAffine(level, moved, (side, side), flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
