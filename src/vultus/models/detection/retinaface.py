"""RetinaFace: two anchors a cell of three grids.

Deng, Guo, Ververas, Kotsia, Zafeiriou (2020), "RetinaFace: Single-shot Multi-level Face Localisation in the Wild",
CVPR; anchors and their variances after Liu et al. (2016), "SSD: Single Shot MultiBox Detector".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import WeightsError
from vultus.models.detection.grids import STRIDES, corners
from vultus.models.detection.oneshot import Candidates, OneShotDetector, SearchParameters, checked, joined
from vultus.models.detection.published import from_pixels
from vultus.models.detection.retinaface_graph import PIXEL_MEANS
from vultus.models.runtime import OnnxSession

if TYPE_CHECKING:
    from vultus.domain import Pixels
    from vultus.models.imaging.geometry import Floats
    from vultus.models.runtime import Opener

PARAMETERS = SearchParameters(threshold=0.6, overlap=0.4, smallest_px=24, largest_px=512, closer_px=128, doubt=0.08)
ANCHORS = {8: (16.0, 32.0), 16: (64.0, 128.0), 32: (256.0, 512.0)}
"""Sides of the two anchors of every cell, by stride, in pixels."""

CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2


class RetinaFace(OneShotDetector):
    """The network of `build_retinaface`, or the same one as others publish it."""

    def look(self, image: Pixels) -> Candidates:
        """Return the possible faces: offsets from the anchor, in anchor sides times a variance."""
        outputs = {output.shape[-1]: output.reshape(-1, output.shape[-1]) for output in self._network.run(image[None])}
        cells = [(image.shape[0] // stride) * (image.shape[1] // stride) for stride in STRIDES]
        if {width: len(output) for width, output in outputs.items()} != dict.fromkeys((4, 2, 10), 2 * sum(cells)):
            raise WeightsError("The network does not answer as RetinaFace does; it is another network.")
        ends = np.cumsum(cells)[:-1] * 2
        parts = zip(STRIDES, *(np.split(outputs[width], ends) for width in (2, 4, 10)), strict=True)
        return joined([self._read(image, *part) for part in parts])

    def _read(self, image: Pixels, stride: int, classes: Floats, boxes: Floats, points: Floats) -> Candidates:
        """Return the possible faces of one grid."""
        good = np.flatnonzero(classes[:, 1] >= self._parameters.doubt)
        sides = np.array(ANCHORS[stride])[good % 2, None]
        centres = corners(good, image.shape[:2], stride, len(classes)) + stride / 2
        middles = centres + boxes[good, :2] * CENTRE_VARIANCE * sides
        halves = np.exp(boxes[good, 2:] * SIZE_VARIANCE) * sides / 2
        return Candidates(
            np.concatenate([middles - halves, middles + halves], axis=1),
            centres[:, None] + points[good].reshape(-1, 5, 2) * CENTRE_VARIANCE * sides[:, None],
            classes[good, 1],
        )


def load_retinaface(
    graph: bytes, parameters: SearchParameters = PARAMETERS, *, open_session: Opener = OnnxSession
) -> RetinaFace:
    """Return the detector over what `build_retinaface` or `adapted` returned.

    Raises:
        WeightsError: It is another network.
    """
    return checked(RetinaFace(open_session(graph), parameters))


def adapted(graph: bytes) -> bytes:
    """Return an ONNX file that others published of this network as one that takes raw pixels.

    Raises:
        WeightsError: It does not take images.
    """
    return from_pixels(graph, bgr=True, mean=PIXEL_MEANS)
