"""Embedding networks of the catalogue."""

from __future__ import annotations

from dataclasses import replace

from vultus.models.catalog.detectors import (
    ANTELOPE,
    BUFFALO_L,
    BUFFALO_SC,
    OPENCV_ZOO_URL,
    OPENCV_ZOO_WHEEL,
    build_insightface_file,
)
from vultus.models.catalog.entries import Network, NetworkKind, PackagedFile, PublishedFile, WeightsFile
from vultus.models.catalog.licences import APACHE, CC0, DEEPFACE, INSIGHTFACE, VGGFACE2, WEBFACE

DEEPFACE_PREFIX = "deepface:"

_DEEPFACE_RELEASE = "https://github.com/serengil/deepface_models/releases/download/v1.0"
_ADAFACE_RELEASE = "https://github.com/yakhyo/adaface-onnx/releases/download/weights"
_ARCFACE_PAPER = "Deng, Guo, Xue, Zafeiriou (2019), ArcFace: Additive Angular Margin Loss for Deep Face Recognition"
_FACENET_PAPER = "Schroff, Kalenichenko, Philbin (2015), FaceNet: A Unified Embedding for Recognition and Clustering"
_ADAFACE_PAPER = "Kim, Jain, Liu (2022), AdaFace: Quality Adaptive Margin for Face Recognition"


def _build_dlib_file(name: str, sha256: str) -> PackagedFile:
    return PackagedFile("face_recognition_models", "0.3.0", f"face_recognition_models/models/{name}.dat", sha256)


DLIB_RESNET = Network(
    name="dlib-resnet",
    kind=NetworkKind.EMBEDDER,
    family="dlib-resnet",
    files={
        "weights": _build_dlib_file(
            "dlib_face_recognition_resnet_model_v1", "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
        ),
        "landmarks": _build_dlib_file(
            "shape_predictor_5_face_landmarks", "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"
        ),
    },
    licence=CC0,
    paper="King (2017), High Quality Face Recognition with Deep Metric Learning; after He, Zhang, Ren, Sun (2016)",
    inputs="RGB 0..255, 150 x 150 crops by the detector's landmarks and by dlib's five-point predictor",
    published={"LFW": 99.38},
    dimension=128,
)

_ARCFACE = Network(
    name="",
    kind=NetworkKind.EMBEDDER,
    family="onnx",
    files={},
    licence=INSIGHTFACE,
    paper=_ARCFACE_PAPER,
    inputs="RGB minus 127.5 over 127.5, 112 x 112 aligned crop",
    dimension=512,
)


def _build_weights_files(file: WeightsFile) -> dict[str, WeightsFile]:
    return {"weights": file}


