"""Input formats of the known embedding networks, and target positions of landmarks in their crops."""

from __future__ import annotations

from vultus.models.embedding.network import CropInput
from vultus.models.imaging.alignment import AlignmentTemplate

DLIB = CropInput(side=150, dimension=128, element="uint8", layout="NHWC")
"""dlib's ResNet as `dlib_resnet_graph` builds it."""

ARCFACE = CropInput(side=112, dimension=512, mean=127.5, deviation=127.5)
"""InsightFace's w600k_r50, w600k_mbf and glintr100, and AuraFace (Deng et al. 2019, "ArcFace")."""

MOBILE_FACE_NET = CropInput(side=112, dimension=128, mean=(123.675, 116.28, 103.53), deviation=(58.395, 57.12, 57.375))
"""foamliu's MobileFaceNet (Chen et al. 2018): mean and deviation of ImageNet."""

SFACE = CropInput(side=112, dimension=128)
"""SFace 2021dec of OpenCV's model zoo (Zhong et al. 2021): plain pixels, as in `FaceRecognizerSF`.

OpenCV's threshold is a cosine of 0.363.
"""

ADAFACE = CropInput(side=112, dimension=512, mean=127.5, deviation=127.5, order="BGR")
"""AdaFace IR-18 and IR-101 (Kim, Jain, Liu 2022) as yakhyo exported them."""

FACENET = CropInput(side=160, dimension=512, element="uint8", layout="NHWC")
"""FaceNet as `facenet_graph` builds it: (pixel − 127.5) / 128 is part of the graph."""


def build_deepface_input(side: int, dimension: int) -> CropInput:
    """Return the input format of the networks DeepFace publishes: BGR divided by 255, its normalisation `base`.

    It is `build_deepface_input(160, 512)` for facenet512_weights.onnx, `build_deepface_input(160, 128)` for
    facenet_weights.onnx and `build_deepface_input(112, 512)` for arcface_weights.onnx. Their thresholds were published
    for this normalisation, whichever the networks were trained with.
    """
    return CropInput(side, dimension, deviation=255.0, order="BGR", layout="NHWC")


ARCFACE_POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Landmarks in the 112-pixel crops of ArcFace and of networks trained on its aligned photos (Deng et al. 2019).

As published, although (0, 0) is the centre of the first pixel there and its corner here. Shifting by half a pixel to
correct this costs MobileFaceNet on LFW 6 of 8,101 pairs at FMR 1e-3 and 22 at 1e-5, a quarter of a pixel 2 and 4:
hardly more than chance, but no reason to deviate from the published values.
"""

FACENET_TEMPLATE = AlignmentTemplate(
    side=160, points=((55.0, 66.9), (109.7, 65.9), (83.0, 91.6), (59.2, 113.4), (108.2, 112.6))
)
"""Median landmarks of MTCNN in FaceNet's crops of 7,701 LFW photos: MTCNN's box with 16 pixels more on each side.

FaceNet stretched those boxes, 126 × 157 pixels in the median, to squares; a similarity transform cannot, and fits the
template approximately.
"""


def build_arcface_template(side: int) -> AlignmentTemplate:
    """Return ArcFace's template for a square crop of another side, pixels."""
    return AlignmentTemplate(side, tuple((x * side / 112, y * side / 112) for x, y in ARCFACE_POINTS))
