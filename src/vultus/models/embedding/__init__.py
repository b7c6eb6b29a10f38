"""Embedders: vectors of aligned face crops. One file per family, one Protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray

    from vultus.domain import FloatArray


class Embedder(Protocol):
    """Computes unit vectors of aligned crops."""

    def embed(self, chips: NDArray[uint8]) -> FloatArray:
        """Return (n, d) float32 unit vectors.

        Args:
            chips: (n, views, side, side, 3) uint8, RGB, the views of each face; n may be 0.
        """
        ...
