"""MTCNN: proposals over an image pyramid, refined by a second network; a third one adds landmarks.

Zhang, Zhang, Li, Qiao (2016), "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
IEEE Signal Processing Letters 23(10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from vultus.domain import Box, DetectedFace, Pixels
from vultus.models.imaging.geometry import (
    Floats,
    Indices,
    compute_overlaps,
    convert_to_squares,
    shift_sides,
    suppress_non_maxima,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.models.runtime import NetworkSession

CELL_PX = 12
STRIDE = 2
REFINE_SIDE = 24
OUTPUT_SIDE = 48
BATCH_SIZE = 16

LARGE_IMAGE_PX = 1 << 17
"""Pixels of a halved image above which the last odd row or column is dropped, because halving is then faster."""

BORDERED_SIDE_PX = 96
"""Longer side to which an image is scaled when it is searched within a border."""

SMALL_FACE_RATIO = 1.25
"""In multiples of `min_face_px`: near a face narrower than this there may be others that the coarser scales miss."""

MIN_DOUBTFUL_SCORE = 0.05
"""Least refinement score of a box that may contain a small face."""

SEARCH_REGION_RATIO = 2.25
"""In multiples of `min_face_px`: side of the largest such box, and of the search region around it."""

PARTIAL_FACE_OVERLAP = 0.9
"""Least overlap with a detected face at which a box is a part of that face."""

MAX_SEARCH_REGIONS = 32
"""Above this number of regions, searching the whole image is faster."""


@dataclass(frozen=True, slots=True)
class MtcnnParameters:
    """Parameters of the cascade.

    Attributes:
        pyramid_factor: Ratio between the sides of successive pyramid images.
        thresholds: Least scores of proposals, refined boxes and final faces, 0..1.
        max_proposals: Most boxes to refine; the best are kept. Bounds the cost of a hostile texture.
        duplicate_distance: Two faces are the same if the mean distance of their landmarks is less than this fraction
            of the smaller face's side.
    """

    pyramid_factor: float
    thresholds: tuple[float, float, float]
    max_proposals: int
    duplicate_distance: float


PARAMETERS = MtcnnParameters(
    pyramid_factor=0.709, thresholds=(0.6, 0.7, 0.8), max_proposals=2000, duplicate_distance=0.25
)


class Proposals(NamedTuple):
    """Proposals of a network of the cascade.

    Attributes:
        boxes: (n, 4) left, top, right, bottom of the network's input regions.
        scores: (n,) 0..1.
        offsets: (n, 4) bounding-box regression of the sides, as fractions of width and height.
    """

    boxes: Floats
    scores: Floats
    offsets: Floats

    def select(self, indices: Indices | NDArray[np.bool_] | slice) -> Proposals:
        """Return the proposals of the indices, in their order."""
        return Proposals(self.boxes[indices], self.scores[indices], self.offsets[indices])

    def suppress_overlapping(self, overlap: float) -> Proposals:
        """Return the best of the proposals that overlap by more than `overlap`, best first."""
        return self.select(suppress_non_maxima(self.boxes, self.scores, overlap))

    def compute_corrected_squares(self) -> Floats:
        """Return the (n, 4) squares around the boxes after bounding-box regression."""
        return convert_to_squares(shift_sides(self.boxes, self.offsets))


NO_PROPOSALS = Proposals(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 4)))


class Mtcnn:
    """The cascade over three loaded networks."""

    def __init__(
        self, pnet: NetworkSession, rnet: NetworkSession, onet: NetworkSession, parameters: MtcnnParameters = PARAMETERS
    ) -> None:
        self._pnet = pnet
        self._rnet = rnet
        self._onet = onet
        self._parameters = parameters

    def detect(self, pixels: Pixels, min_face_px: float) -> list[DetectedFace]:
        """Return every face once, best first, in the coordinates of `pixels`.

        If there is none, a frame-filling face may lack the surroundings that the networks need: the image is then
        searched again, shrunk and within a black border.
        """
        faces = self._search_pyramid(pixels, min_face_px)
        return faces or [face for face in self._find_frame_filling_faces(pixels) if face.box.height >= min_face_px]

    def _find_frame_filling_faces(self, pixels: Pixels) -> list[DetectedFace]:
        """Return the frame-filling faces: those larger than half the image."""
        longer, margin = max(pixels.shape[:2]), BORDERED_SIDE_PX // 2
        size = [max(1, round(side * BORDERED_SIDE_PX / longer)) for side in pixels.shape[1::-1]]
        view = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        ratio = np.array(pixels.shape[1::-1]) / size
        found = self._search_pyramid(np.pad(view, ((margin, margin), (margin, margin), (0, 0))), BORDERED_SIDE_PX / 2)
        boxes = (_get_box_array(found) - margin) * np.tile(ratio, 2)
        return [
            DetectedFace(Box(*map(float, box)), ((face.landmarks - margin) * ratio).astype(np.float32), face.score)
            for face, box in zip(found, boxes, strict=True)
        ]

    def _search_pyramid(self, pixels: Pixels, min_face_px: float) -> list[DetectedFace]:
        """Return every face once, best first.

        Half of the pyramid's pixels are in its finest image. The next one suffices for faces of `min_face_px`, if less
        reliably; so the finest is searched last: completely if no face or a small one was found, else only around the
        boxes that the refinement network does not rule out. Faces smaller than `min_face_px` may be found, mostly where
        there is no larger one.
        """
        pyramid = ImagePyramid(pixels)
        scales = self._list_scales(pyramid, min_face_px)
        if not scales:
            return []
        proposals = [self._propose_at_scale(pyramid, scale) for scale in scales[1:]]
        refined = self._run_refinement_network(pyramid, proposals)
        faces = self._run_output_network(pyramid, refined)
        regions = self._find_doubtful_regions(refined, faces, min_face_px)
        if (
            any(face.box.width < SMALL_FACE_RATIO * min_face_px for face in faces)
            or not faces
            or len(regions) > MAX_SEARCH_REGIONS
        ):
            more = self._propose_at_scale(pyramid, scales[0])
        else:
            more = self._propose_in_regions(pyramid, regions, scales[0])
        return self._remove_duplicates(
            faces + self._run_output_network(pyramid, self._run_refinement_network(pyramid, [more]))
        )

    def _list_scales(self, pyramid: ImagePyramid, min_face_px: float) -> list[float]:
        """Return the scales at which faces of `min_face_px` or more have the size of a cell, largest first."""
        scales, scale = [], CELL_PX / min_face_px
        while pyramid.size.min() * scale >= CELL_PX:
            scales.append(scale)
            scale *= self._parameters.pyramid_factor
        return scales

    def _propose_at_scale(self, pyramid: ImagePyramid, scale: float) -> Proposals:
        """Return the proposals of one scale."""
        level, pitch = pyramid.find_level(scale)
        covered = pitch * level.shape[1::-1]
        size = np.ceil(covered * scale).astype(int)
        shrunk = cv2.resize(level, size.tolist(), interpolation=cv2.INTER_AREA)
        return self._run_proposal_network(
            np.concatenate([[0, 0], covered])[None], shrunk[None].astype(np.uint8, copy=False)
        )

    def _propose_in_regions(self, pyramid: ImagePyramid, regions: Floats, scale: float) -> Proposals:
        """Return the proposals of one scale in (n, 4) squares of one size."""
        if not len(regions):
            return NO_PROPOSALS
        regions, crops = pyramid.crop_squares(regions, round(scale * float(regions[0, 2] - regions[0, 0])))
        return self._run_proposal_network(regions, crops) if len(regions) else NO_PROPOSALS

    def _run_proposal_network(self, regions: Floats, images: NDArray[np.uint8]) -> Proposals:
        """Return the proposals in (n, height, width, 3) images of the (n, 4) regions."""
        scores, offsets = self._pnet.run(images)
        at, rows, columns = np.nonzero(scores >= self._parameters.thresholds[0])
        if len(rows) > self._parameters.max_proposals:
            best = np.argsort(-scores[at, rows, columns], kind="stable")[: self._parameters.max_proposals]
            at, rows, columns = at[best], rows[best], columns[best]
        pitches, corners = (regions[:, 2:] - regions[:, :2]) / images.shape[2:0:-1], np.tile(regions[:, :2], 2)
        cells = np.stack([columns, rows], axis=1) * float(STRIDE)
        boxes = np.concatenate([cells, cells + CELL_PX], axis=1) * np.tile(pitches, 2)[at] + corners[at]
        return Proposals(boxes, scores[at, rows, columns], offsets[at, :, rows, columns]).suppress_overlapping(0.5)

    def _run_refinement_network(self, pyramid: ImagePyramid, proposals: list[Proposals]) -> Proposals:
        """Return the refined proposals of all scales."""
        merged = Proposals(
            *(np.concatenate(parts) for parts in zip(NO_PROPOSALS, *proposals, strict=True))
        ).suppress_overlapping(0.7)
        boxes, crops = pyramid.crop_squares(
            merged.select(slice(self._parameters.max_proposals)).compute_corrected_squares(), REFINE_SIDE
        )
        return Proposals(boxes, *_run_in_batches(self._rnet, crops)) if len(boxes) else NO_PROPOSALS

    def _run_output_network(self, pyramid: ImagePyramid, refined: Proposals) -> list[DetectedFace]:
        """Return the faces among the refined proposals, possibly with duplicates."""
        good = refined.select(refined.scores >= self._parameters.thresholds[1]).suppress_overlapping(0.7)
        boxes, crops = pyramid.crop_squares(good.compute_corrected_squares(), OUTPUT_SIDE)
        if not len(boxes):
            return []
        scores, offsets, fractions = _run_in_batches(self._onet, crops)
        sides = boxes[:, 2:] - boxes[:, :2]
        points = fractions.reshape(-1, 2, 5).transpose(0, 2, 1) * sides[:, None] + boxes[:, None, :2]
        boxes = shift_sides(boxes, offsets)
        return [
            DetectedFace(Box(*map(float, boxes[i])), points[i].astype(np.float32), float(scores[i]))
            for i in np.flatnonzero(scores >= self._parameters.thresholds[2])
        ]

    def _remove_duplicates(self, faces: list[DetectedFace]) -> list[DetectedFace]:
        """Return every face once, best first."""
        if not faces:
            return []
        boxes, points = _get_box_array(faces), np.stack([face.landmarks for face in faces])
        kept = suppress_non_maxima(boxes, np.array([face.score for face in faces]), 0.7, "min")
        kept = kept[find_distinct_faces(points[kept], boxes[kept], self._parameters.duplicate_distance)]
        return [faces[i] for i in kept]

    def _find_doubtful_regions(self, refined: Proposals, faces: list[DetectedFace], min_face_px: float) -> Floats:
        """Return the (n, 4) search regions: squares that may contain a small face that was not found."""
        small = refined.boxes[:, 2] - refined.boxes[:, 0] < SEARCH_REGION_RATIO * min_face_px
        boxes = refined.select(small & (refined.scores >= MIN_DOUBTFUL_SCORE)).suppress_overlapping(0.5).boxes
        boxes = boxes[(compute_overlaps(boxes, _get_box_array(faces), "min") <= PARTIAL_FACE_OVERLAP).all(axis=1)]
        middles, half = (boxes[:, :2] + boxes[:, 2:]) / 2, SEARCH_REGION_RATIO * min_face_px / 2
        return np.concatenate([middles - half, middles + half], axis=1)


def _get_box_array(faces: list[DetectedFace]) -> Floats:
    """Return the (n, 4) boxes of faces: left, top, right, bottom."""
    sides = [(face.box.left, face.box.top, face.box.right, face.box.bottom) for face in faces]
    return np.array(sides, np.float64).reshape(-1, 4)


def _run_in_batches(session: NetworkSession, crops: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Run a network over crops in batches so small that activations stay in the CPU cache."""
    parts = [session.run(crops[start : start + BATCH_SIZE]) for start in range(0, len(crops), BATCH_SIZE)]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


