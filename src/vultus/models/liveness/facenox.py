"""MiniFASNetV2-SE over one crop of a face in the detail of 128 × 128 pixels, by Facenox (2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from vultus.domain import Box, DetectedFace, Pixels
    from vultus.models.runtime import NetworkSession

LIVE_CLASS = 0
"""The class of live faces; the other one is a presentation attack."""

SIDE = 128
CROP_SCALE = 1.5
"""Side of the crop, as a multiple of the longer side of the face's box."""


class Facenox:
    """The loaded network; safe for concurrent use by several threads.

    Args:
        session: Of the network. Input: float32 (n, 3, 128, 128), RGB, 0..1. Output: float32 (n, 2) logits.
    """

    def __init__(self, session: NetworkSession) -> None:
        self._session = session

    def compute_score(self, pixels: Pixels, face: DetectedFace) -> float:
        """Return the probability that a face is live."""
        crop = crop_with_reflection(pixels, face.box)
        logits = self._session.run(crop.transpose(2, 0, 1)[None].astype(np.float32) / 255)[0][0]
        return float(1 / (1 + np.exp(logits[1 - LIVE_CLASS] - logits[LIVE_CLASS])))


def crop_with_reflection(pixels: Pixels, box: Box) -> Pixels:
    """Crop the square around a face and scale it to the network's input.

    As in training: where the square extends past an edge the photo is mirrored, and pixels are averaged when the crop
    is shrunk.

    Args:
        pixels: (height, width, 3) uint8.
        box: Of the face, in pixels.

    Returns:
        (128, 128, 3) uint8.
    """
    side = max(1, int(max(box.width, box.height) * CROP_SCALE))
    height, width = pixels.shape[:2]
    left = int(np.clip((box.left + box.right) / 2 - side / 2, 1 - side, width - 1))
    top = int(np.clip((box.top + box.bottom) / 2 - side / 2, 1 - side, height - 1))
    crop = cv2.copyMakeBorder(
        pixels[max(0, top) : top + side, max(0, left) : left + side],
        max(0, -top),
        max(0, top + side - height),
        max(0, -left),
        max(0, left + side - width),
        cv2.BORDER_REFLECT_101,
    )
    interpolation = cv2.INTER_AREA if side > SIDE else cv2.INTER_LANCZOS4
    return cv2.resize(crop, (SIDE, SIDE), interpolation=interpolation).astype(np.uint8, copy=False)
