"""From names to running networks: which code runs which family, and how a detector's crops fit an embedder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.domain import Calibration, Contract
from vultus.errors import WeightsError
from vultus.models.catalog.embedders import DLIB_RESNET
from vultus.models.catalog.measured import CALIBRATIONS, DLIB_CHIPS, DLIB_FIVE_POINTS, DLIB_SQUARE, FRONTAL
from vultus.models.catalog.packs import Pack
from vultus.models.detection import Detector, dlib_landmarks, mtcnn_graph, retinaface_graph
from vultus.models.detection.centerface import load_centerface
from vultus.models.detection.mtcnn import Mtcnn
from vultus.models.detection.retinaface import load_retinaface
from vultus.models.detection.scrfd import load_scrfd
from vultus.models.detection.yunet import load_yunet
from vultus.models.embedding import Embedder, dlib_resnet_graph, facenet_graph, inputs
from vultus.models.embedding.deepface import load_deepface
from vultus.models.embedding.network import CropInput, NetworkEmbedder
from vultus.models.imaging.alignment import Template
from vultus.models.liveness import LivenessDetector, load_minifasnet
from vultus.models.quality.ediffiqa import Ediffiqa
from vultus.models.runtime import OnnxSession
from vultus.models.views import Mirrored, SecondOpinion, Views

if TYPE_CHECKING:
    from vultus.models.catalog.entries import Network
    from vultus.models.runtime import Opener
    from vultus.models.runtime.choice import Runtime
    from vultus.models.weights.store import WeightsStore

CROPS = {
    "dlib-resnet": inputs.DLIB,
    "arcface-r50": inputs.ARCFACE,
    "arcface-mbf": inputs.ARCFACE,
    "arcface-r100": inputs.ARCFACE,
    "auraface": inputs.ARCFACE,
    "mobilefacenet": inputs.MOBILE_FACE_NET,
    "sface": inputs.SFACE,
    "adaface-r18": inputs.ADAFACE,
    "adaface-r101": inputs.ADAFACE,
    "facenet": inputs.FACENET,
    "facenet512": inputs.deepface_input(160, 512),
}
"""What each embedder takes."""

FACENETS = {"facenet", "facenet512"}
DLIB_MODELS = {"dlib-resnet", "deepface:Dlib"}


@dataclass(frozen=True, slots=True)
class LoadedPack:
    """A pack whose weights were verified and loaded.

    Attributes:
        detector: Finds faces.
        embedder: Turns aligned crops into vectors.
        template: Where this detector's landmarks belong in this embedder's crops.
        frontal: Where this detector's landmarks lie on a face that looks into the camera, in a crop for its quality.
        views: Cuts the crops whose vectors are averaged.
        contract: The vector space, named after what was loaded.
        calibration: Thresholds measured for the contract; None when nobody has.
        runtime: What runs the detector and the embedder, in words.
    """

    pack: Pack
    detector: Detector
    embedder: Embedder
    template: Template
    frontal: Template
    views: Views
    contract: Contract
    calibration: Calibration | None
    runtime: dict[str, str]


def load_pack(pack: Pack, store: WeightsStore, runtime: Runtime) -> LoadedPack:
    """Verify and load a pack's networks; blocks for about a second.

    Raises:
        SetupError: In this runtime a network does not answer as it should.
        WeightsError: Weights are missing, damaged or of another network.
        LicenceError: A licence was not accepted, or does not allow what the settings say.
    """
    store.check_licences(pack.detector, pack.embedder)
    detector = _load_detector(pack.detector, store, runtime.open_detector)
    embedder, crop, digest, words = _load_embedder(pack.embedder, store, runtime)
    template = template_of(pack, crop)
    views = _views(pack, template, store)
    contract = contract_of(
        pack,
        template,
        crop,
        views,
        detector_digests={role: store.digest(file) for role, file in pack.detector.files.items()},
        embedder_digest=digest,
    )
    # What was measured and kept here goes before what was measured elsewhere.
    calibration = store.records.calibration(contract.id) or CALIBRATIONS.get(contract.id)
    frontal = DLIB_CHIPS.get(pack.detector.name, FRONTAL)
    engines = {"detector": runtime.detectors, "embedder": words}
    return LoadedPack(pack, detector, embedder, template, frontal, views, contract, calibration, engines)


def load_liveness(network: Network, store: WeightsStore, open_session: Opener = OnnxSession) -> LivenessDetector:
    """Verify and load what tells live faces from pictures of faces.

    Raises:
        WeightsError: Weights are missing, damaged or of another network.
    """
    store.check_licences(network)
    v2, v1se = (store.read(network.files[role]) for role in ("v2", "v1se"))
    return load_minifasnet(v2, v1se, open_session=open_session)


def load_quality(network: Network, store: WeightsStore, open_session: Opener = OnnxSession) -> Ediffiqa:
    """Verify and load what scores the quality of faces.

    Raises:
        WeightsError: Weights are missing, damaged or of another network.
    """
    store.check_licences(network)
    return Ediffiqa(open_session(store.read(network.files["weights"])))


def fits(pack: Pack) -> bool:
    """Say whether it is known where the detector's landmarks belong in the embedder's crop."""
    return pack.embedder.name not in DLIB_MODELS or pack.detector.name in DLIB_CHIPS


def template_of(pack: Pack, crop: CropInput) -> Template:
    """Return where a detector's landmarks belong in an embedder's crop.

    dlib's network saw crops made from landmarks of its own, so each detector's place in them was measured. The others
    were trained on crops made from five landmarks like the detectors' own.

    Raises:
        WeightsError: The detector's landmarks were never measured in dlib's crops.
    """
    if pack.embedder.name in DLIB_MODELS:
        if not fits(pack):
            raise WeightsError(
                f"dlib's network was not measured with the landmarks of {pack.detector.name}; choose one of these "
                f"detectors: {', '.join(DLIB_CHIPS)}."
            )
        return DLIB_CHIPS[pack.detector.name]
    if pack.embedder.name in FACENETS or "Facenet" in pack.embedder.name:
        return inputs.FACENET_TEMPLATE
    return inputs.arcface_template(crop.side)


def contract_of(
    pack: Pack,
    template: Template,
    crop: CropInput,
    views: Views,
    *,
    detector_digests: dict[str, str],
    embedder_digest: str,
) -> Contract:
    """Name the vector space of an embedder fed by a detector.

    What moves vectors is part of the name, so that a change of it makes another contract. The detector's thresholds
    are not: they decide which faces are found, not where their landmarks fall.

    Args:
        pack: Its detector decides where landmarks fall.
        template: Where the landmarks are put.
        crop: How pixels are prepared.
        views: Which crops there are and how their vectors are averaged.
        detector_digests: SHA-256 of the detector's weights by role.
        embedder_digest: SHA-256 of the embedder's weights.
    """
    weights = json.dumps(dict(sorted(detector_digests.items())))
    digest = hashlib.sha256(weights.encode()).hexdigest()[:8]
    found, averaged = views.steps
    steps = [f"{pack.detector.name} {digest}", template.words, found, crop.steps, averaged]
    preprocessing = "; ".join(step for step in steps if step)
    fields = [pack.embedder.name, embedder_digest, preprocessing, crop.dimension]
    name = hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:8]
    return Contract(
        id=f"{pack.embedder.name.replace(':', '-').lower()}-{name}",
        network=pack.embedder.name,
        weights_sha256=embedder_digest,
        preprocessing=preprocessing,
        dimension=crop.dimension,
    )


def _views(pack: Pack, template: Template, store: WeightsStore) -> Views:
    if pack.embedder.name not in DLIB_MODELS:
        return Mirrored()
    file = DLIB_RESNET.files["landmarks"]
    square = " ".join(f"{number:g}" for number in DLIB_SQUARE)
    name = f"dlib-5-points {store.digest(file)[:8]} in {square}"
    decode, version = dlib_landmarks.decode_predictor, dlib_landmarks.DECODER_VERSION
    finder = dlib_landmarks.DlibLandmarks(store.graph(file, decode, version=version, form="npz"), DLIB_SQUARE)
    return SecondOpinion(finder, name, template, DLIB_FIVE_POINTS)


def _load_detector(network: Network, store: WeightsStore, open_session: Opener) -> Detector:
    if network.family == "mtcnn":
        builders = {"pnet": mtcnn_graph.build_pnet, "rnet": mtcnn_graph.build_rnet, "onet": mtcnn_graph.build_onet}
        pnet, rnet, onet = (
            open_session(store.graph(network.files[role], build, version=mtcnn_graph.BUILDER_VERSION))
            for role, build in builders.items()
        )
        return Mtcnn(pnet, rnet, onet)
    if network.family == "retinaface":
        build = retinaface_graph.build_retinaface
        graph = store.graph(network.files["weights"], build, version=retinaface_graph.BUILDER_VERSION)
        return load_retinaface(graph, open_session=open_session)
    load = {"yunet": load_yunet, "scrfd": load_scrfd, "centerface": load_centerface}[network.family]
    return load(store.read(network.files["weights"]), open_session=open_session)


def _load_embedder(network: Network, store: WeightsStore, runtime: Runtime) -> tuple[Embedder, CropInput, str, str]:
    """Return the embedder, what it takes, the SHA-256 of its weights, and what runs it."""
    if network.family == "deepface":
        model = load_deepface(network.name.partition(":")[2])
        return model.embedder, model.spec, model.weights_sha256, "DeepFace's own"
    file, crop = network.files["weights"], CROPS[network.name]
    if network.family == "dlib-resnet":
        graph = store.graph(file, dlib_resnet_graph.build_resnet, version=dlib_resnet_graph.BUILDER_VERSION)
    elif network.family == "facenet":
        graph = store.graph(file, facenet_graph.build_facenet, version=facenet_graph.BUILDER_VERSION)
    else:
        graph = store.read(file)
    session = runtime.open_embedder(graph)
    return NetworkEmbedder(session, crop), crop, store.digest(file), session.words
