"""Load packs: the code that runs each network family, and the alignment of a detector's landmarks to an embedder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.domain import Calibration, EmbeddingSpace
from vultus.errors import WeightsError
from vultus.models.catalog.embedders import DLIB_RESNET
from vultus.models.catalog.measured import (
    CALIBRATIONS,
    DEFAULT_DLIB_CHIP,
    DLIB_CHIPS,
    DLIB_FACE_SQUARE,
    DLIB_FIVE_POINTS,
)
from vultus.models.catalog.packs import BUILTIN, Pack
from vultus.models.detection import Detector, dlib_landmarks, mtcnn_graph, retinaface_graph
from vultus.models.detection.centerface import load_centerface
from vultus.models.detection.mtcnn import Mtcnn
from vultus.models.detection.retinaface import load_retinaface
from vultus.models.detection.scrfd import load_scrfd
from vultus.models.detection.yunet import load_yunet
from vultus.models.embedding import Embedder, dlib_resnet_graph, facenet_graph, inputs
from vultus.models.embedding.deepface import load_deepface
from vultus.models.embedding.network import CropInput, NetworkEmbedder
from vultus.models.imaging.alignment import AlignmentTemplate
from vultus.models.liveness import load_minifasnet, minifasnet_graph
from vultus.models.liveness.ensemble import LivenessEnsemble, LivenessRule, LivenessScorer
from vultus.models.liveness.facenox import Facenox
from vultus.models.quality.ediffiqa import Ediffiqa
from vultus.models.quality.face_classifier import FaceClassifier
from vultus.models.runtime import OnnxSession
from vultus.models.views import MirrorCropper, PlainCropper, RealignedCropper, ViewCropper
from vultus.models.weights.graph_preparation import prepare_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.models.catalog.entries import Network
    from vultus.models.runtime import NetworkSession, SessionOpener
    from vultus.models.runtime.choice import Runtime
    from vultus.models.weights.store import WeightsStore

CROP_INPUTS = {
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
    "facenet512": inputs.build_deepface_input(160, 512),
}
"""Input format of each embedder."""

MTCNN_BUILDERS = {"pnet": mtcnn_graph.build_pnet, "rnet": mtcnn_graph.build_rnet, "onet": mtcnn_graph.build_onet}
"""What builds the networks of MTCNN's cascade, in its order."""

FACENET_NAMES = {"facenet", "facenet512"}
DLIB_NAMES = {"dlib-resnet", "deepface:Dlib"}


@dataclass(frozen=True, slots=True)
class LoadedPack:
    """A pack whose weights were verified and loaded.

    Attributes:
        detector: Finds faces.
        embedder: Computes vectors from aligned crops.
        template: Target positions of this detector's landmarks in this embedder's crops.
        frontal: Positions of this detector's landmarks on a frontal face, in the crop from which quality is measured.
        face_classifier: Tells faces from what a detector takes for one, in the same crop.
        view_cropper: Crops the views whose vectors are averaged.
        space: The embedding space, identified by what was loaded.
        calibration: Thresholds measured for the embedding space; None if the pack has no calibration.
        runtime: Description of the runtime of the detector and of the embedder.
    """

    pack: Pack
    detector: Detector
    embedder: Embedder
    template: AlignmentTemplate
    frontal: AlignmentTemplate
    face_classifier: FaceClassifier
    view_cropper: ViewCropper
    space: EmbeddingSpace
    calibration: Calibration | None
    runtime: dict[str, str]


def load_pack(pack: Pack, store: WeightsStore, runtime: Runtime) -> LoadedPack:
    """Verify and load a pack's networks; blocks for about a second.

    Raises:
        SetupError: The outputs of a network in this runtime differ from the reference.
        WeightsError: Weights are missing, damaged or of another network.
        LicenceError: A licence was not accepted, or does not allow the configured usage.
    """
    store.check_licences(pack.detector, pack.embedder)
    detector = _load_detector(pack.detector, store, runtime.open_detector)
    embedder, crop, digest, embedder_runtime = _load_embedder(pack.embedder, store, runtime)
    template = get_alignment_template(pack, crop)
    view_cropper = _load_view_cropper(pack, template, store)
    space = build_embedding_space(
        pack,
        template,
        crop,
        view_cropper,
        detector_digests={role: store.get_digest(file) for role, file in pack.detector.files.items()},
        embedder_digest=digest,
    )
    # A calibration measured by this installation takes precedence over the published one.
    calibration = store.installation.find_calibration(space.id) or CALIBRATIONS.get(space.id)
    frontal = DLIB_CHIPS.get(pack.detector.name, DEFAULT_DLIB_CHIP)
    classifier = FaceClassifier(_load_mtcnn_network("onet", BUILTIN.detector, store, runtime.open_detector), frontal)
    runtimes = {"detector": runtime.detector_description, "embedder": embedder_runtime}
    return LoadedPack(
        pack, detector, embedder, template, frontal, classifier, view_cropper, space, calibration, runtimes
    )


def load_liveness(
    networks: Sequence[Network], store: WeightsStore, open_session: SessionOpener = OnnxSession
) -> LivenessEnsemble:
    """Verify and load the network that detects presentation attacks, or several whose scores are averaged.

    Raises:
        WeightsError: Weights are missing, damaged or of another network.
    """
    store.check_licences(*networks)
    scorers = [_load_liveness_scorer(network, store, open_session) for network in networks]
    return LivenessEnsemble(scorers, LivenessRule())


def load_quality(network: Network, store: WeightsStore, open_session: SessionOpener = OnnxSession) -> Ediffiqa:
    """Verify and load the network that scores face quality.

    Raises:
        WeightsError: Weights are missing, damaged or of another network.
    """
    store.check_licences(network)
    return Ediffiqa(open_session(store.read_weights(network.files["weights"])))


