"""dlib's ResNet: 150 × 150 crops to 128 numbers, each crop averaged with its mirror image."""

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

        The vector of a crop and of its mirror image are added: a face is nearly symmetric, the noise of alignment and
        lighting is not.

        Args:
            chips: (n, 150, 150, 3) uint8, RGB.
        """
        vectors = np.empty((len(chips), DIMENSION), np.float32)
        for start in range(0, len(chips), MAX_BATCH // 2):
            part = chips[start : start + MAX_BATCH // 2]
            (both,) = self._session.run(np.concatenate([part, part[:, :, ::-1]]))
            vectors[start : start + len(part)] = both[: len(part)] + both[len(part) :]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors
