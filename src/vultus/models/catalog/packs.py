"""Packs: named pairs of a detector and an embedder."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vultus.errors import NotFoundError
from vultus.models.catalog.detectors import DETECTORS, FACE_ASSESSORS
from vultus.models.catalog.embedders import DEEPFACE_PREFIX, EMBEDDERS, build_deepface_network
from vultus.models.catalog.entries import Licence, Network, NetworkKind

NETWORKS = {network.name: network for network in (*DETECTORS, *EMBEDDERS, *FACE_ASSESSORS)}


@dataclass(frozen=True, slots=True)
class Pack:
    """A detector and an embedder that are used together: vectors of two packs are never compared.

    Attributes:
        name: A name of its own, or DETECTOR+EMBEDDER.
        detector: Finds faces.
        embedder: Computes vectors.
        is_mirrored: Whether the vectors of a crop and its mirror image are averaged, for twice the time.
        caution: What whoever relies on it must know; None if its stated rates hold for everybody measured.
    """

    name: str
    detector: Network
    embedder: Network
    is_mirrored: bool = True
    caution: str | None = None

    @property
    def licences(self) -> tuple[Licence, ...]:
        """Licences of its networks, without duplicates."""
        return tuple(dict.fromkeys((self.detector.licence, self.embedder.licence)))

    @property
    def is_commercial_use_allowed(self) -> bool:
        """Whether every network of the pack may be used commercially."""
        return all(licence.commercial_use for licence in self.licences)


def _build_pack(name: str, detector: str, embedder: str) -> Pack:
    return Pack(name, NETWORKS[detector], NETWORKS[embedder])


BUILTIN = replace(
    _build_pack("builtin", "mtcnn", "dlib-resnet"),
    caution=(
        "The built-in pack confuses some people far more often than others: where its threshold lets one pair of "
        "strangers in 10,000 pass on LFW, it is one in 350 of adults of one sex and age band, and one in 9 of young "
        "Asian women. It is there for want of the recommended pack. Run vultus models pull sface, then "
        "vultus models use sface, and migrate the collections that hold its vectors."
    ),
)
RECOMMENDED = replace(_build_pack("sface", "yunet", "sface"), is_mirrored=False)
"""The default, once its weights are there: commercially clean, and the fairest of those measured."""

PACKS = {
    pack.name: pack
    for pack in (
        RECOMMENDED,
        BUILTIN,
        _build_pack("opencv", "yunet", "sface"),
        _build_pack("auraface", "yunet", "auraface"),
        _build_pack("buffalo_l", "scrfd-10g", "arcface-r50"),
        _build_pack("buffalo_m", "scrfd-2.5g", "arcface-r50"),
        _build_pack("buffalo_s", "scrfd-500m", "arcface-mbf"),
        _build_pack("antelopev2", "scrfd-10g", "arcface-r100"),
    )
}
"""The packs with a name of their own; the name of any other is DETECTOR+EMBEDDER."""


def get_network(name: str, *kinds: NetworkKind) -> Network:
    """Return a network of the catalogue, or `deepface:MODEL`.

    Args:
        name: As in the catalogue.
        kinds: Allowed kinds; any if none is given.

    Raises:
        NotFoundError: There is no such network, or it is of another kind.
    """
    if name.startswith(DEEPFACE_PREFIX):
        network = build_deepface_network(name.removeprefix(DEEPFACE_PREFIX))
    elif name in NETWORKS:
        network = NETWORKS[name]
    else:
        known = [one.name for one in NETWORKS.values() if not kinds or one.kind in kinds]
        raise NotFoundError(f"There is no network '{name}'; there are {', '.join(known)} and deepface:MODEL.")
    if kinds and network.kind not in kinds:
        raise NotFoundError(f"'{name}' is a network of kind {network.kind}, not {' or '.join(kinds)}.")
    return network


def get_liveness_networks(name: str) -> tuple[Network, ...]:
    """Return a liveness network by its name, or the networks of an ensemble, NAME+NAME, in the catalogue's order.

    Raises:
        NotFoundError: There is no such network, or it is of another kind.
    """
    names = {get_network(part, NetworkKind.LIVENESS).name for part in name.split("+")}
    return tuple(network for network in FACE_ASSESSORS if network.name in names)


def get_pack(name: str) -> Pack:
    """Return a pack by its name, or by DETECTOR+EMBEDDER.

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
    return Pack(name, get_network(detector, NetworkKind.DETECTOR), get_network(embedder, NetworkKind.EMBEDDER))
