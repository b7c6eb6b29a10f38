"""YuNet: one answer a cell, of three grids, without anchors.

Wu, Peng, Yu (2023), "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vultus.models.detection.grids import STRIDES, corners, heads
from vultus.models.detection.oneshot import Candidates, OneShotDetector, SearchParameters, checked, joined
from vultus.models.detection.published import from_pixels
from vultus.models.runtime import OnnxSession

if TYPE_CHECKING:
    from vultus.domain import Pixels
    from vultus.models.runtime import Opener

PARAMETERS = SearchParameters(threshold=0.6, overlap=0.3, smallest_px=16, largest_px=320, closer_px=96)


class Yunet(OneShotDetector):
    """Either published width of the network, exported for one size or for all."""

    def look(self, image: Pixels) -> Candidates:
        """Return the possible faces: score √(class · objectness), box centre and logarithmic size in strides."""
        grids = heads(self._network.run(image[None]), (1, 1, 4, 10))
        found = []
        for stride, (classes, objects, boxes, points) in zip(STRIDES, grids, strict=True):
            scores = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
            good = np.flatnonzero(scores >= self._parameters.doubt)
            cells = corners(good, image.shape[:2], stride, len(scores))
            centres = cells + boxes[good, :2] * stride
            halves = np.exp(boxes[good, 2:]) * (stride / 2)
            found.append(
                Candidates(
                    np.concatenate([centres - halves, centres + halves], axis=1),
                    cells[:, None] + points[good].reshape(-1, 5, 2) * stride,
                    scores[good],
                )
            )
        return joined(found)


def load_yunet(graph: bytes, parameters: SearchParameters = PARAMETERS, *, open_session: Opener = OnnxSession) -> Yunet:
    """Return the detector over a published ONNX file: OpenCV's `face_detection_yunet_2023mar` or the authors' own.

    Raises:
        WeightsError: It is another network.
    """
    return checked(Yunet(open_session(from_pixels(graph, bgr=True)), parameters))
