"""Run the networks on every photo of a data set, in threads, and keep what the metrics need."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from vultus.domain import EMBEDDINGS, DescribedFace, FloatArray
from vultus.errors import InvalidInputError, VultusError
from vultus.statistics.metrics import Flags

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.domain import Analysis, Want
    from vultus.evaluation.datasets import DataSet

Outcome = TypeVar("Outcome")

ProgressCallback = Callable[[int, int], None]
"""Called with (photos done, photos in total) after every photo, from the calling thread."""


class FaceAnalyzer(Protocol):
    """Pipeline under evaluation: detects and embeds the faces of a photo; called from several threads."""

    def analyze_photo(self, photo: bytes, want: Want = EMBEDDINGS) -> Analysis:
        """Return every face of a photo."""
        ...


@dataclass(frozen=True, slots=True)
class PhotoFailure:
    """A photo without an embedding, and the stable code of why: `no_face`, or an error's code."""

    photo: str
    code: str


@dataclass(frozen=True, slots=True)
class StageTime:
    """Milliseconds a photo spent in one stage; stages of several photos overlap."""

    stage: str
    mean_ms: float
    median_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Time of detection and embedding.

    Attributes:
        stages: Each stage of the pipeline, then `total`, their sum.
        photos_per_s: Of all threads together, reading of files included.
        workers: Threads.
    """

    stages: tuple[StageTime, ...]
    photos_per_s: float
    workers: int


@dataclass(frozen=True, slots=True, eq=False)
class PhotoVectors:
    """Embeddings of every photo of a data set.

    Attributes:
        vectors: (photos, d) float32 unit vectors; zeros where no face was found.
        has_vector: (photos,) whether there is a vector.
    """

    vectors: FloatArray
    has_vector: Flags


@dataclass(frozen=True, slots=True, eq=False)
class DescribedPhotos(PhotoVectors):
    """Embeddings and faces of every photo of a data set.

    Attributes:
        faces: (photos,) the face chosen in each photo, None where none was found.
        multi_face_count: Photos with more than one face.
        failures: Photos without a vector, in the order of the data set.
        timing: Stage times and throughput.
    """

    faces: tuple[DescribedFace | None, ...]
    multi_face_count: int
    failures: tuple[PhotoFailure, ...]
    timing: Timing


@dataclass(frozen=True, slots=True)
class _PhotoOutcome:
    face: DescribedFace | None
    face_count: int
    failure_code: str
    timings_ms: dict[str, float]


def describe_photos(
    analyzer: FaceAnalyzer, data: DataSet, *, workers: int, progress: ProgressCallback = lambda _done, _all: None
) -> DescribedPhotos:
    """Detect and embed the central face of every photo; one that cannot be used is a failure of that photo only.

    Args:
        analyzer: The pipeline.
        data: Lists the photos.
        workers: Threads.
        progress: Called after every photo.

    Raises:
        InvalidInputError: No photo shows a face.
    """
    outcomes, taken_s = process_photos(
        lambda path: _describe_photo(analyzer, path), data, workers=workers, progress=progress
    )
    found = np.array([outcome.face is not None for outcome in outcomes])
    if not found.any():
        raise InvalidInputError(f"No face was found in any of the {len(outcomes)} photos of {data.root}.")
    faces = [outcome.face for outcome in outcomes if outcome.face is not None]
    vectors = np.zeros((len(outcomes), len(faces[0].vector)), np.float32)
    vectors[found] = [face.vector for face in faces]
    return DescribedPhotos(
        vectors=vectors,
        has_vector=found,
        faces=tuple(outcome.face for outcome in outcomes),
        multi_face_count=sum(outcome.face_count > 1 for outcome in outcomes),
        failures=tuple(
            PhotoFailure(photo, outcome.failure_code)
            for photo, outcome in zip(data.photos, outcomes, strict=True)
            if outcome.face is None
        ),
        timing=Timing(
            _compute_stage_times([outcome.timings_ms for outcome in outcomes]), len(outcomes) / taken_s, workers
        ),
    )


def process_photos(
    process_photo: Callable[[Path], Outcome], data: DataSet, *, workers: int, progress: ProgressCallback
) -> tuple[list[Outcome], float]:
    """Process every photo in a thread pool.

    Args:
        process_photo: Called from several threads.
        data: Lists the photos.
        workers: Threads.
        progress: Called after every photo.

    Returns:
        The results, in the order of the data set, and the seconds taken.
    """
    started = time.perf_counter()
    outcomes = []
    with ThreadPoolExecutor(workers, thread_name_prefix="evaluation") as threads:
        for outcome in threads.map(lambda name: process_photo(data.root / name), data.photos):
            outcomes.append(outcome)
            progress(len(outcomes), len(data.photos))
    return outcomes, time.perf_counter() - started


def _describe_photo(analyzer: FaceAnalyzer, path: Path) -> _PhotoOutcome:
    try:
        analysis = analyzer.analyze_photo(path.read_bytes())
    except VultusError as error:
        return _PhotoOutcome(None, 0, error.code, {})
    face = find_central_face(analysis)
    return _PhotoOutcome(face, len(analysis.faces), "" if face else "no_face", analysis.timings_ms)


def find_central_face(analysis: Analysis) -> DescribedFace | None:
    """Return the subject's face: the one nearest the middle, of equally near ones the wider; None without faces.

    Data sets name one person per photo, whose face the photo was cropped around.
    """

    def compute_distance(described: DescribedFace) -> tuple[float, float]:
        box = described.face.box
        away = math.hypot(box.left + box.right - analysis.width, box.top + box.bottom - analysis.height)
        return away, -box.width

    return min(analysis.faces, key=compute_distance, default=None)


def _compute_stage_times(timings: list[dict[str, float]]) -> tuple[StageTime, ...]:
    names = list(dict.fromkeys(name for taken in timings for name in taken))
    rows = {name: [taken[name] for taken in timings if name in taken] for name in names}
    rows["total"] = [sum(taken.values()) for taken in timings if taken]
    return tuple(
        StageTime(name, float(np.mean(taken)), float(np.median(taken)), float(np.percentile(taken, 95)))
        for name, taken in rows.items()
        if taken
    )
