"""Presentation attack detection: rates of attacks and of bona fide presentations that are misclassified.

Terms follow ISO/IEC 30107-3:2023:

- APCER, attack presentation classification error rate: attacks of one species classified as live. Species are
  never averaged: an attacker chooses the worst one.
- BPCER, bona fide presentation classification error rate: live faces classified as attacks.
- APNRR and BPNRR, non-response rates: photos of either kind that were not assessed, because they show no face, or
  one that is too small or fills the photo. They are in no error rate.

ACER, the mean of the worst APCER and the BPCER, is not in the standard but in many publications.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import DETECTION, Liveness
from vultus.errors import InvalidInputError, VultusError
from vultus.evaluation.datasets import DataSet, list_photos
from vultus.evaluation.pairs import PlotData, build_plot_data
from vultus.evaluation.runner import PhotoFailure, ProgressCallback, find_central_face, process_photos
from vultus.models.imaging.decoding import EncodedPhoto
from vultus.statistics.intervals import Rate, compute_clopper_pearson_rate
from vultus.statistics.metrics import Floats, compute_equal_error, compute_roc_curve, count_scores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vultus.evaluation.runner import FaceAnalyzer
    from vultus.models.liveness import LivenessDetector
    from vultus.settings import PhotoSettings

LIVE, SPOOF = "live", "spoof"


LivenessAssessor = Callable[[bytes], tuple[Liveness, ...] | None]
"""Assesses the central face of a photo by each network; None where it shows none; called from several threads."""


@dataclass(frozen=True, slots=True, eq=False)
class AssessedPhotos:
    """Liveness scores that one network gives to every photo of a data set.

    Attributes:
        live_scores: (photos,) probability of a live presentation; NaN where the photo was not assessed.
        failures: Photos that were not assessed and why: `no_face`, `face_too_small`, `crop_past_photo`, or an error.
        photos_per_s: Of all threads and networks together, reading of files included.
        workers: Threads.
    """

    live_scores: Floats
    failures: tuple[PhotoFailure, ...]
    photos_per_s: float
    workers: int


@dataclass(frozen=True, slots=True)
class MeanRate:
    """The mean of two independent rates with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LivenessPoint:
    """The errors at one threshold.

    Attributes:
        threshold: Score from which on a face counts as live.
        apcer: By species, of those with an assessed photo.
        worst: The species with the highest rate.
        bpcer: Of the assessed live photos.
        acer: Mean of the worst species' rate and the BPCER.
    """

    threshold: float
    apcer: dict[str, Rate]
    worst: str
    bpcer: Rate
    acer: MeanRate


@dataclass(frozen=True, slots=True)
class LivenessResult:
    """Figures of a data set.

    Attributes:
        default: At the threshold in use.
        equal_error: At the threshold where BPCER equals the error rate of all attacks together, chosen on these photos.
        equal_error_rate: That rate.
        apnrr: By species, share of attack photos that were not assessed.
        bpnrr: Share of live photos that were not assessed.
        drawing: Plot data; the curve is of all attacks together.
    """

    default: LivenessPoint
    equal_error: LivenessPoint
    equal_error_rate: float
    apnrr: dict[str, Rate]
    bpnrr: Rate
    drawing: PlotData


def read_presentations(root: Path) -> DataSet:
    """List photos of live people in `live`, and of attacks in `spoof`, each folder within it being a species.

    Returns:
        A data set whose persons are `live` and the species: `spoof/print`, or `spoof` for photos directly in it.

    Raises:
        InvalidInputError: There are no live photos, or none of attacks.
    """
    live, spoof = root / LIVE, root / SPOOF
    species = [spoof, *sorted(path for path in spoof.iterdir() if path.is_dir())] if spoof.is_dir() else []
    found = {
        folder.relative_to(root).as_posix(): [
            path.relative_to(root).as_posix() for path in list_photos(folder, recursive)
        ]
        for folder, recursive in [(live, True), *((kind, kind != spoof) for kind in species)]
    }
    kinds = tuple(name for name, photos in found.items() if photos)
    if len(kinds) < 2 or kinds[0] != LIVE:
        raise InvalidInputError(
            f"{root} needs photos of live people in {live} and of attacks in {spoof / 'SPECIES'}, such as print, "
            "screen or mask."
        )
    return DataSet(
        root=root,
        persons=kinds,
        photos=tuple(photo for kind in kinds for photo in found[kind]),
        person_indices=np.repeat(np.arange(len(kinds)), [len(found[kind]) for kind in kinds]),
    )


