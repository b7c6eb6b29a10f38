"""Detectors. Average precision is that of WIDER FACE's validation set, easy, medium and hard."""

from __future__ import annotations

from vultus.models.catalog import licences
from vultus.models.catalog.entries import DownloadedFile, Licence, Network, PackagedFile, WeightsFile
from vultus.models.catalog.sources import OPENCV_ZOO, insightface_file


def _precision(easy: float, medium: float, hard: float) -> dict[str, float]:
    return {"WIDER FACE easy": easy, "WIDER FACE medium": medium, "WIDER FACE hard": hard}


def _mtcnn_file(name: str, sha256: str) -> WeightsFile:
    return PackagedFile("mtcnn", "1.0.0", f"mtcnn/assets/weights/{name}.lz4", sha256)


MTCNN = Network(
    name="mtcnn",
    kind="detector",
    family="mtcnn",
    files={
        "pnet": _mtcnn_file("pnet", "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5"),
        "rnet": _mtcnn_file("rnet", "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee"),
        "onet": _mtcnn_file("onet", "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3"),
    },
    licence=licences.MTCNN_MIT,
    paper="Zhang, Zhang, Li, Qiao (2016), "
    '"Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks"',
    inputs="RGB, (pixel − 127.5) / 128, a pyramid of the image in steps of 0.709; crops of 24 and 48 pixels",
    published=_precision(84.8, 82.5, 59.8),
)


def _retinaface(backbone: str, file: DownloadedFile, published: dict[str, float]) -> Network:
    return Network(
        name=f"retinaface-{backbone}",
        kind="detector",
        family="retinaface",
        files={"network": file},
        licence=licences.RETINAFACE_MIT,
        paper="Deng, Guo, Ververas, Kotsia, Zafeiriou (2020), "
        '"RetinaFace: Single-Shot Multi-Level Face Localisation in the Wild"',
        inputs="BGR, pixel − (104, 117, 123), any size in multiples of 32; a PyTorch state dict",
        published=published,
    )


RETINAFACE_MOBILENET = _retinaface(
    "mobilenet0.25",
    DownloadedFile(
        "retinaface_mobilenet0.25_Final.pth",
        sha256="2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
        size=1789735,
    ),
    _precision(90.6, 87.9, 74.0),
)

RETINAFACE_RESNET = _retinaface("resnet50", DownloadedFile("retinaface_resnet50_Final.pth"), {})


def _scrfd(size: str, file: DownloadedFile, published: dict[str, float]) -> Network:
    return Network(
        name=f"scrfd-{size}",
        kind="detector",
        family="scrfd",
        files={"network": file},
        licence=licences.INSIGHTFACE,
        paper="Guo, Deng, Lattas, Zafeiriou (2022), "
        '"Sample and Computation Redistribution for Efficient Face Detection"',
        inputs="RGB, (pixel − 127.5) / 128, any size in multiples of 32",
        published=published,
    )


SCRFD_500M = _scrfd(
    "500m",
    insightface_file(
        "buffalo_sc.zip", "det_500m.onnx", "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a"
    ),
    _precision(91.0, 88.4, 69.5),
)
SCRFD_2_5G = _scrfd(
    "2.5g",
    insightface_file(
        "buffalo_m.zip", "det_2.5g.onnx", "041f73f47371333d1d17a6fee6c8ab4e6aecabefe398ff32cca4e2d5eaee0af9"
    ),
    _precision(93.8, 92.0, 77.1),
)
SCRFD_10G = _scrfd(
    "10g",
    insightface_file(
        "buffalo_l.zip", "det_10g.onnx", "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"
    ),
    _precision(95.4, 94.0, 82.8),
)


def _yunet(name: str, file: DownloadedFile, licence: Licence, published: dict[str, float]) -> Network:
    return Network(
        name=name,
        kind="detector",
        family="yunet",
        files={"network": file},
        licence=licence,
        paper='Wu, Peng, Yu (2023), "YuNet: A Tiny Millisecond-level Face Detector"',
        inputs="BGR, plain pixels, any size in multiples of 32",
        published=published,
    )


YUNET = _yunet(
    "yunet",
    DownloadedFile(
        "face_detection_yunet_2023mar.onnx",
        url=f"{OPENCV_ZOO}/face_detection_yunet/face_detection_yunet_2023mar.onnx",
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    ),
    licences.YUNET_MIT,
    _precision(88.4, 86.6, 75.0),
)

YUNET_N = _yunet(
    "yunet-n",
    DownloadedFile(
        "yunet_n_dynamic.onnx",
        url="https://github.com/ShiqiYu/libfacedetection.train/raw/master/onnx/yunet_n_dynamic.onnx",
        sha256="104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
        size=322906,
    ),
    licences.YUNET_BSD,
    {},
)

CENTERFACE = Network(
    name="centerface",
    kind="detector",
    family="centerface",
    files={
        "network": DownloadedFile(
            "centerface.onnx",
            url="https://github.com/Star-Clouds/CenterFace/raw/master/models/onnx/centerface.onnx",
        )
    },
    licence=licences.CENTERFACE_MIT,
    paper='Xu, Yan, Yang, Zhu, Ye (2019), "CenterFace: Joint Face Detection and Alignment Using Face as Point"',
    inputs="RGB, plain pixels, any size in multiples of 32",
    published=_precision(92.2, 91.1, 78.2),
)

DETECTORS = (
    MTCNN,
    RETINAFACE_MOBILENET,
    RETINAFACE_RESNET,
    SCRFD_500M,
    SCRFD_2_5G,
    SCRFD_10G,
    YUNET,
    YUNET_N,
    CENTERFACE,
)
