"""The licences of weights, as their publishers state them.

Where they are doubtful, or contradict themselves, commercial use is not assumed.
"""

from __future__ import annotations

from vultus.models.catalog.entries import Licence

MTCNN_MIT = Licence("MIT", True, "Free for any use with the notice kept.", "https://github.com/ipazc/mtcnn")

DLIB_CC0 = Licence(
    "CC0-1.0",
    True,
    "In the public domain, free for any use.",
    "https://github.com/ageitgey/face_recognition_models",
)

INSIGHTFACE = Licence(
    "InsightFace non-commercial",
    False,
    "For non-commercial research only; InsightFace sells licences for other use.",
    "https://github.com/deepinsight/insightface#license",
    must_be_accepted=True,
)

YUNET_MIT = Licence(
    "MIT",
    True,
    "Free for any use with the notice kept.",
    "https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet",
)

YUNET_BSD = Licence(
    "BSD-3-Clause",
    True,
    "Free for any use with the notice kept.",
    "https://github.com/ShiqiYu/libfacedetection.train",
)

RETINAFACE_MIT = Licence(
    "MIT",
    True,
    "Free for any use with the notice kept; the data it learnt from, WIDER FACE, was published for research.",
    "https://github.com/biubug6/Pytorch_Retinaface",
)

CENTERFACE_MIT = Licence(
    "MIT",
    True,
    "Free for any use with the notice kept; the data it learnt from, WIDER FACE, was published for research.",
    "https://github.com/Star-Clouds/CenterFace",
)

AURAFACE_APACHE = Licence(
    "Apache-2.0",
    True,
    "Free for any use with the notice kept; learnt from data its publisher may use commercially.",
    "https://huggingface.co/fal/AuraFace-v1",
)

SFACE_APACHE = Licence(
    "Apache-2.0",
    True,
    "Free for any use with the notice kept.",
    "https://github.com/opencv/opencv_zoo/tree/main/models/face_recognition_sface",
)

MOBILEFACENET_APACHE = Licence(
    "Apache-2.0",
    True,
    "Free for any use with the notice kept; the data it learnt from, MS-Celeb-1M, was withdrawn by its publisher.",
    "https://github.com/foamliu/MobileFaceNet",
)

FACENET_VGGFACE2 = Licence(
    "MIT, VGGFace2 data",
    False,
    "The code is MIT; the data it learnt from, VGGFace2, was published for research, so commercial use is not assumed.",
    "https://github.com/timesler/facenet-pytorch",
    must_be_accepted=True,
)

ADAFACE = Licence(
    "AdaFace WebFace research",
    False,
    "The code is MIT; the data it learnt from, WebFace260M, is for non-commercial research, and mirrors say the same "
    "of the weights.",
    "https://github.com/yakhyo/adaface-onnx",
    must_be_accepted=True,
)

DEEPFACE = Licence(
    "see DeepFace",
    False,
    "DeepFace wraps networks of several authors, each under terms of its own; commercial use is not assumed.",
    "https://github.com/serengil/deepface#licence",
    must_be_accepted=True,
)

EDIFFIQA_CC_BY = Licence(
    "CC-BY-4.0",
    True,
    "Free for any use with its authors named.",
    "https://github.com/opencv/opencv_zoo/tree/main/models/face_image_quality_assessment_ediffiqa",
)

MINIFASNET_APACHE = Licence(
    "Apache-2.0",
    True,
    "Free for any use with the notice kept.",
    "https://github.com/minivision-ai/Silent-Face-Anti-Spoofing",
)
