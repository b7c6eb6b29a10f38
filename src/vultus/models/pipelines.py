"""The packs a process has loaded: every collection is served by the one that makes its vectors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vultus.errors import NotFoundError, PackNotLoadedError, WeightsError
from vultus.models.catalog.entries import Kind
from vultus.models.catalog.packs import network_named
from vultus.models.loading import load_liveness, load_quality
from vultus.models.pipeline import FacePipeline, default_pack
from vultus.models.runtime.choice import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.models.weights.store import WeightsStore
    from vultus.settings import InferenceSettings, PhotoSettings


log = logging.getLogger(__name__)


class Pipelines:
    """Loaded pipelines by contract.

    Args:
        default: Serves new collections that ask for no other.
        others: Serve the collections that hold vectors of their contracts.
    """

    def __init__(self, default: FacePipeline, *others: FacePipeline) -> None:
        self.default = default
        self._by_contract = {pipeline.contract.id: pipeline for pipeline in (*others, default)}

    @classmethod
    def load(cls, inference: InferenceSettings, photos: PhotoSettings, store: WeightsStore) -> Pipelines:
        """Load the default pack and the further ones; blocks for about a second a pack.

        Raises:
            SetupError: The runtime asked for cannot be used here, or a network answers differently in it.
            WeightsError: A file is missing or not the published one.
        """
        names = dict.fromkeys([inference.pack or default_pack(store), *inference.extra_packs])
        pipelines = [FacePipeline.load(inference, photos, store, pack=name) for name in names]
        for name in store.records.chosen():
            if name not in names:
                try:
                    pipelines.append(FacePipeline.load(inference, photos, store, pack=name))
                except WeightsError as error:
                    # Chosen once, not asked for now: only the collections that hold its vectors miss it.
                    log.error("pack %s, in use before, is not loaded: %s", name, error.detail)
        loaded, runtime = cls(*pipelines), Runtime(inference)
        log.info("runtime: %s", runtime.words)
        if inference.liveness:
            watch = load_liveness(network_named(inference.liveness, Kind.LIVENESS), store, runtime.open_detector)
            for pipeline in loaded:
                pipeline.liveness = watch
        if inference.quality:
            scorer = load_quality(network_named(inference.quality, Kind.QUALITY), store, runtime.open_detector)
            for pipeline in loaded:
                pipeline.scorer = scorer
        return loaded

    def __iter__(self) -> Iterator[FacePipeline]:
        """Iterate over the pipelines, the default first."""
        yield self.default
        yield from (one for one in self._by_contract.values() if one is not self.default)

    def told(self) -> Pipelines:
        """Return what another process is told of them: all but the networks."""
        return Pipelines(*(one.told() for one in self))

    def of(self, contract_id: str) -> FacePipeline:
        """Return the pipeline that makes vectors of a contract.

        Raises:
            PackNotLoadedError: None of the loaded packs does.
        """
        found = self._by_contract.get(contract_id)
        if found is None:
            raise PackNotLoadedError(
                f"The collection holds vectors of contract '{contract_id}', which none of the loaded packs makes "
                f"({', '.join(one.pack.name for one in self)}). If its pack was chosen after the server was started, "
                "start that again; else name it in VULTUS_INFERENCE__EXTRA_PACKS.",
                contract_id=contract_id,
            )
        return found

    def named(self, pack: str) -> FacePipeline:
        """Return the pipeline of a pack.

        Raises:
            NotFoundError: The pack is not loaded.
        """
        for one in self:
            if one.pack.name == pack:
                return one
        raise NotFoundError(
            f"Pack '{pack}' is not loaded; loaded are {', '.join(one.pack.name for one in self)}. Name it in "
            "VULTUS_INFERENCE__EXTRA_PACKS and start again."
        )