EMBEDDERS = (
    DLIB_RESNET,
    replace(
        _ARCFACE,
        name="arcface-r50",
        files=_build_weights_files(
            build_insightface_file(
                BUFFALO_L, "w600k_r50.onnx", "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43"
            )
        ),
        published={"LFW": 99.83, "CFP-FP": 99.33, "AgeDB-30": 98.23, "IJB-C TAR at FMR 1e-4": 97.25},
    ),
    replace(
        _ARCFACE,
        name="arcface-mbf",
        files=_build_weights_files(
            build_insightface_file(
                BUFFALO_SC, "w600k_mbf.onnx", "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f"
            )
        ),
        published={"LFW": 99.70, "CFP-FP": 98.00, "AgeDB-30": 96.58, "IJB-C TAR at FMR 1e-4": 95.02},
    ),
    replace(
        _ARCFACE,
        name="arcface-r100",
        files=_build_weights_files(
            build_insightface_file(
                ANTELOPE, "glintr100.onnx", "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf"
            )
        ),
    ),
    replace(
        _ARCFACE,
        name="auraface",
        files=_build_weights_files(
            PublishedFile(
                "auraface_glintr100.onnx",
                "a7933ea5330113b01c9b60351d8f4c33003f145d8470ac5f0e52ee2effe25c60",
                "https://huggingface.co/fal/AuraFace-v1/resolve/main/glintr100.onnx",
            )
        ),
        licence=APACHE,
        paper=f"{_ARCFACE_PAPER}; AuraFace-v1 by fal (2024)",
    ),
    Network(
        name="mobilefacenet",
        kind=NetworkKind.EMBEDDER,
        family="onnx",
        files=_build_weights_files(
            PublishedFile(
                "MobileFaceNet.onnx",
                "b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507",
                "https://github.com/foamliu/MobileFaceNet/raw/master/weights/MobileFaceNet.onnx",
            )
        ),
        licence=APACHE,
        paper="Chen, Liu, Gao, Han (2018), MobileFaceNets: Efficient CNNs for Real-Time Face Verification; foamliu",
        inputs="RGB, ImageNet's mean and deviation, 112 x 112 aligned crop",
        published={"LFW": 99.48},
        dimension=128,
    ),
    Network(
        name="sface",
        kind=NetworkKind.EMBEDDER,
        family="onnx",
        files=_build_weights_files(
            PublishedFile(
                "face_recognition_sface_2021dec.onnx",
                "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
                f"{OPENCV_ZOO_URL}/face_recognition_sface/face_recognition_sface_2021dec.onnx",
                wheel=OPENCV_ZOO_WHEEL,
            )
        ),
        licence=APACHE,
        paper="Zhong, Deng, Hu, Zhao, Li, Wen (2021), SFace: Sigmoid-Constrained Hypersphere Loss",
        inputs="RGB 0..255, 112 x 112 aligned crop",
        published={"LFW": 99.40},
        dimension=128,
    ),
    Network(
        name="facenet",
        kind=NetworkKind.EMBEDDER,
        family="facenet",
        files=_build_weights_files(
            PublishedFile(
                "20180402-114759-vggface2.pt",
                None,
                "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",
            )
        ),
        licence=VGGFACE2,
        paper=f"{_FACENET_PAPER}; Inception-ResNet v1 of facenet-pytorch",
        inputs="RGB minus 127.5 over 128, 160 x 160 aligned crop",
        published={"LFW": 99.65},
        dimension=512,
    ),
    Network(
        name="facenet512",
        kind=NetworkKind.EMBEDDER,
        family="onnx",
        files=_build_weights_files(
            PublishedFile("facenet512_weights.onnx", None, f"{_DEEPFACE_RELEASE}/facenet512_weights.onnx")
        ),
        licence=VGGFACE2,
        paper=f"{_FACENET_PAPER}; DeepFace's export of FaceNet-512",
        inputs="BGR over 255, 160 x 160 aligned crop",
        published={"LFW (DeepFace's pipeline)": 98.4},
        dimension=512,
    ),
    Network(
        name="adaface-r18",
        kind=NetworkKind.EMBEDDER,
        family="onnx",
        files=_build_weights_files(
            PublishedFile(
                "adaface_ir_18.onnx",
                "6b6a35772fb636cdd4fa86520c1a259d0c41472a76f70f802b351837a00d9870",
                f"{_ADAFACE_RELEASE}/adaface_ir_18.onnx",
            )
        ),
        licence=WEBFACE,
        paper=f"{_ADAFACE_PAPER}; IR-18, yakhyo's export",
        inputs="BGR minus 127.5 over 127.5, 112 x 112 aligned crop",
        published={"IJB-C TAR at FMR 1e-4": 94.99},
        dimension=512,
    ),
    Network(
        name="adaface-r101",
        kind=NetworkKind.EMBEDDER,
        family="onnx",
        files=_build_weights_files(
            PublishedFile(
                "adaface_ir_101.onnx",
                "f2eb07d03de0af560a82e1214df799fec5e09375d43521e2868f9dc387e5a43e",
                f"{_ADAFACE_RELEASE}/adaface_ir_101.onnx",
            )
        ),
        licence=WEBFACE,
        paper=f"{_ADAFACE_PAPER}; IR-101, yakhyo's export",
        inputs="BGR minus 127.5 over 127.5, 112 x 112 aligned crop",
        published={"IJB-C TAR at FMR 1e-4": 97.66},
        dimension=512,
    ),
)


def build_deepface_network(model: str) -> Network:
    """Return the entry of a recognition model of the package DeepFace, by DeepFace's name for it."""
    return Network(
        name=f"{DEEPFACE_PREFIX}{model}",
        kind=NetworkKind.EMBEDDER,
        family="deepface",
        files={},
        licence=DEEPFACE,
        paper="Serengil, Ozpinar (2024), A Benchmark of Facial Recognition Pipelines and Co-Usability Performances",
        inputs="what DeepFace's model takes; its weights lie in DeepFace's own folder",
    )
