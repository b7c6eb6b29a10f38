"""Embedders of a single network: their differences are data, not code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.domain import FloatArray
    from vultus.models.runtime import NetworkSession

Channels = float | tuple[float, float, float]

MAX_BATCH = 8
"""Crops per network call: more gain nothing on a CPU, and memory would grow with the number of faces."""


@dataclass(frozen=True, slots=True)
class CropInput:
    """Input format and output dimension of an embedding network.

    Attributes:
        side: Of the square crop, pixels.
        dimension: Length of a vector.
        element: `uint8` for a network that takes raw pixels and normalises them itself, else `float32`.
        mean: Subtracted from red, green and blue, 0..255; only for `float32`.
        deviation: Divisor of the difference; only for `float32`.
        order: Of the channels.
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
    def description(self) -> str:
        """Part of the space's id: everything that changes a vector besides the weights and the views."""
        normalised = "" if self.element == "uint8" else f" minus {self.mean} over {self.deviation}"
        return f"{self.order}{normalised}; Umeyama, bilinear"

    def prepare_crops(self, chips: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the network input for (n, side, side, 3) uint8 RGB crops."""
        values: NDArray[Any] = chips
        if self.element == "float32":
            values = (chips - np.array(self.mean, np.float32)) / np.array(self.deviation, np.float32)
        if self.order == "BGR":
            values = values[..., ::-1]
        return values.transpose(0, 3, 1, 2) if self.layout == "NCHW" else values


class NetworkEmbedder:
    """A loaded network, whose first output is the vectors.

    Args:
        session: The network.
        crop_input: Its input format.
    """

    def __init__(self, session: NetworkSession, crop_input: CropInput) -> None:
        self._session = session
        self._crop_input = crop_input

    def embed(self, chips: NDArray[np.uint8]) -> FloatArray:
        """Return (n, dimension) float32 unit vectors.

        The vectors of a face's views are summed, then normalised.

        Args:
            chips: (n, views, side, side, 3) uint8, RGB.
        """
        crops = chips.reshape(-1, *chips.shape[2:])
        each = np.empty((len(crops), self._crop_input.dimension), np.float32)
        for start in range(0, len(crops), MAX_BATCH):
            each[start : start + MAX_BATCH] = self._session.run(
                self._crop_input.prepare_crops(crops[start : start + MAX_BATCH])
            )[0]
        vectors: FloatArray = each.reshape(*chips.shape[:2], self._crop_input.dimension).sum(axis=1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors
