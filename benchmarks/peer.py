"""The peers: `face_recognition` 1.3.0 and DeepFace, with the same libraries and weights.

`load_image_file` then `face_encodings`, with their defaults: Pillow to RGB; dlib's HOG detector on the photo enlarged
once; the five-point predictor; dlib's ResNet without jitter. Reimplemented here because that package does not import
without `pkg_resources`.

DeepFace runs its own code in a process of its own, with the Python that `VULTUS_BENCH_DEEPFACE_PYTHON` names: its
`represent` with the model Dlib and the detector dlib. That is the same HOG detector and the same network; its default
detector, OpenCV's cascade, would have to be downloaded and finds fewer faces.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Self

import dlib
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from vultus.domain import Pixels

UPSAMPLE = 1
JITTERS = 1
WEIGHTS = "face_recognition_models/models"
DEEPFACE_VARIABLE = "VULTUS_BENCH_DEEPFACE_PYTHON"
DEEPFACE_FILES = ("dlib_face_recognition_resnet_model_v1.dat", "shape_predictor_5_face_landmarks.dat")


class DlibPeer:
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
        """Return the number of embedded faces, and milliseconds by stage."""
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


@dataclass(frozen=True, slots=True)
class Described:
    """Result of DeepFace's process for a photo; milliseconds measured in that process, without the transfer."""

    faces: int
    ms: float
    cpu_ms: float
    embed_ms: float


class DeepfacePeer:
    """DeepFace in its own Python, with the built-in network's weights in a folder of its own.

    Args:
        python: An interpreter with DeepFace and dlib.
        data_dir: An empty folder for its weights.
    """

    def __init__(self, python: str, data_dir: Path) -> None:
        folder = data_dir / ".deepface" / "weights"
        folder.mkdir(parents=True)
        for name in DEEPFACE_FILES:
            source = distribution("face_recognition_models").locate_file(f"{WEIGHTS}/{name}")
            (folder / name).symlink_to(Path(str(source)).resolve(strict=True))
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("deepface_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "DEEPFACE_HOME": str(data_dir), "PYTHONPATH": "", "DEEPFACE_LOG_LEVEL": "50"},
        )

    @classmethod
    def from_environment(cls, data_dir: Path) -> Self | None:
        """Start the process, or print that it is skipped and return None."""
        python = os.environ.get(DEEPFACE_VARIABLE)
        if not python:
            print(f"photo: DeepFace is skipped; {DEEPFACE_VARIABLE} names no Python that has it")
            return None
        return cls(python, data_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()

    def describe(self, photo: bytes) -> Described:
        """Embed the faces of a photo."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"%d\n" % len(photo) + photo)
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"DeepFace's process ended; try: {DEEPFACE_VARIABLE}'s Python -c 'import deepface, dlib'"
            )
        answer = json.loads(line)
        return Described(answer["faces"], answer["ms"], answer["cpu_ms"], answer["embed"])


def describe_dlib_build() -> str:
    """Return which instructions and libraries dlib was built with."""
    flags = {"AVX": dlib.USE_AVX_INSTRUCTIONS, "BLAS": dlib.DLIB_USE_BLAS, "CUDA": dlib.DLIB_USE_CUDA}
    return ", ".join(f"{name} {'yes' if on else 'no'}" for name, on in flags.items())
