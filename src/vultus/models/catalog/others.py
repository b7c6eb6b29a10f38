"""Networks that say more about a face than where it is and whose: its quality as a photo, and whether it is live."""

from __future__ import annotations

from vultus.models.catalog import licences
from vultus.models.catalog.entries import DownloadedFile, Network
from vultus.models.catalog.sources import OPENCV_ZOO

EDIFFIQA_TINY = Network(
    name="ediffiqa-tiny",
    kind="quality",
    family="ediffiqa",
    files={
        "network": DownloadedFile(
            "ediffiqa_tiny_jun2024.onnx",
            url=f"{OPENCV_ZOO}/face_image_quality_assessment_ediffiqa/ediffiqa_tiny_jun2024.onnx",
            sha256="9426c899cc0f01665240cb7d9e7f98e18e24e456c178326c771a43da289bfc6a",
            size=7272678,
        )
    },
    licence=licences.EDIFFIQA_CC_BY,
    paper='Babnik, Peer, Štruc (2024), "eDifFIQA: Towards Efficient Face Image Quality Assessment Based on Denoising '
    'Diffusion Probabilistic Models"',
    inputs="RGB 112 × 112, (pixel / 255 − 0.5) / 0.5, ArcFace's template",
)

_ANTI_SPOOF = "https://github.com/minivision-ai/Silent-Face-Anti-Spoofing/raw/master/resources/anti_spoof_models/{name}"


def _minifasnet_file(name: str, sha256: str, size: int) -> DownloadedFile:
    return DownloadedFile(name, url=_ANTI_SPOOF.format(name=name), sha256=sha256, size=size)


MINIFASNET = Network(
    name="minifasnet",
    kind="liveness",
    family="minifasnet",
    files={
        "v2": _minifasnet_file(
            "2.7_80x80_MiniFASNetV2.pth",
            "a5eb02e1843f19b5386b953cc4c9f011c3f985d0ee2bb9819eea9a142099bec0",
            1849453,
        ),
        "v1se": _minifasnet_file(
            "4_0_0_80x80_MiniFASNetV1SE.pth",
            "84ee1d37d96894d5e82de5a57df044ef80a58be2b218b5ed7cdfd875ec2f5990",
            1856130,
        ),
    },
    licence=licences.MINIFASNET_APACHE,
    paper='Minivision (2020), "Silent Face Anti-Spoofing", MiniFASNetV2 and MiniFASNetV1SE used together',
    inputs="BGR 80 × 80, plain pixels, squares of 2.7 and of 4 times the face; PyTorch state dicts",
)

OTHERS = (EDIFFIQA_TINY, MINIFASNET)
