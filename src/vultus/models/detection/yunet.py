"""YuNet: one prediction per cell of three grids, without anchors.

Wu, Peng, Yu (2023), "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vultus.models.detection.grids import STRIDES, compute_cell_corners, group_heads_by_grid
from vultus.models.detection.oneshot import (
    DetectionParameters,
    Detections,
    SingleShotDetector,
    concatenate_detections,
    validate_detector,
)
from vultus.models.detection.published import convert_to_pixel_input
from vultus.models.runtime import OnnxSession

if TYPE_CHECKING:
    from vultus.domain import Pixels
    from vultus.models.runtime import SessionOpener

PARAMETERS = DetectionParameters(
    threshold=0.6, max_overlap=0.3, min_detectable_px=16, max_detectable_px=320, refinement_px=96
)


class Yunet(SingleShotDetector):
    """Either published width of the network, exported for one image size or for any."""

    def compute_detections(self, image: Pixels) -> Detections:
        """Return the detections before suppression: score √(class · objectness), box centre and log size in strides."""
        grids = group_heads_by_grid(self._session.run(image[None]), (1, 1, 4, 10))
        found = []
        for stride, (classes, objects, boxes, points) in zip(STRIDES, grids, strict=True):
            scores = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
            good = np.flatnonzero(scores >= self._parameters.min_doubtful_score)
            cells = compute_cell_corners(good, image.shape[:2], stride, len(scores))
            centres = cells + boxes[good, :2] * stride
            halves = np.exp(boxes[good, 2:]) * (stride / 2)
            found.append(
                Detections(
                    np.concatenate([centres - halves, centres + halves], axis=1),
                    cells[:, None] + points[good].reshape(-1, 5, 2) * stride,
                    scores[good],
                )
            )
        return concatenate_detections(found)


def load_yunet(
    graph: bytes, parameters: DetectionParameters = PARAMETERS, *, open_session: SessionOpener = OnnxSession
) -> Yunet:
    """Return the detector over a published ONNX file: OpenCV's `face_detection_yunet_2023mar` or the authors' own.

    Raises:
        WeightsError: It is another network.
    """
    return validate_detector(Yunet(open_session(convert_to_pixel_input(graph, bgr=True)), parameters))
