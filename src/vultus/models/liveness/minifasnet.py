"""Two MiniFASNets over a narrow and a wide crop of a face, after Silent-Face-Anti-Spoofing (2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vultus.models.liveness.ensemble import compute_face_side
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


class MiniFasnet:
    """The loaded networks; safe for concurrent use by several threads.

    Args:
        networks: One per crop; their probabilities are averaged.
    """

    def __init__(self, networks: Sequence[CropNetwork]) -> None:
        self._networks = networks

    def compute_score(self, pixels: Pixels, face: DetectedFace) -> float:
        """Return the mean probability of both networks that a face is live."""
        middle, side = compute_face_square(face.box)
        shares = [self._compute_live_probability(network, pixels, middle, side) for network in self._networks]
        return float(np.mean(shares))

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
    side = compute_face_side(box)
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
