"""eDifFIQA: a score of how well a face can be recognised, learned from the similarities of a recognition network.

Babnik, Peer, Štruc (2024), "eDifFIQA: Towards Efficient Face Image Quality Assessment Based on Denoising Diffusion
Probabilistic Models", IEEE T-BIOM 6(4). The smallest of the published networks is in OpenCV's zoo as
`ediffiqa_tiny_jun2024.onnx`: input float32 (1, 3, 112, 112), RGB, −1..1; output float32 (1, 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.domain import FloatArray
    from vultus.models.runtime import NetworkSession

SIDE = 112
PIXEL_MEAN = 127.5


class Ediffiqa:
    """The loaded network; safe for concurrent use by several threads."""

    def __init__(self, session: NetworkSession) -> None:
        self._session = session

    def score_chips(self, chips: NDArray[np.uint8]) -> FloatArray:
        """Return (n,) float32 qualities, 0..1, higher is better.

        The network's last layer is linear, so its outputs are clipped to 0..1.

        Args:
            chips: (n, 112, 112, 3) uint8, RGB, aligned as for ArcFace.
        """
        planes = (chips.transpose(0, 3, 1, 2).astype(np.float32) - PIXEL_MEAN) / PIXEL_MEAN
        # One by one: the published graph has a batch size of one.
        found = [float(self._session.run(one[None])[0].squeeze()) for one in planes]
        return np.clip(np.array(found, np.float32), 0, 1)
