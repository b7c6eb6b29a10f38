"""Does subtracting the nearest of a cohort even out groups? Prints one Markdown row per cohort.

    python -m benchmarks.score_normalisation LFW PEOPLE LFW.npz PEOPLE.npz --report report/packs.json --pack opencv

LFW and PEOPLE are the folders of `vultus evaluate packs LFW --matched PEOPLE --cache DIR`, the files the vectors of a
pack in DIR. The score is s'(a, b) = a·b − (m_a + m_b) / 2, m being the mean of a face's highest cosines to a cohort of
other people. Both data sets are halved by person, one half is measured with cohorts of the other, then the other way
round. Matched false matches are reported at the threshold with the true accept rate that the cosine has at an FMR of
LFW, then at an FMR of 10⁻³ among them: of all matched adults, of the worst group, and of children of 0 to 5 years.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.cluster.vq import kmeans2

from vultus.domain import FloatArray
from vultus.evaluation.datasets import read_person_folders
from vultus.evaluation.labels import read_demographics
from vultus.statistics.matched import ADULT_BANDS, MIN_GROUP_PAIRS
from vultus.statistics.metrics import Indices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.evaluation.datasets import DataSet
    from vultus.statistics.matched import Demographics
    from vultus.statistics.metrics import Floats

TARGET_FMRS = (1e-4, 1e-5)
MATCHED_FMR = 1e-3
"""Rate among matched adults at which groups are compared too, whatever the cohort shifts."""

THRESHOLDS = len(TARGET_FMRS) + 1
BLOCK = 256
BINS_PER_UNIT = 100_000
CLUSTERS, NEAREST_CLUSTERS = 128, 5
CHILDREN = (0, 5)


@dataclass(slots=True)
class Faces:
    """Unit vectors (n, d) and the person in each photo."""

    vectors: FloatArray
    person: Indices


@dataclass(slots=True)
class Outcome:
    """Figures of one cohort, of both halves: true accept rates, and false matches and pairs by group."""

    tar: list[list[float]] = field(default_factory=list)
    groups: list[dict[str, Indices]] = field(
        default_factory=lambda: [_count_from_zero() for _ in (*TARGET_FMRS, MATCHED_FMR)]
    )


def _count_from_zero() -> dict[str, Indices]:
    return defaultdict(lambda: np.zeros(2, np.int64))


def subtract_cohort(faces: FloatArray, cohort: FloatArray | None, nearest: int) -> Floats:
    """Return (n,) the mean of each face's highest cosines to the cohort; 0 without one."""
    if cohort is None:
        return np.zeros(len(faces), np.float32)
    means: Floats = np.partition(faces @ cohort.T, len(cohort) - nearest, axis=1)[:, -nearest:].mean(axis=1)
    return means