def build_liveness_assessor(
    analyzer: FaceAnalyzer, detectors: Sequence[LivenessDetector], limits: PhotoSettings
) -> LivenessAssessor:
    """Return a function that assesses the central face of a photo.

    Args:
        analyzer: Finds the face.
        detectors: Assess its liveness.
        limits: Of photos.
    """

    def assess_photo(content: bytes) -> tuple[Liveness, ...] | None:
        analysis = analyzer.analyze_photo(content, DETECTION)
        found = find_central_face(analysis)
        if found is None:
            return None
        pixels = EncodedPhoto.open(content, limits).decode(max(analysis.width, analysis.height)).pixels
        return tuple(detector.assess_liveness(pixels, found.face) for detector in detectors)

    return assess_photo


def assess_photos(
    assessor: LivenessAssessor, data: DataSet, *, workers: int, progress: ProgressCallback = lambda _done, _all: None
) -> list[AssessedPhotos]:
    """Assess every photo by each network; one that cannot be used is a failure of that photo, not of the evaluation.

    Returns:
        For each network of the assessor; nothing if no photo shows a face.
    """

    def read_and_assess(path: Path) -> tuple[Liveness, ...] | str:
        try:
            return assessor(path.read_bytes()) or "no_face"
        except VultusError as error:
            return error.code

    outcomes, taken_s = process_photos(read_and_assess, data, workers=workers, progress=progress)
    networks = max((len(outcome) for outcome in outcomes if not isinstance(outcome, str)), default=0)
    return [
        _collect_scores(
            [outcome if isinstance(outcome, str) else outcome[at] for outcome in outcomes], data, taken_s, workers
        )
        for at in range(networks)
    ]


def _collect_scores(outcomes: list[Liveness | str], data: DataSet, taken_s: float, workers: int) -> AssessedPhotos:
    codes = [item if isinstance(item, str) else "" if item.is_conclusive else item.reason.value for item in outcomes]
    scores = [item.score if isinstance(item, Liveness) and item.is_conclusive else math.nan for item in outcomes]
    failures = tuple(PhotoFailure(photo, code) for photo, code in zip(data.photos, codes, strict=True) if code)
    return AssessedPhotos(np.array(scores), failures, len(outcomes) / taken_s, workers)


def evaluate_liveness(data: DataSet, assessed: AssessedPhotos, threshold: float) -> LivenessResult:
    """Compute the error and non-response rates.

    Args:
        data: As `read_presentations` lists it.
        assessed: Its photos.
        threshold: In use.

    Raises:
        InvalidInputError: No live photo, or none of an attack, was assessed.
    """
    is_assessed = ~np.isnan(assessed.live_scores)
    scores = {
        kind: assessed.live_scores[is_assessed & (data.person_indices == at)] for at, kind in enumerate(data.persons)
    }
    attacks = {kind: values for kind, values in scores.items() if kind != LIVE and len(values)}
    live = scores[LIVE]
    if not len(live) or not attacks:
        raise InvalidInputError(f"No photo of {'an attack' if len(live) else 'a live face'} could be judged.")
    non_response = {
        kind: compute_clopper_pearson_rate(
            int((~is_assessed[data.person_indices == at]).sum()), int((data.person_indices == at).sum())
        )
        for at, kind in enumerate(data.persons)
    }
    tally = count_scores(live, np.concatenate(list(attacks.values())))
    curve = compute_roc_curve(tally)
    equal = compute_equal_error(curve)
    return LivenessResult(
        default=_build_point(live, attacks, threshold),
        equal_error=_build_point(live, attacks, equal.threshold),
        equal_error_rate=equal.rate,
        bpnrr=non_response.pop(LIVE),
        apnrr=non_response,
        drawing=build_plot_data(tally, curve),
    )


def _build_point(live: Floats, attacks: dict[str, Floats], threshold: float) -> LivenessPoint:
    apcer = {
        kind: compute_clopper_pearson_rate(int((scores >= threshold).sum()), len(scores))
        for kind, scores in attacks.items()
    }
    worst = max(apcer, key=lambda kind: apcer[kind].value)
    bpcer = compute_clopper_pearson_rate(int((live < threshold).sum()), len(live))
    return LivenessPoint(threshold, apcer, worst, bpcer, compute_mean_rate(apcer[worst], bpcer))


def compute_mean_rate(one: Rate, other: Rate) -> MeanRate:
    """Return the mean of two independent rates; its interval is recovered from theirs (Zou and Donner 2008).

    "Construction of confidence limits about effect measures: a general approach", Statistics in Medicine 27(10).
    """
    value = (one.value + other.value) / 2
    below = math.hypot(one.value - one.low, other.value - other.low) / 2
    above = math.hypot(one.high - one.value, other.high - other.value) / 2
    return MeanRate(value, value - below, value + above)
