"""The packs: a detector and an embedder that are used together, and every other pair by name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.domain import Calibration, Contract, QualityRule
from vultus.errors import NotFoundError, WeightsError
from vultus.models.catalog import detectors, embedders
from vultus.models.catalog.entries import Network
from vultus.models.catalog.others import OTHERS
from vultus.models.catalog.templates import template_for

if TYPE_CHECKING:
    from vultus.models.alignment import Template
    from vultus.models.catalog.entries import WeightsFile

NETWORKS = {network.name: network for network in (*detectors.DETECTORS, *embedders.EMBEDDERS, *OTHERS)}


@dataclass(frozen=True, slots=True)
class Pack:
    """Everything that must be used together: vectors of two packs are never compared.

    Attributes:
        calibration: Thresholds somebody measured; None where nobody has.
        enrol_rule: What a photo should reach to be enrolled.
        recognize_rule: What a face should reach to be recognised.
    """

    name: str
    detector: Network
    embedder: Network
    calibration: Calibration | None
    enrol_rule: QualityRule
    recognize_rule: QualityRule

    @property
    def networks(self) -> tuple[Network, Network]:
        """Detector and embedder."""
        return self.detector, self.embedder

    @property
    def pair(self) -> str:
        """The name every pack has: `DETECTOR+EMBEDDER`."""
        return f"{self.detector.name}+{self.embedder.name}"

    @property
    def commercial_use(self) -> bool:
        """Whether every network of the pack may be used commercially."""
        return all(network.licence.commercial_use for network in self.networks)

    @property
    def template(self) -> Template:
        """Where the detector's landmarks belong in the embedder's crops."""
        return template_for(self.detector.family, self.embedder.crop)

    @property
    def contract(self) -> Contract:
        """The vector space.

        Raises:
            WeightsError: The digest of some weights is not known yet.
        """
        return contract_of(self.detector, self.embedder, self.template)


def contract_of(detector: Network, embedder: Network, template: Template) -> Contract:
    """Name the vector space of an embedder fed by a detector.

    What moves vectors is part of the name, so that a change of it makes another contract. The detector's thresholds
    are not: they decide which faces are found, not where their landmarks fall.

    Args:
        detector: Its weights decide where landmarks fall.
        embedder: The network.
        template: Where the landmarks are put.

    Raises:
        WeightsError: The digest of some weights is not known yet.
    """
    weights = json.dumps({role: _digest(file, detector) for role, file in sorted(detector.files.items())})
    digest = hashlib.sha256(weights.encode()).hexdigest()[:8]
    points = " ".join(f"{x:g},{y:g}" for x, y in template.points)
    preprocessing = f"{detector.name} {digest}; {template.side} px, {points}; {embedder.steps}"
    sha256 = _digest(embedder.file, embedder)
    fields = [embedder.name, sha256, preprocessing, embedder.dimension]
    name = hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:8]
    return Contract(
        id=f"{embedder.name}-{name}",
        network=embedder.name,
        weights_sha256=sha256,
        preprocessing=preprocessing,
        dimension=embedder.dimension,
    )


def _digest(file: WeightsFile, network: Network) -> str:
    if file.sha256 is None:
        raise WeightsError(f"The weights of {network.name} are not there yet: vultus models pull {network.name}")
    return file.sha256


# A Gaussian blur of 4 pixels leaves LFW's crops a sharpness of 2 to 12, below 9.2 for 99 of 100. Of its
# 13,232 faces as they are, 1.2 % fail the first rule (23 by sharpness, 143 by pose) and 0.1 % the second.
MTCNN_RULES = (
    QualityRule(min_score=0.9, min_size_px=40, min_sharpness=10, max_yaw_deg=45, max_pitch_deg=60),
    QualityRule(min_score=0.8, min_size_px=25, min_sharpness=5, max_yaw_deg=60, max_pitch_deg=75),
)
# Other detectors score the same faces lower. What their scores mean for recognition has not been measured.
OTHER_RULES = (
    QualityRule(min_score=0.7, min_size_px=40, min_sharpness=10, max_yaw_deg=45, max_pitch_deg=60),
    QualityRule(min_score=0.5, min_size_px=25, min_sharpness=5, max_yaw_deg=60, max_pitch_deg=75),
)


def _pack(name: str, detector: Network, embedder: Network, calibration: Calibration | None = None) -> Pack:
    rules = MTCNN_RULES if detector.family == "mtcnn" else OTHER_RULES
    return Pack(name, detector, embedder, calibration, *rules)


BUILTIN = _pack(
    "builtin",
    detectors.MTCNN,
    embedders.DLIB_RESNET,
    Calibration(
        points=(
            (1e-1, 0.8825),
            (1e-2, 0.9107),
            (1e-3, 0.9290),
            (1e-4, 0.9435),
            (1e-5, 0.9550),
            (1e-6, 0.9639),
        ),
        margin=0.01,
        source="LFW deep-funnelled, 13,233 photos, all 87,294,040 pairs of different people; vultus evaluate pairs",
    ),
)

PACKS = {
    pack.name: pack
    for pack in (
        BUILTIN,
        _pack("buffalo_l", detectors.SCRFD_10G, embedders.ARCFACE_R50),
        _pack("buffalo_m", detectors.SCRFD_2_5G, embedders.ARCFACE_R50),
        _pack("buffalo_s", detectors.SCRFD_500M, embedders.ARCFACE_MBF),
        _pack("antelopev2", detectors.SCRFD_10G, embedders.ARCFACE_R100),
        _pack("auraface", detectors.YUNET, embedders.AURAFACE),
        _pack("opencv", detectors.YUNET, embedders.SFACE),
    )
}


def pack_named(name: str) -> Pack:
    """Return a pack by its name, or the one of two networks by theirs: `DETECTOR+EMBEDDER`.

    Raises:
        NotFoundError: There is none with this name, or the two networks do not go together.
    """
    if name in PACKS:
        return PACKS[name]
    first, plus, second = name.partition("+")
    if not plus:
        raise NotFoundError(
            f"There is no pack '{name}'; there are {', '.join(sorted(PACKS))}, and every DETECTOR+EMBEDDER."
        )
    detector, embedder = network_named(first), network_named(second)
    if (detector.kind, embedder.kind) != ("detector", "embedder"):
        raise NotFoundError(
            f"There is no pack '{name}': the kind of {first} is {detector.kind}, that of {second} {embedder.kind}; "
            "a pack is DETECTOR+EMBEDDER."
        )
    for pack in PACKS.values():
        if pack.pair == name:
            return pack
    if embedder.crop:  # DeepFace tells its own only when it is loaded
        template_for(detector.family, embedder.crop)
    return _pack(name, detector, embedder)


def network_named(name: str) -> Network:
    """Return a network.

    Raises:
        NotFoundError: There is none with this name.
    """
    if name.startswith(embedders.DEEPFACE_PREFIX):
        return embedders.deepface_network(name.removeprefix(embedders.DEEPFACE_PREFIX))
    if name not in NETWORKS:
        raise NotFoundError(
            f"There is no network '{name}'; there are {', '.join(sorted(NETWORKS))}, and deepface:NAME for those of "
            "DeepFace."
        )
    return NETWORKS[name]


def networks_named(name: str) -> tuple[Network, ...]:
    """Return the networks of a pack, or one network, by name.

    Raises:
        NotFoundError: There is neither.
    """
    if name in PACKS or "+" in name:
        return pack_named(name).networks
    return (network_named(name),)
