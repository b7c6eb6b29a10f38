"""MTCNN: proposals over an image pyramid, refined and given landmarks by two more networks.

Zhang, Zhang, Li, Qiao (2016), "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
IEEE Signal Processing Letters 23(10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vultus.domain import Box, DetectedFace, Pixels
from vultus.models.geometry import Floats, Indices, shift_sides, squares, suppress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from vultus.models.runtime import Session

CELL = 12
STRIDE = 2
REFINE_SIDE = 24
OUTPUT_SIDE = 48
BATCH = 16


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


class Mtcnn:
    """The cascade over three loaded networks."""

    def __init__(self, pnet: Session, rnet: Session, onet: Session, parameters: MtcnnParameters = PARAMETERS) -> None:
        self._pnet = pnet
        self._rnet = rnet
        self._onet = onet
        self._parameters = parameters

    def detect(self, pixels: Pixels, min_face_px: float) -> list[DetectedFace]:
        """Return every face once, best first, in the coordinates of `pixels`."""
        pyramid = Halvings(pixels)
        return self._finish(pyramid, self._refine(pyramid, self._propose(pyramid, min_face_px)))

    def _propose(self, pyramid: Halvings, min_face_px: float) -> Floats:
        """Return (n, 4) proposals of all scales."""
        found = [self._propose_at(pyramid, scale) for scale in self._scales(pyramid, min_face_px)]
        if not found:
            return np.zeros((0, 4))
        boxes, scores, offsets = (np.concatenate(parts) for parts in zip(*found, strict=True))
        kept = suppress(boxes, scores, 0.7)[: self._parameters.max_proposals]
        return squares(shift_sides(boxes[kept], offsets[kept]))

    def _scales(self, pyramid: Halvings, min_face_px: float) -> Iterator[float]:
        """Yield scales at which a face of at least `min_face_px` is as large as a cell, largest first."""
        scale = CELL / min_face_px
        while pyramid.size.min() * scale >= CELL:
            yield scale
            scale *= self._parameters.pyramid_factor

    def _propose_at(self, pyramid: Halvings, scale: float) -> tuple[Floats, Floats, Floats]:
        """Return the (n, 4) boxes, (n,) scores and (n, 4) side offsets of one scale."""
        level, factor = pyramid.at_least(scale)
        covered = np.array(level.shape[1::-1]) * factor
        size = np.ceil(covered * scale).astype(int)
        shrunk = cv2.resize(level, size.tolist(), interpolation=cv2.INTER_AREA)
        scores, offsets = self._pnet.run(shrunk[None])
        rows, columns = np.nonzero(scores[0] >= self._parameters.thresholds[0])
        if len(rows) > self._parameters.max_proposals:
            best = np.argsort(-scores[0, rows, columns], kind="stable")[: self._parameters.max_proposals]
            rows, columns = rows[best], columns[best]
        corners = np.stack([columns, rows], axis=1) * float(STRIDE)
        boxes = np.concatenate([corners, corners + CELL], axis=1) * np.tile(covered / size, 2)
        good = scores[0, rows, columns]
        kept = suppress(boxes, good, 0.5)
        return boxes[kept], good[kept], offsets[0][:, rows, columns].T[kept]

    def _refine(self, pyramid: Halvings, boxes: Floats) -> Floats:
        """Return the (m, 4) squares that the refinement network takes for faces."""
        boxes, crops = pyramid.cut(boxes, REFINE_SIDE)
        if not len(boxes):
            return boxes
        scores, offsets = _run(self._rnet, crops)
        good = scores >= self._parameters.thresholds[1]
        boxes, scores, offsets = boxes[good], scores[good], offsets[good]
        kept = suppress(boxes, scores, 0.7)
        return squares(shift_sides(boxes[kept], offsets[kept]))

    def _finish(self, pyramid: Halvings, boxes: Floats) -> list[DetectedFace]:
        boxes, crops = pyramid.cut(boxes, OUTPUT_SIDE)
        if not len(boxes):
            return []
        scores, offsets, fractions = _run(self._onet, crops)
        good = scores >= self._parameters.thresholds[2]
        boxes, scores, offsets, fractions = boxes[good], scores[good], offsets[good], fractions[good]
        sides = boxes[:, 2:] - boxes[:, :2]
        points = fractions.reshape(-1, 2, 5).transpose(0, 2, 1) * sides[:, None] + boxes[:, None, :2]
        boxes = shift_sides(boxes, offsets)
        kept = suppress(boxes, scores, 0.7, "min")
        kept = kept[distinct(points[kept], boxes[kept], self._parameters.duplicate_distance)]
        return [DetectedFace(Box(*map(float, boxes[i])), points[i].astype(np.float32), float(scores[i])) for i in kept]


def _run(network: Session, crops: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Run a network over many crops, a few at a time so that what flows between its layers stays in the cache."""
    parts = [network.run(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


class Halvings:
    """An image with its half, quarter, eighth …: what is shrunk much is read from a level shrunk already.

    A last odd row or column is left out when an image is halved: OpenCV halves even images twelve times faster.

    Args:
        pixels: (height, width, 3) uint8.

    Attributes:
        size: (2,) width and height of the image.
    """

    def __init__(self, pixels: Pixels) -> None:
        self.size = np.array(pixels.shape[1::-1], dtype=np.float64)
        self._levels = [pixels]
        while min(self._levels[-1].shape[:2]) >= 2 * CELL:
            height, width = (side // 2 for side in self._levels[-1].shape[:2])
            even = self._levels[-1][: 2 * height, : 2 * width]
            half = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
            self._levels.append(half.astype(np.uint8, copy=False))

    def at_least(self, scale: float) -> tuple[Pixels, int]:
        """Return the smallest level not smaller than the image at `scale`, and the pixels one of its own is wide."""
        index = min(max(0, math.floor(-math.log2(scale))), len(self._levels) - 1)
        return self._levels[index], 1 << index

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
        factors = (1 << levels)[:, None]
        whole = np.round(boxes / factors).astype(int)
        whole[:, 2:] = np.maximum(whole[:, 2:], whole[:, :2] + 1)
        for crop, level, box in zip(crops, levels.tolist(), whole.tolist(), strict=True):
            part = _cut_padded(self._levels[level], box)
            shrinks = len(part) > side
            cv2.resize(part, (side, side), crop, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return whole * factors.astype(np.float64), crops

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
