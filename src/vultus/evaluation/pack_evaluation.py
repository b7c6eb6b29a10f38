"""Several packs on the same photos: LFW's protocol, matched impostors, doubles left out, time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import DEFAULT_FMR, Calibration
from vultus.evaluation.calibration_export import build_matched_calibration
from vultus.evaluation.datasets import DataSet, ListedPairs
from vultus.evaluation.doubles import DOUBLES_FMR, PersonPair, find_alike_persons, find_doubles
from vultus.evaluation.pairs import CalibrationCheck, VerificationPoint, evaluate_all_pairs, evaluate_listed_pairs
from vultus.evaluation.runner import PhotoVectors
from vultus.statistics.intervals import Mean
from vultus.statistics.matched import MIN_ADULT_AGE, Demographics, MatchedImpostors, evaluate_matched_impostors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

    from vultus.evaluation.pairs import AllPairsResult
    from vultus.evaluation.runner import FaceAnalyzer
    from vultus.statistics.all_pairs import PersonPairs
    from vultus.statistics.metrics import Flags

TIMED_PHOTOS, WARM_UP_PHOTOS = 100, 5

NamePair = tuple[str, str]
"""Names of two persons of a data set."""


@dataclass(frozen=True, slots=True, eq=False)
class VerificationData:
    """A data set with several photos per person, and its list of pairs, if there is one."""

    data: DataSet
    listed: ListedPairs | None


@dataclass(frozen=True, slots=True, eq=False)
class MatchedData:
    """A data set with age, sex and perhaps race of the person in each photo."""

    data: DataSet
    labels: Demographics


@dataclass(frozen=True, slots=True, eq=False)
class PackVectors:
    """What a pack made of the data sets.

    Attributes:
        pack: Its name.
        family: Name of its embedder.
        commercial_use: Whether its licences allow it without doubt.
        space_id: Its embedding space.
        calibration: Its thresholds; without points where it was never measured.
        photos: Vectors of the verification data.
        matched: Vectors of the matched data; None without it.
    """

    pack: str
    family: str
    commercial_use: bool
    space_id: str
    calibration: Calibration
    photos: PhotoVectors
    matched: PhotoVectors | None


@dataclass(frozen=True, slots=True)
class PhotoTime:
    """Median milliseconds from photo to vectors on one thread, and how many times as long as the built-in pack."""

    median_ms: float
    relative: float


@dataclass(frozen=True, slots=True)
class PackEvaluation:
    """Figures of a pack.

    Attributes:
        pack: Its name.
        commercial_use: Whether its licences allow it without doubt.
        space_id: Its embedding space.
        accuracy: Mean over the folds of the listed pairs; None without a list.
        points: All pairs of the verification data; for targets stricter than `DOUBLES_FMR` without doubles.
        default: The default threshold on the verification data, doubles left out.
        is_calibrated: Whether that is the pack's own threshold; else the one measured here.
        without_face: Photos of the verification data without a face.
        matched: Matched impostors, doubles left out, at the default threshold and others; None without such data.
        matched_without_face: Photos of the matched data without a face.
        doubles: Persons of the verification data who were taken for one person.
        matched_doubles: The same for the matched data.
        time: Of a photo.
        calibration: The pack's calibration by both data sets; None without matched data, or where they are too small.
    """

    pack: str
    commercial_use: bool
    space_id: str
    accuracy: Mean | None
    points: tuple[VerificationPoint, ...]
    default: CalibrationCheck
    is_calibrated: bool
    without_face: int
    matched: MatchedImpostors | None
    matched_without_face: int | None
    doubles: tuple[NamePair, ...]
    matched_doubles: tuple[NamePair, ...]
    time: PhotoTime
    calibration: Calibration | None


def evaluate_packs(
    packs: Sequence[PackVectors],
    verification: VerificationData,
    matched: MatchedData | None,
    times: Mapping[str, PhotoTime],
) -> list[PackEvaluation]:
    """Evaluate packs; the first one of each family is what the others' doubles are found by.

    Args:
        packs: Vectors by pack.
        verification: Photos of persons with several photos.
        matched: Photos of strangers with labels.
        times: By name of the pack.

    Raises:
        ValueError: The verification data has no pair of one person or of different persons.
        InvalidInputError: The matched data has no matched pair of adults.
    """
    everything = {pack.pack: evaluate_all_pairs(verification.data, pack.photos, pack.calibration) for pack in packs}
    alike: dict[str, Set[PersonPair]] = {}
    alike_matched: dict[str, Set[PersonPair]] = {}
    for pack in packs:
        strict = next(point for point in everything[pack.pack].points if point.target_fmr == DOUBLES_FMR)
        if pack.family in alike or strict.threshold is None:
            continue
        alike[pack.family] = _find_alike(verification.data, pack.photos, pack.photos.has_vector, strict.threshold)
        if matched and pack.matched:
            # Networks take children for each other alike, which does not make them one person.
            adults = pack.matched.has_vector & (matched.labels.age >= MIN_ADULT_AGE)
            alike_matched[pack.family] = _find_alike(matched.data, pack.matched, adults, strict.threshold)
    return [
        _evaluate_pack(
            pack,
            verification,
            matched,
            everything[pack.pack],
            find_doubles(alike, pack.family),
            find_doubles(alike_matched, pack.family),
            times[pack.pack],
        )
        for pack in packs
    ]


def _find_alike(data: DataSet, described: PhotoVectors, compared: Flags, threshold: float) -> frozenset[PersonPair]:
    return find_alike_persons(described.vectors[compared], data.person_indices[compared], threshold)


def _evaluate_pack(
    pack: PackVectors,
    verification: VerificationData,
    matched: MatchedData | None,
    everything: AllPairsResult,
    doubles: PersonPairs,
    matched_doubles: PersonPairs,
    photo_time: PhotoTime,
) -> PackEvaluation:
    default = _find_default_threshold(pack.calibration, everything.points)
    checked = Calibration(((DEFAULT_FMR, default),), 0.0, "the default threshold")
    distinct = evaluate_all_pairs(verification.data, pack.photos, checked, left_out=doubles)
    points = tuple(
        all_names if all_names.target_fmr >= DOUBLES_FMR else fewer_names
        for all_names, fewer_names in zip(everything.points, distinct.points, strict=True)
    )
    impostors, matched_without_face = None, None
    if matched and pack.matched:
        found = pack.matched.has_vector
        impostors = evaluate_matched_impostors(
            pack.matched.vectors[found],
            matched.data.person_indices[found],
            matched.labels.select_photos(found),
            (default, *(point.threshold for point in points if point.threshold is not None)),
            left_out=matched_doubles,
        )
        matched_without_face = int((~found).sum())
    return PackEvaluation(
        pack=pack.pack,
        commercial_use=pack.commercial_use,
        space_id=pack.space_id,
        accuracy=evaluate_listed_pairs(verification.listed, pack.photos).accuracy.accuracy
        if verification.listed
        else None,
        points=points,
        default=distinct.calibration[0],
        is_calibrated=bool(pack.calibration.points),
        without_face=int((~pack.photos.has_vector).sum()),
        matched=impostors,
        matched_without_face=matched_without_face,
        doubles=_list_names(verification.data, doubles),
        matched_doubles=_list_names(matched.data, matched_doubles) if matched else (),
        time=photo_time,
        calibration=build_matched_calibration(
            points, impostors, source=_format_source(verification, matched, impostors), logistic=everything.logistic
        )
        if matched and impostors
        else None,
    )


def _format_source(verification: VerificationData, matched: MatchedData, impostors: MatchedImpostors) -> str:
    return (
        f"{impostors.pairs:,} pairs of adults of one sex and age band in {matched.data.root.name}; rates of any two "
        f"people on {verification.data.root.name}, {len(verification.data.photos):,} photos; one person under two "
        "names left out; thresholds of stricter rates as far above those of any two people as at the strictest rate "
        "resolved; vultus evaluate packs"
    )


def _find_default_threshold(calibration: Calibration, points: Sequence[VerificationPoint]) -> float:
    """Return the pack's default threshold, or the one measured where it was never calibrated."""
    if calibration.points:
        return calibration.get_threshold(calibration.default_fmr)
    measured = [point.threshold for point in points if point.threshold is not None and point.target_fmr >= DEFAULT_FMR]
    return measured[-1]


