"""CenterFace: a face is a peak of a heat map.

Xu, Yan, Yang, Luo, Li, He (2019), "CenterFace: Joint Face Detection and Alignment Using Face as Point", after Zhou,
Wang, Krähenbühl (2019), "Objects as Points".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import WeightsError
from vultus.models.detection.oneshot import Candidates, OneShotDetector, SearchParameters, checked
from vultus.models.detection.published import from_pixels
from vultus.models.runtime import OnnxSession

if TYPE_CHECKING:
    from vultus.domain import Pixels
    from vultus.models.runtime import Opener

PARAMETERS = SearchParameters(threshold=0.5, overlap=0.3, smallest_px=16, largest_px=512, closer_px=128)
STRIDE = 4
CHANNELS = [1, 2, 2, 10]


class CenterFace(OneShotDetector):
    """The published network with landmarks: heat map, logarithmic size, offset of the centre, landmarks."""

    def look(self, image: Pixels) -> Candidates:
        """Return the possible faces; the network names y before x everywhere."""
        outputs = self._network.run(image[None])
        if [output.shape[1] for output in outputs] != CHANNELS:
            raise WeightsError("The network does not answer as CenterFace with landmarks does; it is another network.")
        heat, sizes, offsets, points = (output[0] for output in outputs)
        rows, columns = np.nonzero(heat[0] >= self._parameters.doubt)
        cells = np.stack([columns, rows], axis=1)
        sides = np.exp(sizes[::-1, rows, columns].T) * STRIDE
        centres = (cells + offsets[::-1, rows, columns].T + 0.5) * STRIDE
        first = centres - sides / 2
        fractions = points[:, rows, columns].T.reshape(-1, 5, 2)[..., ::-1]
        return Candidates(
            np.concatenate([first, first + sides], axis=1),
            first[:, None] + fractions * sides[:, None],
            heat[0, rows, columns],
        )


def load_centerface(
    graph: bytes, parameters: SearchParameters = PARAMETERS, *, open_session: Opener = OnnxSession
) -> CenterFace:
    """Return the detector over the published ONNX file.

    Raises:
        WeightsError: It is another network.
    """
    return checked(CenterFace(open_session(from_pixels(graph)), parameters))
