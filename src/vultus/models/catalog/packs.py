"""Packs: a detector and an embedder that are used together, by name."""

from __future__ import annotations

from dataclasses import dataclass

from vultus.errors import NotFoundError
from vultus.models.catalog.detectors import DETECTORS, JUDGES
from vultus.models.catalog.embedders import DEEPFACE_PREFIX, EMBEDDERS, deepface_network
from vultus.models.catalog.entries import Kind, Licence, Network

NETWORKS = {network.name: network for network in (*DETECTORS, *EMBEDDERS, *JUDGES)}


@dataclass(frozen=True, slots=True)
class Pack:
    """Networks that must be used together: vectors of two packs are never compared."""

    name: str
    detector: Network
    embedder: Network

    @property
    def licences(self) -> tuple[Licence, ...]:
        """Of its networks, each once."""
        return tuple(dict.fromkeys((self.detector.licence, self.embedder.licence)))

    @property
    def commercial_use(self) -> bool:
        """Whether every network of the pack may be used commercially."""
        return all(licence.commercial_use for licence in self.licences)


def _pack(name: str, detector: str, embedder: str) -> Pack:
    return Pack(name, NETWORKS[detector], NETWORKS[embedder])


BUILTIN = _pack("builtin", "mtcnn", "dlib-resnet")

PACKS = {
    pack.name: pack
    for pack in (
        BUILTIN,
        _pack("opencv", "yunet", "sface"),
        _pack("auraface", "yunet", "auraface"),
        _pack("buffalo_l", "scrfd-10g", "arcface-r50"),
        _pack("buffalo_m", "scrfd-2.5g", "arcface-r50"),
        _pack("buffalo_s", "scrfd-500m", "arcface-mbf"),
        _pack("antelopev2", "scrfd-10g", "arcface-r100"),
    )
}
"""The packs with a name of their own; any other is written DETECTOR+EMBEDDER."""


def network_named(name: str, *kinds: Kind) -> Network:
    """Return a network of the catalogue, or `deepface:MODEL`.

    Args:
        name: As in the catalogue.
        kinds: Those it may be of; any when none is given.

    Raises:
        NotFoundError: There is none, or it is of another kind.
    """
    if name.startswith(DEEPFACE_PREFIX):
        network = deepface_network(name.removeprefix(DEEPFACE_PREFIX))
    elif name in NETWORKS:
        network = NETWORKS[name]
    else:
        known = [one.name for one in NETWORKS.values() if not kinds or one.kind in kinds]
        raise NotFoundError(f"There is no network '{name}'; there are {', '.join(known)} and deepface:MODEL.")
    if kinds and network.kind not in kinds:
        raise NotFoundError(f"'{name}' is a network of kind {network.kind}, not {' or '.join(kinds)}.")
    return network


def pack_named(name: str) -> Pack:
    """Return a pack: one with a name of its own, or DETECTOR+EMBEDDER.

    Raises:
        NotFoundError: There is no such pack, detector or embedder.
    """
    if name in PACKS:
        return PACKS[name]
    detector, plus, embedder = name.partition("+")
    if not plus:
        raise NotFoundError(
            f"There is no pack '{name}'; there are {', '.join(PACKS)}, and any DETECTOR+EMBEDDER such as yunet+sface."
        )
    return Pack(name, network_named(detector, Kind.DETECTOR), network_named(embedder, Kind.EMBEDDER))
