"""The packs a process has loaded: each collection uses the one that computes its vectors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vultus.domain import SpaceRegistry
from vultus.errors import WeightsError
from vultus.models.catalog.entries import NetworkKind
from vultus.models.catalog.packs import get_liveness_networks, get_network
from vultus.models.loading import load_liveness, load_quality
from vultus.models.pipeline import FacePipeline, get_default_pack
from vultus.models.runtime.choice import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.models.weights.store import WeightsStore
    from vultus.settings import InferenceSettings, PhotoSettings


log = logging.getLogger(__name__)


class PipelineRegistry:
    """Loaded pipelines by embedding space.

    Attributes:
        spaces: What services know of them.

    Args:
        default: Used by new collections that request no other.
        others: Used by the collections that hold vectors of their embedding spaces.
    """

    def __init__(self, default: FacePipeline, *others: FacePipeline) -> None:
        self.default = default
        self.spaces = SpaceRegistry(*(pipeline.describe_space() for pipeline in (default, *others)))
        self._by_space = {pipeline.space.id: pipeline for pipeline in (*others, default)}

    @classmethod
    def load(cls, inference: InferenceSettings, photos: PhotoSettings, store: WeightsStore) -> PipelineRegistry:
        """Load the default pack and the further ones; blocks for about a second per pack.

        Raises:
            SetupError: The requested runtime is not available, or the outputs of a network in it differ.
            WeightsError: A file is missing or not the published one.
        """
        names = dict.fromkeys([inference.pack or get_default_pack(store), *inference.extra_packs])
        pipelines = [FacePipeline.load(inference, photos, store, pack=name) for name in names]
        for name in store.installation.list_chosen_packs():
            if name not in names:
                try:
                    pipelines.append(FacePipeline.load(inference, photos, store, pack=name))
                except WeightsError as error:
                    # Chosen earlier, not requested now: only the collections that hold its vectors need it.
                    log.error("pack %s, in use before, is not loaded: %s", name, error.detail)
        loaded, runtime = cls(*pipelines), Runtime(inference)
        log.info("runtime: %s", runtime.description)
        if inference.liveness:
            liveness_detector = load_liveness(get_liveness_networks(inference.liveness), store, runtime.open_detector)
            for pipeline in loaded:
                pipeline.liveness = liveness_detector
        if inference.quality:
            scorer = load_quality(get_network(inference.quality, NetworkKind.QUALITY), store, runtime.open_detector)
            for pipeline in loaded:
                pipeline.scorer = scorer
        return loaded

    def __iter__(self) -> Iterator[FacePipeline]:
        """Iterate over the pipelines, the default first."""
        yield self.default
        yield from (one for one in self._by_space.values() if one is not self.default)

    def get_pipeline_for_space(self, space_id: str) -> FacePipeline:
        """Return the pipeline that computes vectors of an embedding space.

        Raises:
            PackNotLoadedError: No loaded pack does.
        """
        return self._by_space[self.spaces.get_space(space_id).id]
