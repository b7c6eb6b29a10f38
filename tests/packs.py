"""Packs for tests: one without its networks, and a second one of the same networks with another alignment.

Cosines within the second are as accurate as the first one's; cosines between the two are meaningless, as between
networks, because its coordinates are permuted.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vultus.domain import EmbeddingSpace
from vultus.models.catalog.measured import CALIBRATIONS
from vultus.models.catalog.packs import get_pack
from vultus.models.imaging.alignment import AlignmentTemplate
from vultus.models.loading import LoadedPack
from vultus.models.pipeline import FacePipeline
from vultus.models.views import MirrorCropper
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from vultus.domain import FloatArray, Pixels
    from vultus.models.embedding import Embedder

FIRST, SECOND = "dlib-resnet-8fd92ff4", "mobilefacenet-f960ec8a"
PACKS = {FIRST: "builtin", SECOND: "yunet-n+mobilefacenet"}
"""Embedding spaces of two packs, with the thresholds and margins that were measured for them."""

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


def describe_pipeline(space_id: str, dimension: int = 128, *, min_face_px: int | None = None) -> FacePipeline:
    """Return the pipeline of one of `PACKS` without its networks, which most services do not need.

    Args:
        space_id: The embedding space.
        dimension: Length of the vectors that a test takes for its own.
        min_face_px: The setting.
    """
    without: Any = None
    pack, calibration = get_pack(PACKS[space_id]), CALIBRATIONS[space_id]
    space = EmbeddingSpace(space_id, pack.embedder.name, "0" * 64, "made up", dimension)
    loaded = LoadedPack(pack, without, without, without, without, without, without, space, calibration, {})
    inference = InferenceSettings(min_face_px=min_face_px)
    return FacePipeline(loaded, inference=inference, photos=PhotoSettings(), calibration=calibration)
