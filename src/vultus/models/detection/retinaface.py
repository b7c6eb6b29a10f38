"""RetinaFace: two anchors per cell of three grids.

Deng, Guo, Ververas, Kotsia, Zafeiriou (2020), "RetinaFace: Single-shot Multi-level Face Localisation in the Wild",
CVPR; anchors and their variances after Liu et al. (2016), "SSD: Single Shot MultiBox Detector".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import WeightsError
from vultus.models.detection.grids import STRIDES, compute_cell_corners
from vultus.models.detection.oneshot import (
    DetectionParameters,
    Detections,
    SingleShotDetector,
    concatenate_detections,
    validate_detector,
)
from vultus.models.detection.published import convert_to_pixel_input
from vultus.models.detection.retinaface_graph import PIXEL_MEANS
from vultus.models.runtime import OnnxSession

if TYPE_CHECKING:
    from vultus.domain import Pixels
    from vultus.models.imaging.geometry import Floats
    from vultus.models.runtime import SessionOpener

PARAMETERS = DetectionParameters(
    threshold=0.6,
    max_overlap=0.4,
    min_detectable_px=24,
    max_detectable_px=512,
    refinement_px=128,
    min_doubtful_score=0.08,
)
ANCHORS = {8: (16.0, 32.0), 16: (64.0, 128.0), 32: (256.0, 512.0)}
"""Sides of the two anchors of every cell, by stride, in pixels."""

CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2


class RetinaFace(SingleShotDetector):
    """The network of `build_retinaface`, or a published ONNX export of it."""

    def compute_detections(self, image: Pixels) -> Detections:
        """Return the detections before suppression: offsets from the anchor, in anchor sides times a variance."""
        outputs = {output.shape[-1]: output.reshape(-1, output.shape[-1]) for output in self._session.run(image[None])}
        cells = [(image.shape[0] // stride) * (image.shape[1] // stride) for stride in STRIDES]
        if {width: len(output) for width, output in outputs.items()} != dict.fromkeys((4, 2, 10), 2 * sum(cells)):
            raise WeightsError("The network does not answer as RetinaFace does; it is another network.")
        ends = np.cumsum(cells)[:-1] * 2
        parts = zip(STRIDES, *(np.split(outputs[width], ends) for width in (2, 4, 10)), strict=True)
        return concatenate_detections([self._decode_grid(image, *part) for part in parts])

    def _decode_grid(self, image: Pixels, stride: int, classes: Floats, boxes: Floats, points: Floats) -> Detections:
        """Return the detections of one grid before suppression."""
        good = np.flatnonzero(classes[:, 1] >= self._parameters.min_doubtful_score)
        sides = np.array(ANCHORS[stride])[good % 2, None]
        centres = compute_cell_corners(good, image.shape[:2], stride, len(classes)) + stride / 2
        middles = centres + boxes[good, :2] * CENTRE_VARIANCE * sides
        halves = np.exp(boxes[good, 2:] * SIZE_VARIANCE) * sides / 2
        return Detections(
            np.concatenate([middles - halves, middles + halves], axis=1),
            centres[:, None] + points[good].reshape(-1, 5, 2) * CENTRE_VARIANCE * sides[:, None],
            classes[good, 1],
        )


def load_retinaface(
    graph: bytes, parameters: DetectionParameters = PARAMETERS, *, open_session: SessionOpener = OnnxSession
) -> RetinaFace:
    """Return the detector over a graph from `build_retinaface` or `convert_published_graph`.

    Raises:
        WeightsError: It is another network.
    """
    return validate_detector(RetinaFace(open_session(graph), parameters))


def convert_published_graph(graph: bytes) -> bytes:
    """Return a published ONNX export of this network, converted to take raw pixels.

    Raises:
        WeightsError: It does not take images.
    """
    return convert_to_pixel_input(graph, bgr=True, mean=PIXEL_MEANS)
