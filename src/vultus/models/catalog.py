"""The known model packs, as frozen data: weights, licences, parameters, contract and calibration."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from vultus.domain import Calibration, Contract, QualityRule
from vultus.models.alignment import Template
from vultus.models.detection.mtcnn import MtcnnParameters


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file inside an installed Python package.

    Attributes:
        package: Distribution name.
        version: The one whose file has the digest.
        path: Relative to the folder the package is installed in.
        sha256: Lower-case hexadecimal.
    """

    package: str
    version: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms of a network's weights."""

    name: str
    commercial_use: bool


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """A detector: its networks by role."""

    name: str
    files: dict[str, WeightsFile]
    licence: Licence
    parameters: MtcnnParameters


@dataclass(frozen=True, slots=True)
class LandmarkSpec:
    """A second opinion about where the face's landmarks are, found in the crop that the detector's gave.

    Attributes:
        name: Of the network.
        file: Its weights.
        licence: Their terms.
        square: Left, top and side, in that crop, of where the detector it was trained with would see the face.
        template: Where its landmarks belong in the crop cut by them.
    """

    name: str
    file: WeightsFile
    licence: Licence
    square: tuple[float, float, float]
    template: Template


@dataclass(frozen=True, slots=True)
class EmbedderSpec:
    """An embedding network."""

    name: str
    file: WeightsFile
    licence: Licence
    input_side: int
    dimension: int


@dataclass(frozen=True, slots=True)
class Pack:
    """Everything that must be used together: vectors of two packs are never compared."""

    name: str
    detector: DetectorSpec
    embedder: EmbedderSpec
    template: Template
    landmarks: LandmarkSpec
    contract: Contract
    calibration: Calibration
    enrol_rule: QualityRule
    recognize_rule: QualityRule

    @property
    def commercial_use(self) -> bool:
        """Whether every network of the pack may be used commercially."""
        return all(part.licence.commercial_use for part in (self.detector, self.landmarks, self.embedder))


def contract_of(
    detector: DetectorSpec, embedder: EmbedderSpec, template: Template, landmarks: LandmarkSpec, steps: str
) -> Contract:
    """Name the vector space of an embedder fed by a detector.

    What moves vectors is part of the name, so that a change of it makes another contract. The detector's thresholds
    are not: they decide which faces are found, not where their landmarks fall.

    Args:
        detector: Its weights decide where landmarks fall.
        embedder: The network.
        template: Where the landmarks are put.
        landmarks: The second opinion.
        steps: How pixels are prepared and vectors are averaged, in words.
    """
    weights = json.dumps({role: file.sha256 for role, file in sorted(detector.files.items())})
    digest = hashlib.sha256(weights.encode()).hexdigest()[:8]
    square = " ".join(f"{number:g}" for number in landmarks.square)
    second = f"{landmarks.name} {landmarks.file.sha256[:8]} in {square}; {_places(landmarks.template)}"
    preprocessing = f"{detector.name} {digest}; {_places(template)}; {second}; {steps}"
    fields = [embedder.name, embedder.file.sha256, preprocessing, embedder.dimension]
    name = hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:8]
    return Contract(
        id=f"{embedder.name}-{name}",
        network=embedder.name,
        weights_sha256=embedder.file.sha256,
        preprocessing=preprocessing,
        dimension=embedder.dimension,
    )


def _places(template: Template) -> str:
    return f"{template.side} px, {' '.join(f'{x:g},{y:g}' for x, y in template.points)}"


def _mtcnn_file(name: str, sha256: str) -> WeightsFile:
    return WeightsFile("mtcnn", "1.0.0", f"mtcnn/assets/weights/{name}.lz4", sha256)


MTCNN = DetectorSpec(
    name="mtcnn",
    files={
        "pnet": _mtcnn_file("pnet", "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5"),
        "rnet": _mtcnn_file("rnet", "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee"),
        "onet": _mtcnn_file("onet", "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3"),
    },
    licence=Licence("MIT", commercial_use=True),
    parameters=MtcnnParameters(
        pyramid_factor=0.709, thresholds=(0.6, 0.7, 0.8), max_proposals=2000, duplicate_distance=0.25
    ),
)


def _dlib_file(name: str, sha256: str) -> WeightsFile:
    return WeightsFile("face_recognition_models", "0.3.0", f"face_recognition_models/models/{name}.dat", sha256)


DLIB_RESNET = EmbedderSpec(
    name="dlib-resnet",
    file=_dlib_file(
        "dlib_face_recognition_resnet_model_v1", "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
    ),
    licence=Licence("CC0-1.0", commercial_use=True),
    input_side=150,
    dimension=128,
)

MTCNN_IN_DLIB_CHIP = Template(
    side=150, points=((46.6, 44.9), (100.4, 45.0), (74.0, 77.1), (49.5, 103.7), (97.0, 104.5))
)
"""Median landmarks of MTCNN in the crops dlib's own aligner makes of 243 LFW faces."""

DLIB_FIVE_POINTS = LandmarkSpec(
    name="dlib-5-points",
    file=_dlib_file(
        "shape_predictor_5_face_landmarks", "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"
    ),
    licence=Licence("CC0-1.0", commercial_use=True),
    # Median of dlib's detections on 1,189 LFW photos.
    square=(0.2, 4.3, 135.9),
    # The mean face of dlib's own aligner, with 25 % padding.
    template=Template(
        side=150, points=((110.96, 46.35), (89.61, 47.9), (37.06, 46.37), (58.41, 47.91), (74.01, 87.78))
    ),
)

BUILTIN = Pack(
    name="builtin",
    detector=MTCNN,
    embedder=DLIB_RESNET,
    template=MTCNN_IN_DLIB_CHIP,
    landmarks=DLIB_FIVE_POINTS,
    contract=contract_of(
        MTCNN,
        DLIB_RESNET,
        MTCNN_IN_DLIB_CHIP,
        DLIB_FIVE_POINTS,
        "RGB; Umeyama, bilinear; average of the first crop mirrored and the second",
    ),
    calibration=Calibration(
        points=(
            (1e-1, 0.8829),
            (1e-2, 0.9111),
            (1e-3, 0.9293),
            (1e-4, 0.9437),
            (1e-5, 0.9552),
            (1e-6, 0.9641),
        ),
        margin=0.01,
        source="LFW deep-funnelled, 13,233 photos, all 87,294,040 pairs of different people; vultus evaluate pairs",
    ),
    # A Gaussian blur of 4 pixels leaves LFW's crops a sharpness of 2 to 12, below 9.2 for 99 of 100. Of its
    # 13,232 faces as they are, 1.2 % fail the first rule (23 by sharpness, 143 by pose) and 0.1 % the second.
    enrol_rule=QualityRule(min_score=0.9, min_size_px=40, min_sharpness=10, max_yaw_deg=45, max_pitch_deg=60),
    recognize_rule=QualityRule(min_score=0.8, min_size_px=25, min_sharpness=5, max_yaw_deg=60, max_pitch_deg=75),
)

PACKS = {pack.name: pack for pack in (BUILTIN,)}