def has_alignment_template(pack: Pack) -> bool:
    """Return whether the detector's landmarks have an alignment template for the embedder's crops."""
    return pack.embedder.name not in DLIB_NAMES or pack.detector.name in DLIB_CHIPS


def get_alignment_template(pack: Pack, crop: CropInput) -> AlignmentTemplate:
    """Return the target positions of a detector's landmarks in an embedder's crop.

    dlib's network was trained on crops aligned by dlib's own landmarks, so the positions of each detector's landmarks
    in those crops were measured. The others were trained on crops aligned by five landmarks like the detectors' own.

    Raises:
        WeightsError: The detector's landmarks were never measured in dlib's crops.
    """
    if pack.embedder.name in DLIB_NAMES:
        if not has_alignment_template(pack):
            raise WeightsError(
                f"dlib's network was not measured with the landmarks of {pack.detector.name}; choose one of these "
                f"detectors: {', '.join(DLIB_CHIPS)}."
            )
        return DLIB_CHIPS[pack.detector.name]
    if pack.embedder.name in FACENET_NAMES or "Facenet" in pack.embedder.name:
        return inputs.FACENET_TEMPLATE
    return inputs.build_arcface_template(crop.side)


def build_embedding_space(
    pack: Pack,
    template: AlignmentTemplate,
    crop: CropInput,
    view_cropper: ViewCropper,
    *,
    detector_digests: dict[str, str],
    embedder_digest: str,
) -> EmbeddingSpace:
    """Return the embedding space of an embedder whose crops are aligned by a detector.

    Everything that changes vectors is part of the space's id, so that a change of it makes another space. The
    detector's thresholds are not: they decide which faces are found, not where their landmarks are.

    Args:
        pack: Its detector determines the positions of the landmarks.
        template: Target positions of the landmarks.
        crop: How pixels are preprocessed.
        view_cropper: The views of a face and how their vectors are averaged.
        detector_digests: SHA-256 of the detector's weights by role.
        embedder_digest: SHA-256 of the embedder's weights.
    """
    weights = json.dumps(dict(sorted(detector_digests.items())))
    digest = hashlib.sha256(weights.encode()).hexdigest()[:8]
    found, averaged = view_cropper.descriptions
    steps = [f"{pack.detector.name} {digest}", template.description, found, crop.description, averaged]
    preprocessing = "; ".join(step for step in steps if step)
    fields = [pack.embedder.name, embedder_digest, preprocessing, crop.dimension]
    name = hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:8]
    return EmbeddingSpace(
        id=f"{pack.embedder.name.replace(':', '-').lower()}-{name}",
        network=pack.embedder.name,
        weights_sha256=embedder_digest,
        preprocessing=preprocessing,
        dimension=crop.dimension,
    )


def _load_view_cropper(pack: Pack, template: AlignmentTemplate, store: WeightsStore) -> ViewCropper:
    if pack.embedder.name not in DLIB_NAMES:
        return MirrorCropper() if pack.is_mirrored else PlainCropper()
    file = DLIB_RESNET.files["landmarks"]
    square = " ".join(f"{number:g}" for number in DLIB_FACE_SQUARE)
    name = f"dlib-5-points {store.get_digest(file)[:8]} in {square}"
    finder = dlib_landmarks.DlibLandmarkPredictor(store.read_weights(file), DLIB_FACE_SQUARE)
    return RealignedCropper(finder, name, template, DLIB_FIVE_POINTS)


def _load_detector(network: Network, store: WeightsStore, open_session: SessionOpener) -> Detector:
    if network.family == "mtcnn":
        pnet, rnet, onet = (_load_mtcnn_network(role, network, store, open_session) for role in MTCNN_BUILDERS)
        return Mtcnn(pnet, rnet, onet)
    if network.family == "retinaface":
        graph = store.build_graph(network.files["weights"], retinaface_graph.build_retinaface)
        return load_retinaface(graph, open_session=open_session)
    load = {"yunet": load_yunet, "scrfd": load_scrfd, "centerface": load_centerface}[network.family]
    return load(store.read_weights(network.files["weights"]), open_session=open_session)


def _load_liveness_scorer(network: Network, store: WeightsStore, open_session: SessionOpener) -> LivenessScorer:
    if network.family == "minifasnet":
        build = minifasnet_graph.build_minifasnet
        v2, v1se = (store.build_graph(network.files[role], build) for role in ("v2", "v1se"))
        return load_minifasnet(v2, v1se, open_session=open_session)
    return Facenox(open_session(store.build_graph(network.files["weights"], prepare_graph)))


def _load_mtcnn_network(
    role: str, network: Network, store: WeightsStore, open_session: SessionOpener
) -> NetworkSession:
    """Return one of the three networks of MTCNN's cascade: `pnet`, `rnet` or `onet`."""
    return open_session(store.build_graph(network.files[role], MTCNN_BUILDERS[role]))


def _load_embedder(network: Network, store: WeightsStore, runtime: Runtime) -> tuple[Embedder, CropInput, str, str]:
    """Return the embedder, its input format, the SHA-256 of its weights, and a description of its runtime."""
    if network.family == "deepface":
        model = load_deepface(network.name.partition(":")[2])
        return model.embedder, model.crop_input, model.weights_sha256, "DeepFace's own"
    file, crop = network.files["weights"], CROP_INPUTS[network.name]
    if network.family == "dlib-resnet":
        graph = store.build_graph(file, dlib_resnet_graph.build_resnet)
    elif network.family == "facenet":
        graph = store.build_graph(file, facenet_graph.build_facenet)
    else:
        graph = store.build_graph(file, prepare_graph)
    session = runtime.open_embedder(graph)
    return NetworkEmbedder(session, crop), crop, store.get_digest(file), session.description
