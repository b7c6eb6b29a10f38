"""Two MiniFASNets that look at a face from near and from further away, after Silent-Face-Anti-Spoofing (2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vultus.domain import Liveness, LivenessReason
from vultus.models.liveness.minifasnet_graph import SIDE
from vultus.models.runtime import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import Box, DetectedFace, Pixels

LIVE = 1
"""The class of live faces; 0 and 2 are presentation attacks, whose difference the authors do not state."""

DOWN = 0.07
"""How far the authors' box lies below MTCNN's, as a fraction of its height: median of 408 LFW photos."""


@dataclass(frozen=True, slots=True)
class CropNetwork:
    """A network with the side of the square it looks at, as a multiple of the face's side."""

    scale: float
    session: Session


@dataclass(frozen=True, slots=True)
class LivenessRule:
    """When a face can be judged and when it passes for live.

    Attributes:
        threshold: Score a live face reaches. The authors take the class with the largest sum, which 0.5 makes a
            little stricter: with three classes the largest may be below one half.
        min_face_px: Least side of a face. With LFW's photos shrunk until faces had 50 pixels, 67 % were still found
            live, of the photos as they are 80 %; with 35 pixels every second one.
        min_scale: Least shorter side of the photo, as a multiple of the face's side: the frame of a screen or a sheet
            of paper is seen around a face. Cut out at 1.5 sides 89 % of LFW's faces were found live, at 1.2 only 64 %.
    """

    threshold: float = 0.5
    min_face_px: float = 50
    min_scale: float = 1.5


class MiniFasnet:
    """The loaded networks; safe to use from several threads at once.

    Args:
        networks: One for each crop; their probabilities are averaged.
        rule: How to decide.
    """

    def __init__(self, networks: Sequence[CropNetwork], rule: LivenessRule) -> None:
        self._networks = networks
        self._rule = rule

    def assess(self, pixels: Pixels, face: DetectedFace) -> Liveness:
        """Say whether a face is live."""
        middle, side = face_square(face.box)
        score = float(np.mean([self._live_share(network, pixels, middle, side) for network in self._networks]))
        if side < self._rule.min_face_px:
            reason = LivenessReason.FACE_TOO_SMALL
        elif min(pixels.shape[:2]) < self._rule.min_scale * side:
            reason = LivenessReason.CROP_PAST_PHOTO
        else:
            reason = LivenessReason.LIVE if score >= self._rule.threshold else LivenessReason.SPOOF
        return Liveness(score, reason)

    def _live_share(self, network: CropNetwork, pixels: Pixels, middle: tuple[float, float], side: float) -> float:
        """Return the probability of the live class."""
        crop = cut_square(pixels, middle, network.scale * side)
        planes = crop[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        logits = network.session.run(planes)[0][0]
        shares = np.exp(logits - logits.max())
        return float(shares[LIVE] / shares.sum())


def face_square(box: Box) -> tuple[tuple[float, float], float]:
    """Return the centre and the side, in pixels, of the square that the authors' detector draws around a face.

    Their boxes are nearly square; MTCNN's and those of most detectors follow the head and are higher than wide.
    """
    side = float(np.sqrt(max(0.0, box.width) * max(0.0, box.height)))
    return ((box.left + box.right) / 2, (box.top + box.bottom) / 2 + DOWN * box.height), side


def cut_square(pixels: Pixels, middle: tuple[float, float], side: float) -> Pixels:
    """Cut a square out of a photo and scale it to the networks' input.

    As the networks were trained: a square larger than the photo is made smaller, one that reaches past an edge is
    moved inside, and pixels are interpolated without averaging first, which would take away what a screen leaves.

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