def compare_blocks(faces: Faces, offset: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Yield the scores of pairs of one person and of two, for some rows at a time."""
    for start in range(0, len(faces.person), BLOCK):
        rows = slice(start, start + BLOCK)
        scores = faces.vectors[rows] @ faces.vectors.T - (offset[rows, None] + offset) / 2
        is_later = np.arange(len(offset)) > np.arange(start, start + len(scores))[:, None]
        is_same = faces.person[rows, None] == faces.person
        yield scores[is_later & is_same], scores[is_later & ~is_same]


def measure_verification(faces: Faces, offset: Floats) -> tuple[Floats, list[float]]:
    """Return the scores of all pairs of one person, and the thresholds at the target false match rates."""
    genuine, impostor = [], np.zeros(4 * BINS_PER_UNIT, np.int64)
    for own, others in compare_blocks(faces, offset):
        genuine.append(own)
        impostor += np.bincount(((others + 2) * BINS_PER_UNIT).astype(int), minlength=len(impostor))
    reaching = np.cumsum(impostor[::-1])[::-1]
    return np.concatenate(genuine), [
        float(np.argmax(reaching <= target * reaching[0])) / BINS_PER_UNIT - 2 for target in TARGET_FMRS
    ]


def list_cells(labels: Demographics) -> Iterator[tuple[str, str, Indices]]:
    """Yield sex with age band, race, and the photos of every group; children have no race."""
    sex, race = (np.array([label or "" for label in values]) for values in (labels.sex, labels.race))
    for band in (CHILDREN, *ADULT_BANDS):
        for each in np.unique(sex):
            cell = (sex == each) & (labels.age >= band[0]) & (labels.age <= band[1])
            yield f"{each} {band[0]}", "", np.flatnonzero(cell)
            if band != CHILDREN:
                for kind in np.unique(race[cell]):
                    yield f"{each} {band[0]}", str(kind), np.flatnonzero(cell & (race == kind))


def score_groups(
    people: Faces, labels: Demographics, offset: Floats, doubles: set[tuple[int, int]]
) -> dict[str, Floats]:
    """Return the scores of the matched pairs of every group, of all adults, and of small children."""
    found: dict[str, list[Floats]] = defaultdict(list)
    for cell, race, photos in list_cells(labels):
        first, second = (photos[side] for side in np.triu_indices(len(photos), 1))
        persons = zip(people.person[first].tolist(), people.person[second].tolist(), strict=True)
        kept = np.array([pair not in doubles for pair in persons], bool)
        first, second = first[kept], second[kept]
        cosines = np.einsum("ij,ij->i", people.vectors[first], people.vectors[second])
        total = "children" if cell.endswith(" 0") else "adults"
        found[f"{cell} {race}" if race else total].append(cosines - (offset[first] + offset[second]) / 2)
    return {name: np.concatenate(scores) for name, scores in found.items()}


def build_cohorts(verification: Faces, people: Faces) -> dict[str, tuple[FloatArray | None, int]]:
    """Return the cohorts of one half, and how many of the nearest are averaged: one photo per person."""
    one_each = verification.vectors[np.unique(verification.person, return_index=True)[1]]
    centres = np.asarray(kmeans2(people.vectors, CLUSTERS, seed=1, minit="++")[0], np.float32)
    centres = centres[np.linalg.norm(centres, axis=1) > 0]
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return {
        "none: the cosine": (None, 0),
        "LFW persons, nearest 20": (one_each, 20),
        "strangers of the same kind, nearest 20": (people.vectors, 20),
        f"{CLUSTERS} averages of these, nearest {NEAREST_CLUSTERS}": (centres, NEAREST_CLUSTERS),
        "both, nearest 20": (np.concatenate([one_each, people.vectors]), 20),
    }


def read_faces(data: DataSet, path: Path) -> tuple[Faces, Indices]:
    """Return the faces of a file of the cache, and the positions of their photos."""
    stored = np.load(path)
    found = np.flatnonzero(stored["has_vector"])
    return Faces(stored["vectors"][found], data.person_indices[found]), found


def split_faces(faces: Faces, persons: int) -> list[np.ndarray]:
    """Return which faces are of each half of the persons."""
    is_second = np.zeros(persons, bool)
    is_second[np.random.default_rng(0).permutation(persons)[persons // 2 :]] = True
    return [~is_second[faces.person], is_second[faces.person]]


def main() -> None:
    """Measure every cohort on both halves and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score_normalisation", description=__doc__)
    for name in ("lfw", "people", "lfw_vectors", "people_vectors"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--pack", required=True)
    options = parser.parse_args()
    lfw, people = read_person_folders(options.lfw), read_person_folders(options.people)
    labels = read_demographics(options.people / "groups.csv", people)
    packs = json.loads(options.report.read_text(encoding="utf-8"))["packs"]
    names = next(pack["matched_doubles"] for pack in packs if pack["pack"] == options.pack)
    position = {name: at for at, name in enumerate(people.persons)}
    doubles = {(position[first], position[second]) for first, second in names}
    all_faces, _ = read_faces(lfw, options.lfw_vectors)
    strangers, found = read_faces(people, options.people_vectors)
    is_found = np.zeros(len(people.photos), bool)
    is_found[found] = True
    labels = labels.select_photos(is_found)
    halves = split_faces(all_faces, len(lfw.persons)), split_faces(strangers, len(people.persons))
    # Nobody measured may be in the cohort under another name.
    is_single = ~np.isin(strangers.person, np.array(sorted(doubles)).reshape(-1))
    outcomes: dict[str, Outcome] = defaultdict(Outcome)
    for own, other in ((0, 1), (1, 0)):
        cohort_lfw, cohort_people, measured, matched = (
            Faces(faces.vectors[chosen], faces.person[chosen])
            for faces, chosen in (
                (all_faces, halves[0][other]),
                (strangers, halves[1][other] & is_single),
                (all_faces, halves[0][own]),
                (strangers, halves[1][own]),
            )
        )
        raw: list[float] = []
        for name, (cohort, nearest) in build_cohorts(cohort_lfw, cohort_people).items():
            genuine, thresholds = measure_verification(measured, subtract_cohort(measured.vectors, cohort, nearest))
            rates = [float((genuine >= threshold).mean()) for threshold in thresholds]
            raw = raw or rates
            offset = subtract_cohort(matched.vectors, cohort, nearest)
            outcomes[name].tar.append(rates)
            groups = score_groups(matched, labels.select_photos(halves[1][own]), offset, doubles)
            used = [
                *(float(np.quantile(genuine, 1 - rate, method="lower")) for rate in raw),
                float(np.quantile(groups["adults"], 1 - MATCHED_FMR)),
            ]
            for counts, threshold in zip(outcomes[name].groups, used, strict=True):
                for group, scores in groups.items():
                    counts[group] += (int((scores >= threshold).sum()), len(scores))
    for name, outcome in outcomes.items():
        print(format_row(name, outcome))


def format_row(name: str, outcome: Outcome) -> str:
    """Return a Markdown row: true accept rates, then matched rate, worst group and small children at each target."""
    cells = [name, *(f"{100 * rate:.2f} %" for rate in np.mean(outcome.tar, axis=0))]
    for counts in outcome.groups:
        rates = {group: hits / trials for group, (hits, trials) in counts.items() if trials >= MIN_GROUP_PAIRS}
        worst = max(rates.keys() - {"adults", "children"}, key=rates.__getitem__)
        cells.append(f"{rates['adults']:.1e}; {rates[worst]:.1e} ({worst}); {rates['children']:.4f}")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
