"""Presentation attack detection: how many attacks pass for live, and how many live faces do not.

Terms follow ISO/IEC 30107-3:2023:

- APCER, attack presentation classification error rate: attacks of one species taken for live. Species are never
  averaged: the worst one is what an attacker brings.
- BPCER, bona fide presentation classification error rate: live faces taken for attacks.
- APNRR and BPNRR, non-response rates: photos of either kind that were not judged, because they show no face, or one
  that is too small or fills the photo. They are in no error rate.

ACER, the mean of the worst APCER and the BPCER, is not in the standard but in many publications.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import Liveness
from vultus.errors import InvalidInputError, VultusError
from vultus.evaluation.datasets import DataSet, photos_below
from vultus.evaluation.pairs import Drawing, draw
from vultus.evaluation.runner import Failure, Progress, central_face, each_photo
from vultus.models.imaging.decoding import Photo
from vultus.statistics.intervals import Rate, clopper_pearson
from vultus.statistics.metrics import Floats, curve_of, equal_error, tally_of

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.evaluation.runner import Describer
    from vultus.models.liveness import LivenessDetector
    from vultus.settings import PhotoSettings

LIVE, SPOOF = "live", "spoof"


Judge = Callable[[bytes], Liveness | None]
"""Judges the face a photo is about, None where it shows none; called from several threads."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A data set as the networks see it.

    Attributes:
        scores: (photos,) probability of a live presentation; NaN where the photo was not judged.
        failures: Photos that were not judged and why: `no_face`, `face_too_small`, `crop_past_photo`, or an error.
        photos_per_s: Of all threads together, reading of files included.
        workers: Threads.
    """

    scores: Floats
    failures: tuple[Failure, ...]
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
        apcer: By species, of those with a judged photo.
        worst: The species with the highest rate.
        bpcer: Of the judged live photos.
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
        apnrr: By species, share of attack photos that were not judged.
        bpnrr: Share of live photos that were not judged.
        drawing: Numbers to draw; its curve is of all attacks together.
    """

    default: LivenessPoint
    equal_error: LivenessPoint
    equal_error_rate: float
    apnrr: dict[str, Rate]
    bpnrr: Rate
    drawing: Drawing


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
        folder.relative_to(root).as_posix(): [path.relative_to(root).as_posix() for path in photos_below(folder, deep)]
        for folder, deep in [(live, True), *((kind, kind != spoof) for kind in species)]
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
        person=np.repeat(np.arange(len(kinds)), [len(found[kind]) for kind in kinds]),
    )


def watching(describer: Describer, detector: LivenessDetector, limits: PhotoSettings) -> Judge:
    """Return what judges the face a photo is about: the large one near the middle.

    Args:
        describer: Finds the face.
        detector: Judges it.
        limits: Of photos.
    """

    def judge(content: bytes) -> Liveness | None:
        analysis = describer.describe(content, embed=False)
        found = central_face(analysis)
        if found is None:
            return None
        pixels = Photo.open(content, limits).decode(max(analysis.width, analysis.height)).pixels
        return detector.assess(pixels, found.face)

    return judge


def judge_all(judge: Judge, data: DataSet, *, workers: int, progress: Progress = lambda _done, _all: None) -> Judged:
    """Judge every photo; one that cannot be used is a failure of that photo, not of the evaluation."""

    def look(path: Path) -> Liveness | str:
        try:
            return judge(path.read_bytes()) or "no_face"
        except VultusError as error:
            return error.code

    seen, taken_s = each_photo(look, data, workers=workers, progress=progress)
    codes = [one if isinstance(one, str) else "" if one.judged else one.reason.value for one in seen]
    scores = [one.score if isinstance(one, Liveness) and one.judged else math.nan for one in seen]
    failures = tuple(Failure(photo, code) for photo, code in zip(data.photos, codes, strict=True) if code)
    return Judged(np.array(scores), failures, len(seen) / taken_s, workers)


def evaluate_liveness(data: DataSet, judged: Judged, threshold: float) -> LivenessResult:
    """Count errors.

    Args:
        data: As `read_presentations` lists it.
        judged: Its photos.
        threshold: In use.

    Raises:
        InvalidInputError: No live photo, or none of an attack, was judged.
    """
    made = ~np.isnan(judged.scores)
    scores = {kind: judged.scores[made & (data.person == at)] for at, kind in enumerate(data.persons)}
    attacks = {kind: values for kind, values in scores.items() if kind != LIVE and len(values)}
    live = scores[LIVE]
    if not len(live) or not attacks:
        raise InvalidInputError(f"No photo of {'an attack' if len(live) else 'a live face'} could be judged.")
    silent = {
        kind: clopper_pearson(int((~made[data.person == at]).sum()), int((data.person == at).sum()))
        for at, kind in enumerate(data.persons)
    }
    tally = tally_of(live, np.concatenate(list(attacks.values())))
    curve = curve_of(tally)
    equal = equal_error(curve)
    return LivenessResult(
        default=_point(live, attacks, threshold),
        equal_error=_point(live, attacks, equal.threshold),
        equal_error_rate=equal.rate,
        bpnrr=silent.pop(LIVE),
        apnrr=silent,
        drawing=draw(tally, curve),
    )


def _point(live: Floats, attacks: dict[str, Floats], threshold: float) -> LivenessPoint:
    apcer = {kind: clopper_pearson(int((scores >= threshold).sum()), len(scores)) for kind, scores in attacks.items()}
    worst = max(apcer, key=lambda kind: apcer[kind].value)
    bpcer = clopper_pearson(int((live < threshold).sum()), len(live))
    return LivenessPoint(threshold, apcer, worst, bpcer, mean_of_rates(apcer[worst], bpcer))


def mean_of_rates(one: Rate, other: Rate) -> MeanRate:
    """Return the mean of two independent rates; its interval is recovered from theirs (Zou and Donner 2008).

    "Construction of confidence limits about effect measures: a general approach", Statistics in Medicine 27(10).
    """
    value = (one.value + other.value) / 2
    below = math.hypot(one.value - one.low, other.value - other.low) / 2
    above = math.hypot(one.high - one.value, other.high - other.value) / 2
    return MeanRate(value, value - below, value + above)
