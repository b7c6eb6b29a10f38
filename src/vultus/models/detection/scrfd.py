"""SCRFD: two answers a cell of three grids, boxes as distances to the cell's corner.

Guo, Deng, Lattas, Zafeiriou (2021), "Sample and Computation Redistribution for Efficient Face Detection"; boxes as
distances after Tian et al. (2019), "FCOS: Fully Convolutional One-Stage Object Detection".
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

PARAMETERS = SearchParameters(threshold=0.5, overlap=0.4, smallest_px=12, largest_px=512, closer_px=128)


class Scrfd(OneShotDetector):
    """Any published size of the network with landmarks, with or without a batch dimension in its answers."""

    def look(self, image: Pixels) -> Candidates:
        """Return the possible faces: four distances and five offsets from the cell's corner, in strides."""
        grids = heads(self._network.run(image[None]), (1, 4, 10))
        found = []
        for stride, (scores, distances, points) in zip(STRIDES, grids, strict=True):
            good = np.flatnonzero(scores[:, 0] >= self._parameters.doubt)
            cells = corners(good, image.shape[:2], stride, len(scores))
            sides = distances[good] * stride
            found.append(
                Candidates(
                    np.concatenate([cells - sides[:, :2], cells + sides[:, 2:]], axis=1),
                    cells[:, None] + points[good].reshape(-1, 5, 2) * stride,
                    scores[good, 0],
                )
            )
        return joined(found)


def load_scrfd(graph: bytes, parameters: SearchParameters = PARAMETERS, *, open_session: Opener = OnnxSession) -> Scrfd:
    """Return the detector over a published ONNX file, `scrfd_*_bnkps` or `det_*`.

    Raises:
        WeightsError: It is another network.
    """
    return checked(Scrfd(open_session(from_pixels(graph, mean=[127.5], divisor=128)), parameters))
