"""MTCNN: proposals over an image pyramid, refined and given landmarks by two more networks.

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
from vultus.models.imaging.geometry import Floats, Indices, overlaps, shift_sides, squares, suppress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.models.runtime import Session

CELL = 12
STRIDE = 2
REFINE_SIDE = 24
OUTPUT_SIDE = 48
BATCH = 16

LARGE_PX = 1 << 17
"""Pixels of the half from which on an odd row is not worth the slower way to halve an image."""

BORDERED_PX = 96
"""Longer side at which an image is looked at within a border."""

SMALL = 1.25
"""In smallest sides wanted: a face narrower than this may have others near it that the coarser scales miss."""

DOUBT = 0.05
"""Score of the refinement network from which on a box may surround a small face."""

PLACE = 2.25
"""In smallest sides wanted: the largest such box, and the square in which that face is looked for."""

PART = 0.9
"""Overlap with a face that was found from which on a box shows a part of that face."""

MOST_PLACES = 32
"""Looking closer in more squares takes longer than looking everywhere."""


@dataclass(frozen=True, slots=True)
class MtcnnParameters:
    """How the cascade decides.

    Attributes:
        pyramid_factor: Ratio between the sides of neighbouring pyramid images.
        thresholds: Scores that proposals, refined boxes and final faces must reach, 0..1.
        max_proposals: Most boxes refined; the best are kept. Bounds the time a hostile texture can cost.
        duplicate_distance: Two faces are the same when their landmarks differ on average by less than this fraction
            of the smaller face's side.
    """

    pyramid_factor: float
    thresholds: tuple[float, float, float]
    max_proposals: int
    duplicate_distance: float


PARAMETERS = MtcnnParameters(
    pyramid_factor=0.709, thresholds=(0.6, 0.7, 0.8), max_proposals=2000, duplicate_distance=0.25
)


class Candidates(NamedTuple):
    """What a network of the cascade took for faces.

    Attributes:
        boxes: (n, 4) that it was shown.
        scores: (n,) 0..1.
        offsets: (n, 4) by which it would move the sides, as fractions of the box's.
    """

    boxes: Floats
    scores: Floats
    offsets: Floats

    def take(self, indices: Indices | NDArray[np.bool_] | slice) -> Candidates:
        """Return some of them, in the order of the indices."""
        return Candidates(self.boxes[indices], self.scores[indices], self.offsets[indices])

    def best(self, overlap: float) -> Candidates:
        """Return the best of those that overlap by more than `overlap`, best first."""
        return self.take(suppress(self.boxes, self.scores, overlap))

    def corrected(self) -> Floats:
        """Return the (n, 4) squares around the boxes with their sides moved."""
        return squares(shift_sides(self.boxes, self.offsets))


NONE = Candidates(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 4)))


class Mtcnn:
    """The cascade over three loaded networks."""

    def __init__(self, pnet: Session, rnet: Session, onet: Session, parameters: MtcnnParameters = PARAMETERS) -> None:
        self._pnet = pnet
        self._rnet = rnet
        self._onet = onet
        self._parameters = parameters

    def detect(self, pixels: Pixels, min_face_px: float) -> list[DetectedFace]:
        """Return every face once, best first, in the coordinates of `pixels`.

        Where there is none, a face may fill the image so far that none of its surroundings are left: the image is then
        looked at small, within a black border.
        """
        faces = self._search(pixels, min_face_px)
        return faces or [face for face in self._bordered(pixels) if face.box.height >= min_face_px]

    def _bordered(self, pixels: Pixels) -> list[DetectedFace]:
        """Return the faces that are larger than half the image."""
        longer, margin = max(pixels.shape[:2]), BORDERED_PX // 2
        size = [max(1, round(side * BORDERED_PX / longer)) for side in pixels.shape[1::-1]]
        view = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        ratio = np.array(pixels.shape[1::-1]) / size
        found = self._search(np.pad(view, ((margin, margin), (margin, margin), (0, 0))), BORDERED_PX / 2)
        boxes = (_boxes(found) - margin) * np.tile(ratio, 2)
        return [
            DetectedFace(Box(*map(float, box)), ((face.landmarks - margin) * ratio).astype(np.float32), face.score)
            for face, box in zip(found, boxes, strict=True)
        ]

    def _search(self, pixels: Pixels, min_face_px: float) -> list[DetectedFace]:
        """Return every face once, best first.

        The finest image of the pyramid has half of its pixels. The next one shows faces of `min_face_px` too, if less
        surely; so the finest is searched last: everywhere if no face was found yet or a small one, else only around
        what the refinement network does not rule out. A face smaller than `min_face_px` may be found, most often where
        no larger one is.
        """
        pyramid = Halvings(pixels)
        scales = self._scales(pyramid, min_face_px)
        if not scales:
            return []
        seen = self._refine(pyramid, [self._propose_at(pyramid, scale) for scale in scales[1:]])
        faces = self._finish(pyramid, seen)
        places = self._doubtful(seen, faces, min_face_px)
        if any(face.box.width < SMALL * min_face_px for face in faces) or not faces or len(places) > MOST_PLACES:
            more = self._propose_at(pyramid, scales[0])
        else:
            more = self._propose_in(pyramid, places, scales[0])
        return self._distinct(faces + self._finish(pyramid, self._refine(pyramid, [more])))

    def _scales(self, pyramid: Halvings, min_face_px: float) -> list[float]:
        """Return the scales at which a face of at least `min_face_px` is as large as a cell, largest first."""
        scales, scale = [], CELL / min_face_px
        while pyramid.size.min() * scale >= CELL:
            scales.append(scale)
            scale *= self._parameters.pyramid_factor
        return scales

    def _propose_at(self, pyramid: Halvings, scale: float) -> Candidates:
        """Return the proposals of one scale."""
        level, pitch = pyramid.at_least(scale)
        covered = pitch * level.shape[1::-1]
        size = np.ceil(covered * scale).astype(int)
        shrunk = cv2.resize(level, size.tolist(), interpolation=cv2.INTER_AREA)
        return self._propose(np.concatenate([[0, 0], covered])[None], shrunk[None].astype(np.uint8, copy=False))

    def _propose_in(self, pyramid: Halvings, places: Floats, scale: float) -> Candidates:
        """Return the proposals of one scale in (n, 4) squares of one size."""
        if not len(places):
            return NONE
        places, crops = pyramid.cut(places, round(scale * float(places[0, 2] - places[0, 0])))
        return self._propose(places, crops) if len(places) else NONE

    def _propose(self, places: Floats, images: NDArray[np.uint8]) -> Candidates:
        """Return the proposals in (n, height, width, 3) images of the (n, 4) places."""
        scores, offsets = self._pnet.run(images)
        at, rows, columns = np.nonzero(scores >= self._parameters.thresholds[0])
        if len(rows) > self._parameters.max_proposals:
            best = np.argsort(-scores[at, rows, columns], kind="stable")[: self._parameters.max_proposals]
            at, rows, columns = at[best], rows[best], columns[best]
        pitches, corners = (places[:, 2:] - places[:, :2]) / images.shape[2:0:-1], np.tile(places[:, :2], 2)
        cells = np.stack([columns, rows], axis=1) * float(STRIDE)
        boxes = np.concatenate([cells, cells + CELL], axis=1) * np.tile(pitches, 2)[at] + corners[at]
        return Candidates(boxes, scores[at, rows, columns], offsets[at, :, rows, columns]).best(0.5)

    def _refine(self, pyramid: Halvings, proposals: list[Candidates]) -> Candidates:
        """Return what the refinement network says of the proposals of all scales."""
        merged = Candidates(*(np.concatenate(parts) for parts in zip(NONE, *proposals, strict=True))).best(0.7)
        boxes, crops = pyramid.cut(merged.take(slice(self._parameters.max_proposals)).corrected(), REFINE_SIDE)
        return Candidates(boxes, *_run(self._rnet, crops)) if len(boxes) else NONE

    def _finish(self, pyramid: Halvings, seen: Candidates) -> list[DetectedFace]:
        """Return the faces among what was refined, some of them more than once."""
        good = seen.take(seen.scores >= self._parameters.thresholds[1]).best(0.7)
        boxes, crops = pyramid.cut(good.corrected(), OUTPUT_SIDE)
        if not len(boxes):
            return []
        scores, offsets, fractions = _run(self._onet, crops)
        sides = boxes[:, 2:] - boxes[:, :2]
        points = fractions.reshape(-1, 2, 5).transpose(0, 2, 1) * sides[:, None] + boxes[:, None, :2]
        boxes = shift_sides(boxes, offsets)
        return [
            DetectedFace(Box(*map(float, boxes[i])), points[i].astype(np.float32), float(scores[i]))
            for i in np.flatnonzero(scores >= self._parameters.thresholds[2])
        ]

    def _distinct(self, faces: list[DetectedFace]) -> list[DetectedFace]:
        """Return every face once, best first."""
        if not faces:
            return []
        boxes, points = _boxes(faces), np.stack([face.landmarks for face in faces])
        kept = suppress(boxes, np.array([face.score for face in faces]), 0.7, "min")
        kept = kept[distinct(points[kept], boxes[kept], self._parameters.duplicate_distance)]
        return [faces[i] for i in kept]

    def _doubtful(self, seen: Candidates, faces: list[DetectedFace], min_face_px: float) -> Floats:
        """Return the (n, 4) squares in which there may be a small face that was not found."""
        small = seen.boxes[:, 2] - seen.boxes[:, 0] < PLACE * min_face_px
        boxes = seen.take(small & (seen.scores >= DOUBT)).best(0.5).boxes
        boxes = boxes[(overlaps(boxes, _boxes(faces), "min") <= PART).all(axis=1)]
        middles, half = (boxes[:, :2] + boxes[:, 2:]) / 2, PLACE * min_face_px / 2
        return np.concatenate([middles - half, middles + half], axis=1)


def _boxes(faces: list[DetectedFace]) -> Floats:
    """Return the (n, 4) boxes of faces."""
    sides = [(face.box.left, face.box.top, face.box.right, face.box.bottom) for face in faces]
    return np.array(sides, np.float64).reshape(-1, 4)


def _run(network: Session, crops: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Run a network over many crops, a few at a time so that what flows between its layers stays in the cache."""
    parts = [network.run(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


class Halvings:
    """An image with its half, quarter, eighth …: what is shrunk much is read from a level shrunk already.

    The last odd row or column of a large image is left out: OpenCV halves even images twelve times faster.

    Args:
        pixels: (height, width, 3) uint8.

    Attributes:
        size: (2,) width and height of the image.
    """

    def __init__(self, pixels: Pixels) -> None:
        self.size = np.array(pixels.shape[1::-1], dtype=np.float64)
        self._levels, self._pitches = [pixels], [np.ones(2)]
        while min(self._levels[-1].shape[:2]) >= 2 * CELL:
            height, width = (side // 2 for side in self._levels[-1].shape[:2])
            whole = self._levels[-1]
            if width * height > LARGE_PX:
                whole = whole[: 2 * height, : 2 * width]
            half = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
            self._levels.append(half.astype(np.uint8, copy=False))
            self._pitches.append(self._pitches[-1] * whole.shape[1::-1] / (width, height))

    def at_least(self, scale: float) -> tuple[Pixels, Floats]:
        """Return the smallest level not smaller than the image at `scale`, and how wide and high its pixels are."""
        index = min(max(0, math.floor(-math.log2(scale))), len(self._levels) - 1)
        return self._levels[index], self._pitches[index]

    def cut(self, boxes: Floats, side: int) -> tuple[Floats, NDArray[np.uint8]]:
        """Cut boxes out and scale each to a square; what lies outside the image is black.

        Args:
            boxes: (n, 4) left, top, right, bottom.
            side: Of the crops, pixels.

        Returns:
            The (m, 4) boxes moved to whole pixels, without those that do not touch the image or are far larger, and
            their (m, side, side, 3) crops.
        """
        boxes = boxes[self._usable(boxes)]
        crops = np.empty((len(boxes), side, side, 3), np.uint8)
        shrunk = np.log2((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=1e-9) / side)
        levels = np.clip(np.floor(shrunk), 0, len(self._levels) - 1).astype(int)
        pitches = np.tile(np.array(self._pitches)[levels], 2)
        whole = np.round(boxes / pitches).astype(int)
        whole[:, 2:] = np.maximum(whole[:, 2:], whole[:, :2] + 1)
        for crop, level, box in zip(crops, levels.tolist(), whole.tolist(), strict=True):
            part = _cut_padded(self._levels[level], box)
            shrinks = len(part) > side
            cv2.resize(part, (side, side), crop, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return whole * pitches, crops

    def _usable(self, boxes: Floats) -> NDArray[np.bool_]:
        """Say which boxes touch the image by at least a pixel and are at most four times as large."""
        seen = np.minimum(boxes[:, 2:], self.size) - np.maximum(boxes[:, :2], 0)
        sides = boxes[:, 2:] - boxes[:, :2]
        usable: NDArray[np.bool_] = np.all((seen >= 1) & (sides <= 4 * self.size.max()), axis=1)
        return usable


def _cut_padded(pixels: Pixels, box: list[int]) -> Pixels:
    """Return the pixels of a box that may reach past the image, black where it does."""
    left, top, right, bottom = box
    part = pixels[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if part.shape[:2] == (bottom - top, right - left):
        return part
    canvas = np.zeros((bottom - top, right - left, 3), np.uint8)
    above, before = max(-top, 0), max(-left, 0)
    canvas[above : above + part.shape[0], before : before + part.shape[1]] = part
    return canvas


def distinct(points: Floats, boxes: Floats, distance: float) -> Indices:
    """Return the indices of faces whose landmarks no better face shares.

    Two boxes around one head can overlap little when one took the hair and the other the chin; their landmarks agree.

    Args:
        points: (n, 5, 2) landmarks, best face first.
        boxes: (n, 4) of the same faces.
        distance: Mean distance of landmarks below which two faces are one, as a fraction of the smaller face's side.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    kept: list[int] = []
    for i in range(len(points)):
        apart = np.linalg.norm(points[kept] - points[i], axis=2).mean(axis=1)
        if (apart >= distance * np.minimum(sides[kept], sides[i])).all():
            kept.append(i)
    return np.array(kept, dtype=np.intp)
