"""From a network of the catalogue to an object that runs it: one table a kind, keyed by the network's family.

To run another family, write its code in `detection` or `embedding` and add its loader here. A loader reads weights only
through the store, which verifies them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from vultus.errors import WeightsError
from vultus.models.catalog.entries import Network
from vultus.models.detection import Detector, mtcnn, mtcnn_graph
from vultus.models.embedding import Embedder, dlib_resnet, dlib_resnet_graph
from vultus.models.runtime import OnnxSession
from vultus.models.store import WeightsStore

if TYPE_CHECKING:
    from vultus.models.catalog.packs import Pack

Loader = TypeVar("Loader")
DetectorLoader = Callable[[Network, WeightsStore], Detector]
EmbedderLoader = Callable[[Network, WeightsStore], tuple[Embedder, Network]]
"""Returns the network too: a loader that learns digest, crop and steps only by loading fills them in."""


def load_mtcnn(network: Network, store: WeightsStore) -> Detector:
    """Load the three networks of the cascade."""
    builders = {"pnet": mtcnn_graph.build_pnet, "rnet": mtcnn_graph.build_rnet, "onet": mtcnn_graph.build_onet}
    pnet, rnet, onet = (
        OnnxSession(store.graph(network.files[role], build, version=mtcnn_graph.BUILDER_VERSION))
        for role, build in builders.items()
    )
    return mtcnn.Mtcnn(pnet, rnet, onet, mtcnn.PARAMETERS)


def load_dlib_resnet(network: Network, store: WeightsStore) -> tuple[Embedder, Network]:
    """Load dlib's network, built as an ONNX graph."""
    graph = store.graph(network.file, dlib_resnet_graph.build_resnet, version=dlib_resnet_graph.BUILDER_VERSION)
    return dlib_resnet.DlibResnet(OnnxSession(graph)), network


DETECTORS: dict[str, DetectorLoader] = {"mtcnn": load_mtcnn}
EMBEDDERS: dict[str, EmbedderLoader] = {"dlib-resnet": load_dlib_resnet}


def load_pack(pack: Pack, store: WeightsStore) -> tuple[Detector, Embedder, Pack]:
    """Load the networks of a pack, and return it with everything known: digests, and its kept thresholds.

    Raises:
        LicenceError: A licence forbids the use, or was not accepted.
        WeightsError: A file is missing or not the published one, or no code here runs the network.
    """
    for network in pack.networks:
        store.permit(network)
    seen = store.settled(pack.detector)
    detector = _loader(DETECTORS, seen)(seen, store)
    named = store.settled(pack.embedder)
    embedder, named = _loader(EMBEDDERS, named)(named, store)
    whole = replace(pack, detector=seen, embedder=named)
    # Thresholds that were measured here and kept know this installation's photos better than the catalogue's.
    kept = store.records.calibration(whole.contract.id)
    return detector, embedder, replace(whole, calibration=kept or whole.calibration)


def _loader(table: Mapping[str, Loader], network: Network) -> Loader:
    if network.family not in table:
        raise WeightsError(
            f"This version has no code that runs {network.name}; it runs networks of {', '.join(sorted(table))}."
        )
    return table[network.family]
