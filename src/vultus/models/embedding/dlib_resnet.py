"""dlib's ResNet: 150 × 150 crops to 128 numbers, averaged over the crops of a face."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vultus.models.embedding.dlib_resnet_graph import DIMENSION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.domain import FloatArray
    from vultus.models.runtime import Session

MAX_BATCH = 8
"""Crops a network call: more gain nothing on a CPU and would hold memory for every face of a crowd at once."""


class DlibResnet:
    """The loaded network."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def embed(self, chips: NDArray[np.uint8]) -> FloatArray:
        """Return (n, 128) float32 unit vectors.

        The vectors of a face's crops are added: what differs between the crops is the noise of alignment and lighting.

        Args:
            chips: (n, views, 150, 150, 3) uint8, RGB.
        """
        crops = chips.reshape(-1, *chips.shape[2:])
        each = np.empty((len(crops), DIMENSION), np.float32)
        for start in range(0, len(crops), MAX_BATCH):
            (each[start : start + MAX_BATCH],) = self._session.run(crops[start : start + MAX_BATCH])
        vectors: FloatArray = each.reshape(*chips.shape[:2], DIMENSION).sum(axis=1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors
