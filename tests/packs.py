"""A second pack for tests: the same networks with another alignment, and coordinates in another order.

Within it cosines are as good as the first one's; between the two they mean nothing, as between real networks.
"""

from __future__ import annotations

from dataclasses import replace

from vultus.domain import FloatArray, Pixels
from vultus.models.alignment import Template
from vultus.models.catalog import contract_of
from vultus.models.embedding import Embedder
from vultus.models.pipeline import FacePipeline
from vultus.settings import InferenceSettings, PhotoSettings

CLOSER = 0.9
"""How large the face is in the other pack's chip, compared with the first one's."""


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
    pack = pipeline.pack
    middle = pack.template.side / 2
    points = tuple((middle + (x - middle) * by, middle + (y - middle) * by) for x, y in pack.template.points)
    template = Template(pack.template.side, points)
    other = replace(
        pack,
        name=name,
        template=template,
        contract=contract_of(pack.detector, pack.embedder, template, f"test {name}"),
    )
    return FacePipeline(
        other, pipeline._detector, Reversed(pipeline._embedder), inference=InferenceSettings(), photos=PhotoSettings()
    )
