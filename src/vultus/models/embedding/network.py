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
        mirror: Whether the vectors of a crop and of its mirror image are added: a face is nearly symmetric, the noise
            of alignment and lighting is not.
    """

    side: int
    dimension: int
    element: Literal["float32", "uint8"] = "float32"
    mean: Channels = 0.0
    deviation: Channels = 1.0
    order: Literal["RGB", "BGR"] = "RGB"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    mirror: bool = True

    @property
    def steps(self) -> str:
        """How crops become vectors, in the words of a contract: all that moves one besides weights and landmarks."""
        normalised = "" if self.element == "uint8" else f" minus {self.mean} over {self.deviation}"
        return f"{self.order}{normalised}; Umeyama, bilinear{'; mirror average' if self.mirror else ''}"

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

        Args:
            chips: (n, side, side, 3) uint8, RGB.
        """
        vectors = np.empty((len(chips), self._spec.dimension), np.float32)
        step = MAX_BATCH // 2 if self._spec.mirror else MAX_BATCH
        for start in range(0, len(chips), step):
            part = chips[start : start + step]
            views = np.concatenate([part, part[:, :, ::-1]]) if self._spec.mirror else part
            output = self._session.run(self._spec.prepare(views))[0]
            vectors[start : start + step] = output.reshape(-1, *vectors[start : start + step].shape).sum(axis=0)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors
