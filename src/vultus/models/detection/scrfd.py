"""SCRFD: two predictions per cell of three grids, boxes as distances from the cell's corner.

Guo, Deng, Lattas, Zafeiriou (2021), "Sample and Computation Redistribution for Efficient Face Detection"; boxes as
distances after Tian et al. (2019), "FCOS: Fully Convolutional One-Stage Object Detection".
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
    threshold=0.5, max_overlap=0.4, min_detectable_px=12, max_detectable_px=512, refinement_px=128
)


class Scrfd(SingleShotDetector):
    """Any published size of the network with landmarks, with or without a batch dimension in its outputs."""

    def compute_detections(self, image: Pixels) -> Detections:
        """Return the detections before suppression: distances and landmark offsets, in strides."""
        grids = group_heads_by_grid(self._session.run(image[None]), (1, 4, 10))
        found = []
        for stride, (scores, distances, points) in zip(STRIDES, grids, strict=True):
            good = np.flatnonzero(scores[:, 0] >= self._parameters.min_doubtful_score)
            cells = compute_cell_corners(good, image.shape[:2], stride, len(scores))
            sides = distances[good] * stride
            found.append(
                Detections(
                    np.concatenate([cells - sides[:, :2], cells + sides[:, 2:]], axis=1),
                    cells[:, None] + points[good].reshape(-1, 5, 2) * stride,
                    scores[good, 0],
                )
            )
        return concatenate_detections(found)


def load_scrfd(
    graph: bytes, parameters: DetectionParameters = PARAMETERS, *, open_session: SessionOpener = OnnxSession
) -> Scrfd:
    """Return the detector over a published ONNX file, `scrfd_*_bnkps` or `det_*`.

    Raises:
        WeightsError: It is another network.
    """
    return validate_detector(Scrfd(open_session(convert_to_pixel_input(graph, mean=[127.5], divisor=128)), parameters))
