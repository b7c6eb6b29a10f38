"""Run the networks on every photo of a data set, in threads, and keep what the metrics need."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from vultus.domain import DescribedFace, FloatArray
from vultus.errors import InvalidInputError, VultusError
from vultus.statistics.metrics import Flags

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.domain import Analysis
    from vultus.evaluation.datasets import DataSet

Seen = TypeVar("Seen")

Progress = Callable[[int, int], None]
"""Told (photos done, photos in all) after every photo, from the calling thread."""


class Describer(Protocol):
    """What is evaluated: turns a photo into faces with embeddings; called from several threads."""

    def describe(self, photo: bytes, *, embed: bool = True) -> Analysis:
        """Return every face of a photo."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
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
    """How long describing took.

    Attributes:
        stages: Each stage of the pipeline, then `total`, their sum.
        photos_per_s: Of all threads together, reading of files included.
        workers: Threads.
    """

    stages: tuple[StageTime, ...]
    photos_per_s: float
    workers: int


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """A data set as the networks see it.

    Attributes:
        vectors: (photos, d) float32 unit vectors; zeros where no face was found.
        found: (photos,) whether there is a vector.
        faces: (photos,) the face chosen in each photo, None where none was found.
        several: Photos with more than one face.
        failures: Photos without a vector, in the order of the data set.
        timing: How long it took.
    """

    vectors: FloatArray
    found: Flags
    faces: tuple[DescribedFace | None, ...]
    several: int
    failures: tuple[Failure, ...]
    timing: Timing


@dataclass(frozen=True, slots=True)
class _Outcome:
    face: DescribedFace | None
    faces: int
    code: str
    timings_ms: dict[str, float]


def describe_all(
    describer: Describer, data: DataSet, *, workers: int, progress: Progress = lambda _done, _all: None
) -> Described:
    """Describe every photo; one that cannot be used is a failure of that photo, not of the evaluation.

    Args:
        describer: The pipeline.
        data: Which photos.
        workers: Threads.
        progress: Told after every photo.

    Raises:
        InvalidInputError: No photo shows a face.
    """
    outcomes, taken_s = each_photo(lambda path: _describe(describer, path), data, workers=workers, progress=progress)
    found = np.array([outcome.face is not None for outcome in outcomes])
    if not found.any():
        raise InvalidInputError(f"No face was found in any of the {len(outcomes)} photos of {data.root}.")
    seen = [outcome.face for outcome in outcomes if outcome.face is not None]
    vectors = np.zeros((len(outcomes), len(seen[0].vector)), np.float32)
    vectors[found] = [face.vector for face in seen]
    return Described(
        vectors=vectors,
        found=found,
        faces=tuple(outcome.face for outcome in outcomes),
        several=sum(outcome.faces > 1 for outcome in outcomes),
        failures=tuple(
            Failure(photo, outcome.code)
            for photo, outcome in zip(data.photos, outcomes, strict=True)
            if outcome.face is None
        ),
        timing=Timing(_stages([outcome.timings_ms for outcome in outcomes]), len(outcomes) / taken_s, workers),
    )


def each_photo(
    look: Callable[[Path], Seen], data: DataSet, *, workers: int, progress: Progress
) -> tuple[list[Seen], float]:
    """Look at every photo, several at a time.

    Args:
        look: Called from several threads.
        data: Which photos.
        workers: Threads.
        progress: Told after every photo.

    Returns:
        What was seen, in the order of the data set, and the seconds it took.
    """
    started = time.perf_counter()
    seen = []
    with ThreadPoolExecutor(workers, thread_name_prefix="evaluation") as threads:
        for one in threads.map(lambda name: look(data.root / name), data.photos):
            seen.append(one)
            progress(len(seen), len(data.photos))
    return seen, time.perf_counter() - started


def _describe(describer: Describer, path: Path) -> _Outcome:
    try:
        analysis = describer.describe(path.read_bytes())
    except VultusError as error:
        return _Outcome(None, 0, error.code, {})
    face = central_face(analysis)
    return _Outcome(face, len(analysis.faces), "" if face else "no_face", analysis.timings_ms)


def central_face(analysis: Analysis) -> DescribedFace | None:
    """Return the face a photo of a data set is about: the one nearest the middle; None without faces.

    Data sets name one person a photo, the one the photo was cut out around; of faces equally near, the wider.
    """

    def distance(described: DescribedFace) -> tuple[float, float]:
        box = described.face.box
        away = math.hypot(box.left + box.right - analysis.width, box.top + box.bottom - analysis.height)
        return away, -box.width

    return min(analysis.faces, key=distance, default=None)


def _stages(timings: list[dict[str, float]]) -> tuple[StageTime, ...]:
    names = list(dict.fromkeys(name for taken in timings for name in taken))
    rows = {name: [taken[name] for taken in timings if name in taken] for name in names}
    rows["total"] = [sum(taken.values()) for taken in timings if taken]
    return tuple(
        StageTime(name, float(np.mean(taken)), float(np.median(taken)), float(np.percentile(taken, 95)))
        for name, taken in rows.items()
        if taken
    )
