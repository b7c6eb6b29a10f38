"""Two MiniFASNets over a narrow and a wide crop of a face, after Silent-Face-Anti-Spoofing (2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vultus.domain import Liveness, LivenessReason
from vultus.models.liveness.minifasnet_graph import SIDE
from vultus.models.runtime import NetworkSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import Box, DetectedFace, Pixels

LIVE_CLASS = 1
"""The class of live faces; 0 and 2 are presentation attacks, which the authors do not distinguish further."""

BOX_SHIFT_RATIO = 0.07
"""Offset of the authors' box below MTCNN's, as a fraction of its height: median of 408 LFW photos."""


@dataclass(frozen=True, slots=True)
class CropNetwork:
    """A network and the side of its square crop, as a multiple of the face's side."""

    scale: float
    session: NetworkSession


@dataclass(frozen=True, slots=True)
class LivenessRule:
    """When a face can be assessed, and when it is accepted as live.

    Attributes:
        threshold: Least score of a live face. The authors take the class with the largest sum; 0.5 is a little
            stricter, because the largest of three classes may be below one half.
        min_face_px: Least side of a face. Of LFW's photos shrunk to faces of 50 pixels, 67 % were still classified as
            live, of the original photos 80 %; of faces of 35 pixels one half.
        min_scale: Least shorter side of the photo, as a multiple of the face's side: the frame of a screen or a sheet
            of paper is visible around a face. Cropped at 1.5 sides, 89 % of LFW's faces were classified as live, at
            1.2 only 64 %.
    """

    threshold: float = 0.5
    min_face_px: float = 50
    min_scale: float = 1.5


class MiniFasnet:
    """The loaded networks; safe for concurrent use by several threads.

    Args:
        networks: One per crop; their probabilities are averaged.
        rule: Limits and threshold.
    """

    def __init__(self, networks: Sequence[CropNetwork], rule: LivenessRule) -> None:
        self._networks = networks
        self._rule = rule

    def assess_liveness(self, pixels: Pixels, face: DetectedFace) -> Liveness:
        """Return the liveness score of a face, 0..1, and the reason of the verdict."""
        middle, side = compute_face_square(face.box)
        score = float(
            np.mean([self._compute_live_probability(network, pixels, middle, side) for network in self._networks])
        )
        if side < self._rule.min_face_px:
            reason = LivenessReason.FACE_TOO_SMALL
        elif min(pixels.shape[:2]) < self._rule.min_scale * side:
            reason = LivenessReason.CROP_PAST_PHOTO
        else:
            reason = LivenessReason.LIVE if score >= self._rule.threshold else LivenessReason.SPOOF
        return Liveness(score, reason)

    def _compute_live_probability(
        self, network: CropNetwork, pixels: Pixels, middle: tuple[float, float], side: float
    ) -> float:
        """Return the probability of the live class."""
        crop = crop_square(pixels, middle, network.scale * side)
        planes = crop[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        logits = network.session.run(planes)[0][0]
        shares = np.exp(logits - logits.max())
        return float(shares[LIVE_CLASS] / shares.sum())


def compute_face_square(box: Box) -> tuple[tuple[float, float], float]:
    """Return the centre, x and y, and the side, in pixels, of the authors' detector's square for a face.

    Their boxes are nearly square; those of MTCNN and most detectors follow the head and are higher than wide.
    """
    side = float(np.sqrt(max(0.0, box.width) * max(0.0, box.height)))
    return ((box.left + box.right) / 2, (box.top + box.bottom) / 2 + BOX_SHIFT_RATIO * box.height), side


def crop_square(pixels: Pixels, middle: tuple[float, float], side: float) -> Pixels:
    """Crop a square of a photo and scale it to the networks' input.

    As in training: a square larger than the photo is shrunk to it, one that extends past an edge is moved inside, and
    pixels are interpolated without averaging first, which would remove screen artefacts such as moiré.

    Args:
        pixels: (height, width, 3) uint8.
        middle: Centre, x and y in pixels.
        side: Pixels.

    Returns:
        (80, 80, 3) uint8.
    """
    room = np.array(pixels.shape[1::-1]) - 1.0
    side = min(side, *room)
    first = np.clip(np.array(middle) - side / 2, 0, room - side)
    left, top = first.astype(int).tolist()
    right, bottom = (first + side).astype(int).tolist()
    part = pixels[top : bottom + 1, left : right + 1]
    return cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
