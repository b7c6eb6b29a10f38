"""The peer: what `face_recognition` 1.3.0 makes of a photo, from the same libraries and weights.

`load_image_file` then `face_encodings`, with their defaults: Pillow to RGB; dlib's HOG detector on the photo enlarged
once; the five-point predictor; dlib's ResNet without jitter. Written here because that package does not import
without `pkg_resources`.
"""

from __future__ import annotations

import io
import time
from importlib.metadata import distribution
from typing import TYPE_CHECKING

import dlib
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.domain import Pixels

UPSAMPLE = 1
JITTERS = 1
WEIGHTS = "face_recognition_models/models"


class Peer:
    """dlib's detector, predictor and network."""

    def __init__(self) -> None:
        package = distribution("face_recognition_models")
        self._detect = dlib.get_frontal_face_detector()
        self._predict = dlib.shape_predictor(
            str(package.locate_file(f"{WEIGHTS}/shape_predictor_5_face_landmarks.dat"))
        )
        self._network = dlib.face_recognition_model_v1(
            str(package.locate_file(f"{WEIGHTS}/dlib_face_recognition_resnet_model_v1.dat"))
        )

    def describe(self, photo: bytes) -> tuple[int, dict[str, float]]:
        """Return the number of faces described, and milliseconds by stage."""
        clock = [time.perf_counter()]
        with Image.open(io.BytesIO(photo)) as image:
            pixels = np.array(image.convert("RGB"))
        clock.append(time.perf_counter())
        boxes = self._detect(pixels, UPSAMPLE)
        clock.append(time.perf_counter())
        shapes = [self._predict(pixels, box) for box in boxes]
        clock.append(time.perf_counter())
        vectors = [np.array(self._network.compute_face_descriptor(pixels, shape, JITTERS)) for shape in shapes]
        clock.append(time.perf_counter())
        taken = (np.diff(clock) * 1e3).tolist()
        return len(vectors), dict(zip(("decode", "detect", "align", "embed"), taken, strict=True))

    def embed(self, chip: Pixels) -> NDArray[np.float64]:
        """Return the (128,) vector of an aligned (150, 150, 3) crop, not normalised."""
        return np.array(self._network.compute_face_descriptor(chip))


def build() -> str:
    """Say which instructions and libraries dlib was built with."""
    flags = {"AVX": dlib.USE_AVX_INSTRUCTIONS, "BLAS": dlib.DLIB_USE_BLAS, "CUDA": dlib.DLIB_USE_CUDA}
    return ", ".join(f"{name} {'yes' if on else 'no'}" for name, on in flags.items())
