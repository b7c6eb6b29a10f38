"""A second pack for tests: the same networks fed with another alignment, so a vector space of its own."""

from __future__ import annotations

from dataclasses import replace

from vultus.models.alignment import Template
from vultus.models.catalog import contract_of
from vultus.models.pipeline import FacePipeline
from vultus.settings import InferenceSettings, PhotoSettings

CLOSER = 0.9
"""How large the face is in the other pack's chip, compared with the first one's."""


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
        other, pipeline._detector, pipeline._embedder, inference=InferenceSettings(), photos=PhotoSettings()
    )
