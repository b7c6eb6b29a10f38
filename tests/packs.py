"""A second pack for tests: the same networks with another alignment and with permuted coordinates.

Cosines within it are as accurate as the first one's; cosines between the two are meaningless, as between networks.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from vultus.models.imaging.alignment import AlignmentTemplate
from vultus.models.views import MirrorCropper

if TYPE_CHECKING:
    from vultus.domain import FloatArray, Pixels
    from vultus.models.embedding import Embedder
    from vultus.models.pipeline import FacePipeline

CLOSER = 0.9
"""Size of the face in the other pack's chip, relative to the first one's."""


class Reversed:
    """An embedder whose coordinates come in reverse order, every second one with the other sign."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def embed(self, chips: Pixels) -> FloatArray:
        vectors = self._embedder.embed(chips)[:, ::-1].copy()
        vectors[:, ::2] *= -1
        return vectors


def zoomed(pipeline: FacePipeline, *, by: float = CLOSER, name: str = "zoomed") -> FacePipeline:
    """Return a pipeline of the same networks whose chips show the face smaller or larger."""
    template = pipeline._template
    middle = template.side / 2
    points = tuple((middle + (x - middle) * by, middle + (y - middle) * by) for x, y in template.points)
    other = copy.copy(pipeline)
    other.pack = replace(pipeline.pack, name=name)
    other.space = replace(pipeline.space, id=f"test-{name}", preprocessing=f"test {name}")
    other._template = AlignmentTemplate(template.side, points)
    other._view_cropper = MirrorCropper()
    other._embedder = Reversed(pipeline._embedder)
    return other
