"""Embedders that are one network fed with crops: whatever differs between them is data, not code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.domain import FloatArray
    from vultus.models.runtime import Session

Channels = float | tuple[float, float, float]

MAX_BATCH = 8
"""Crops a network call: more gain nothing on a CPU and would hold memory for every face of a crowd at once."""


@dataclass(frozen=True, slots=True)
class CropInput:
    """What a network is fed with and what it answers.

    Attributes:
        side: Of the square crop, pixels.
        dimension: Numbers in a vector.
        element: `uint8` for a network that takes pixels as they are and normalises itself, else `float32`.
        mean: Subtracted from red, green and blue, 0..255; only for `float32`.
        deviation: What the difference is divided by; only for `float32`.
        order: Of the channels the network was trained on.
        layout: NCHW for (batch, channels, height, width), NHWC for channels last.
    """

    side: int
    dimension: int
    element: Literal["float32", "uint8"] = "float32"
    mean: Channels = 0.0
    deviation: Channels = 1.0
    order: Literal["RGB", "BGR"] = "RGB"
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    @property
    def steps(self) -> str:
        """How crops become vectors, in the words of a contract: all that moves one besides weights and views."""
        normalised = "" if self.element == "uint8" else f" minus {self.mean} over {self.deviation}"
        return f"{self.order}{normalised}; Umeyama, bilinear"

    def prepare(self, chips: NDArray[np.uint8]) -> NDArray[Any]:
        """Return what the network takes for (n, side, side, 3) RGB crops."""
        values: NDArray[Any] = chips
        if self.element == "float32":
            values = (chips - np.array(self.mean, np.float32)) / np.array(self.deviation, np.float32)
        if self.order == "BGR":
            values = values[..., ::-1]
        return values.transpose(0, 3, 1, 2) if self.layout == "NCHW" else values


class NetworkEmbedder:
    """A loaded network; its first output are the vectors.

    Args:
        session: The network.
        spec: What it is fed with.
    """

    def __init__(self, session: Session, spec: CropInput) -> None:
        self._session = session
        self._spec = spec

    def embed(self, chips: NDArray[np.uint8]) -> FloatArray:
        """Return (n, dimension) float32 unit vectors.

        The vectors of a face's crops are added.

        Args:
            chips: (n, views, side, side, 3) uint8, RGB.
        """
        crops = chips.reshape(-1, *chips.shape[2:])
        each = np.empty((len(crops), self._spec.dimension), np.float32)
        for start in range(0, len(crops), MAX_BATCH):
            each[start : start + MAX_BATCH] = self._session.run(self._spec.prepare(crops[start : start + MAX_BATCH]))[0]
        vectors: FloatArray = each.reshape(*chips.shape[:2], self._spec.dimension).sum(axis=1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors
