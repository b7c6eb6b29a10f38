"""Where files of several networks are published."""

from __future__ import annotations

from vultus.models.catalog.entries import Archive, DownloadedFile

INSIGHTFACE_RELEASE = "https://github.com/deepinsight/insightface/releases/download/v0.7"
OPENCV_ZOO = "https://github.com/opencv/opencv_zoo/raw/main/models"
DEEPFACE_RELEASE = "https://github.com/serengil/deepface_models/releases/download/v1.0"

_ARCHIVES = {
    "buffalo_l.zip": "80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
    "buffalo_m.zip": "d98264bd8f2dc75cbc2ddce2a14e636e02bb857b3051c234b737bf3b614edca9",
    "buffalo_sc.zip": "57d31b56b6ffa911c8a73cfc1707c73cab76efe7f13b675a05223bf42de47c72",
    "antelopev2.zip": "8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
}


def insightface_file(archive: str, member: str, sha256: str) -> DownloadedFile:
    """Return a file of an archive that InsightFace publishes."""
    source = Archive(f"{INSIGHTFACE_RELEASE}/{archive}", _ARCHIVES[archive], member)
    return DownloadedFile(member, sha256=sha256, archive=source)
