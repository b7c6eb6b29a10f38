"""Run by DeepFace's own Python: embeds the faces of photos with its `represent`, sequentially, on one thread.

Reads from standard input, for each photo, its length as a line and its bytes; writes a line of JSON with the result.
Imports nothing of this project.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time

# Before NumPy is imported, because that starts its threads.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import cv2
from deepface import DeepFace
from deepface.models.facial_recognition.dlib.Dlib import DlibClient

DETECTOR = "dlib"
MODEL = "Dlib"

embedding_s = 0.0
_forward = DlibClient.forward


def _time_embedding(self, image):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    global embedding_s
    started = time.perf_counter()
    try:
        return _forward(self, image)
    finally:
        embedding_s += time.perf_counter() - started


def main() -> None:
    """Process photos until the input ends."""
    global embedding_s
    cv2.setNumThreads(1)
    DlibClient.forward = _time_embedding
    source, sink = sys.stdin.buffer, sys.stdout
    sys.stdout = sys.stderr  # DeepFace prints to standard output
    while line := source.readline():
        photo = source.read(int(line))
        embedding_s = 0.0
        started, busy = time.perf_counter(), time.process_time()
        try:
            faces = len(DeepFace.represent(io.BytesIO(photo), model_name=MODEL, detector_backend=DETECTOR))
        except ValueError:  # DeepFace raises it when no face was found
            faces = 0
        ms, cpu_ms = (time.perf_counter() - started) * 1e3, (time.process_time() - busy) * 1e3
        print(
            json.dumps({"faces": faces, "ms": ms, "cpu_ms": cpu_ms, "embed": embedding_s * 1e3}), file=sink, flush=True
        )


if __name__ == "__main__":
    main()