class ImagePyramid:
    """Image pyramid of factor two, so that a strongly shrunk view is computed from a level already shrunk.

    The last odd row or column of a large image is dropped: OpenCV halves even images twelve times faster.

    Args:
        pixels: (height, width, 3) uint8.

    Attributes:
        size: (2,) width and height of the image.
    """

    def __init__(self, pixels: Pixels) -> None:
        self.size = np.array(pixels.shape[1::-1], dtype=np.float64)
        self._levels, self._pitches = [pixels], [np.ones(2)]
        while min(self._levels[-1].shape[:2]) >= 2 * CELL_PX:
            height, width = (side // 2 for side in self._levels[-1].shape[:2])
            whole = self._levels[-1]
            if width * height > LARGE_IMAGE_PX:
                whole = whole[: 2 * height, : 2 * width]
            half = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
            self._levels.append(half.astype(np.uint8, copy=False))
            self._pitches.append(self._pitches[-1] * whole.shape[1::-1] / (width, height))

    def find_level(self, scale: float) -> tuple[Pixels, Floats]:
        """Return the smallest level not smaller than the image at `scale`, and the (2,) size of its pixels."""
        index = min(max(0, math.floor(-math.log2(scale))), len(self._levels) - 1)
        return self._levels[index], self._pitches[index]

    def crop_squares(self, boxes: Floats, side: int) -> tuple[Floats, NDArray[np.uint8]]:
        """Crop boxes and scale each to a square; black outside the image.

        Args:
            boxes: (n, 4) left, top, right, bottom.
            side: Of the crops, pixels.

        Returns:
            The (m, 4) boxes rounded to whole pixels, without those outside the image or far larger than it, and their
            (m, side, side, 3) crops.
        """
        boxes = boxes[self._check_usable(boxes)]
        crops = np.empty((len(boxes), side, side, 3), np.uint8)
        shrunk = np.log2((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=1e-9) / side)
        levels = np.clip(np.floor(shrunk), 0, len(self._levels) - 1).astype(int)
        pitches = np.tile(np.array(self._pitches)[levels], 2)
        whole = np.round(boxes / pitches).astype(int)
        whole[:, 2:] = np.maximum(whole[:, 2:], whole[:, :2] + 1)
        for crop, level, box in zip(crops, levels.tolist(), whole.tolist(), strict=True):
            part = _crop_padded(self._levels[level], box)
            shrinks = len(part) > side
            cv2.resize(part, (side, side), crop, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return whole * pitches, crops

    def _check_usable(self, boxes: Floats) -> NDArray[np.bool_]:
        """Return the (n,) mask of boxes that cover a pixel of the image and are at most four times as large."""
        visible = np.minimum(boxes[:, 2:], self.size) - np.maximum(boxes[:, :2], 0)
        sides = boxes[:, 2:] - boxes[:, :2]
        usable: NDArray[np.bool_] = np.all((visible >= 1) & (sides <= 4 * self.size.max()), axis=1)
        return usable


def _crop_padded(pixels: Pixels, box: list[int]) -> Pixels:
    """Return the pixels of a box, black outside the image."""
    left, top, right, bottom = box
    part = pixels[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if part.shape[:2] == (bottom - top, right - left):
        return part
    canvas = np.zeros((bottom - top, right - left, 3), np.uint8)
    above, before = max(-top, 0), max(-left, 0)
    canvas[above : above + part.shape[0], before : before + part.shape[1]] = part
    return canvas


def find_distinct_faces(points: Floats, boxes: Floats, distance: float) -> Indices:
    """Return the indices of faces whose landmarks differ from those of every better face.

    Two boxes around one head overlap little if one includes the hair and the other the chin; their landmarks agree.

    Args:
        points: (n, 5, 2) landmarks, best face first.
        boxes: (n, 4) of the same faces.
        distance: Mean distance of landmarks below which two faces are the same, as a fraction of the smaller face's
            side.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    kept: list[int] = []
    for i in range(len(points)):
        distances = np.linalg.norm(points[kept] - points[i], axis=2).mean(axis=1)
        if (distances >= distance * np.minimum(sides[kept], sides[i])).all():
            kept.append(i)
    return np.array(kept, dtype=np.intp)