def _list_names(data: DataSet, pairs: PersonPairs) -> tuple[NamePair, ...]:
    return tuple((data.persons[first], data.persons[second]) for first, second in pairs.tolist())


def measure_photo_times(
    analyzers: Mapping[str, FaceAnalyzer],
    data: DataSet,
    *,
    reference: str,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, PhotoTime]:
    """Time packs on this thread, photo by photo in turn, so that whatever slows the machine slows all of them.

    Args:
        analyzers: By name of the pack.
        data: Photos, of which `TIMED_PHOTOS` are taken at equal distances after `WARM_UP_PHOTOS`.
        reference: Name of the pack that others are compared with.
        clock: Seconds.
    """
    chosen = np.unique(np.linspace(0, len(data.photos) - 1, TIMED_PHOTOS + WARM_UP_PHOTOS).astype(int))
    taken: dict[str, list[float]] = {name: [] for name in analyzers}
    for position in chosen:
        photo = (data.root / data.photos[position]).read_bytes()
        for name, analyzer in analyzers.items():
            started = clock()
            analyzer.analyze_photo(photo)
            taken[name].append(clock() - started)
    skipped = min(WARM_UP_PHOTOS, len(chosen) - 1)
    medians = {name: float(np.median(seconds[skipped:])) * 1e3 for name, seconds in taken.items()}
    return {name: PhotoTime(median, median / medians[reference]) for name, median in medians.items()}
