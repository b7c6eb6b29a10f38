"""CenterFace: a face is a peak of a heat map.

Xu, Yan, Yang, Luo, Li, He (2019), "CenterFace: Joint Face Detection and Alignment Using Face as Point", after Zhou,
Wang, Krähenbühl (2019), "Objects as Points".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import WeightsError
from vultus.models.detection.oneshot import DetectionParameters, Detections, SingleShotDetector, validate_detector
from vultus.models.detection.published import convert_to_pixel_input
from vultus.models.runtime import OnnxSession

if TYPE_CHECKING:
    from vultus.domain import Pixels
    from vultus.models.runtime import SessionOpener

PARAMETERS = DetectionParameters(
    threshold=0.5, max_overlap=0.3, min_detectable_px=16, max_detectable_px=512, refinement_px=128
)
STRIDE = 4
CHANNELS = [1, 2, 2, 10]


class CenterFace(SingleShotDetector):
    """The published network with landmarks; heads: heat map, logarithmic size, offset of the centre, landmarks."""

    def compute_detections(self, image: Pixels) -> Detections:
        """Return the detections before suppression; the network's outputs have y before x."""
        outputs = self._session.run(image[None])
        if [output.shape[1] for output in outputs] != CHANNELS:
            raise WeightsError("The network does not answer as CenterFace with landmarks does; it is another network.")
        heat, sizes, offsets, points = (output[0] for output in outputs)
        rows, columns = np.nonzero(heat[0] >= self._parameters.min_doubtful_score)
        cells = np.stack([columns, rows], axis=1)
        sides = np.exp(sizes[::-1, rows, columns].T) * STRIDE
        centres = (cells + offsets[::-1, rows, columns].T + 0.5) * STRIDE
        first = centres - sides / 2
        fractions = points[:, rows, columns].T.reshape(-1, 5, 2)[..., ::-1]
        return Detections(
            np.concatenate([first, first + sides], axis=1),
            first[:, None] + fractions * sides[:, None],
            heat[0, rows, columns],
        )


def load_centerface(
    graph: bytes, parameters: DetectionParameters = PARAMETERS, *, open_session: SessionOpener = OnnxSession
) -> CenterFace:
    """Return the detector over the published ONNX file.

    Raises:
        WeightsError: It is another network.
    """
    return validate_detector(CenterFace(open_session(convert_to_pixel_input(graph)), parameters))
