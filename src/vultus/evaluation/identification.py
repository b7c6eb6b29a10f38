"""Identification metrics: splits a data set into gallery and probes, searches, and counts the outcomes.

Terms follow NIST's Face Recognition Technology Evaluation (FRTE), part 2, and ISO/IEC 19795-1:2021:

- A mate search is for a person who is (or should be) enrolled; a non-mate search for one who is not.
- FPIR: share of non-mate searches whose best candidate reaches the threshold.
- FNIR: share of mate searches whose mate is not the best candidate or does not reach the threshold. A probe without a
  face, or of a person who could not be enrolled, is a miss.
- CMC, cumulative match characteristic: share of mate searches with the mate among the best r candidates, without a
  threshold (closed set).

The similarity of a person with several templates is that of the closest one, or as `TemplateFusion` defines it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import InvalidInputError
from vultus.statistics.all_pairs import BIN_COUNT, compute_bin_edges, compute_bins
from vultus.statistics.metrics import Counts, Floats, Indices, ScoreHistogram, count_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import DescribedFace, FloatArray
    from vultus.evaluation.datasets import DataSet
    from vultus.statistics.metrics import Flags


class TemplateFusion(StrEnum):
    """How a probe is compared with a person's templates; a collection's policy offers the first two."""

    BEST = "best"  # cosine to the closest template
    MEAN = "mean"  # cosine to the mean of the templates
    QUALITY = "quality"  # cosine to their mean weighted by quality


@dataclass(frozen=True, slots=True, eq=False)
class GallerySplit:
    """Assignment of photos to the gallery, mate and non-mate probes: positions in the data set, ascending.

    Attributes:
        enrolled: Photos that make the gallery: those of the mates and of the distractors.
        mates: Probes of persons who are enrolled.
        strangers: Probes of persons who are not.
        distractor_count: Enrolled persons who are never searched.
    """

    enrolled: Indices
    mates: Indices
    strangers: Indices
    distractor_count: int


@dataclass(frozen=True, slots=True, eq=False)
class SearchOutcomes:
    """What a search of the gallery returned for each probe.

    Attributes:
        best_score: (n,) cosine of the best candidate; −inf for a probe without a face.
        second_score: (n,) cosine of the next person; −inf where there is none.
        best_person: (n,) person of the best candidate; −1 for a probe without a face.
        mate_score: (n,) cosine of the mate, the probe's own person; −inf where it is not in the gallery.
        mate_rank: (n,) rank of the mate, 1-based, ties resolved pessimistically; 0 where it is not in the gallery.
        impostor_histogram: Histogram (see `statistics.all_pairs`) of the cosines to other persons who are enrolled with
            the full number of templates.
    """

    best_score: Floats
    second_score: Floats
    best_person: Indices
    mate_score: Floats
    mate_rank: Indices
    impostor_histogram: Counts


def split_gallery(data: DataSet, *, enrol: int, held_out: float, seed: int) -> GallerySplit:
    """Divide the persons of a data set; the same seed gives the same split.

    A share `held_out` of the persons with more than `enrol` photos, and the same share of the others, drawn at random,
    is not enrolled: all their photos are non-mate probes. Of every other person the first `enrol` photos, in the order
    of file names, are enrolled; what photos remain are mate probes. Persons without a remaining photo are distractors.

    Args:
        data: All photos.
        enrol: Photos enrolled per person, at least 1.
        held_out: Share of persons not enrolled, 0..1.
        seed: Of the random choice.

    Raises:
        InvalidInputError: The data set has too few persons with more than `enrol` photos for both kinds of search.
    """
    counts = data.photo_counts
    generator = np.random.default_rng(seed)
    is_stranger = np.zeros(len(counts), bool)
    for group in (np.flatnonzero(counts > enrol), np.flatnonzero((counts > 0) & (counts <= enrol))):
        is_stranger[generator.permutation(group)[: round(held_out * len(group))]] = True
    # The data set is sorted by person: a photo's place within its person counts from its person's first photo.
    order = np.arange(len(data.person_indices)) - np.searchsorted(data.person_indices, data.person_indices)
    is_known = ~is_stranger[data.person_indices]
    parts = GallerySplit(
        enrolled=np.flatnonzero(is_known & (order < enrol)),
        mates=np.flatnonzero(is_known & (order >= enrol)),
        strangers=np.flatnonzero(~is_known),
        distractor_count=int((~is_stranger & (counts > 0) & (counts <= enrol)).sum()),
    )
    if not (len(parts.mates) and len(parts.strangers)):
        raise InvalidInputError(
            f"{int((counts > enrol).sum())} of {int((counts > 0).sum())} persons have more than {enrol} photos: too "
            f"few to search for enrolled people and for strangers. Enrol fewer photos, or change the share held out."
        )
    return parts


def search_gallery(
    vectors: FloatArray,
    has_vector: Flags,
    person_indices: Indices,
    *,
    enrolled: Indices,
    probes: Indices,
    fusion: TemplateFusion = TemplateFusion.BEST,
    weights: Floats | None = None,
    block_size: int = 1024,
) -> SearchOutcomes:
    """Search the gallery for every probe, exactly.

    Args:
        vectors: (photos, d) float32 unit vectors.
        has_vector: (photos,) whether there is a vector.
        person_indices: (photos,) index of the person in each photo; non-decreasing.
        enrolled: Positions of the gallery's photos, ascending.
        probes: Positions of the photos searched, in any order.
        fusion: How a person with several templates is compared.
        weights: (photos,) of each template in its person's mean, for `TemplateFusion.QUALITY`.
        block_size: Probes compared together.

    Raises:
        InvalidInputError: No enrolled photo shows a face.
    """
    gallery = enrolled[has_vector[enrolled]]
    if not len(gallery):
        raise InvalidInputError("No enrolled photo shows a face; the gallery is empty.")
    names, starts = np.unique(person_indices[gallery], return_index=True)
    templates = vectors[gallery]
    if fusion is not TemplateFusion.BEST:
        weighted = templates if weights is None else templates * weights[gallery, None].astype(np.float32)
        templates = np.add.reduceat(weighted, starts, axis=0)
        templates /= np.linalg.norm(templates, axis=1, keepdims=True)
        starts = np.arange(len(names))
    has_all_templates = np.bincount(person_indices[gallery])[names] == np.bincount(person_indices[gallery]).max()
    result = SearchOutcomes(
        best_score=np.full(len(probes), -np.inf),
        second_score=np.full(len(probes), -np.inf),
        best_person=np.full(len(probes), -1, np.int64),
        mate_score=np.full(len(probes), -np.inf),
        mate_rank=np.zeros(len(probes), np.int64),
        impostor_histogram=np.zeros(BIN_COUNT, np.int64),
    )
    searchable = np.flatnonzero(has_vector[probes])
    for start in range(0, len(searchable), block_size):
        rows = searchable[start : start + block_size]
        scores = np.maximum.reduceat(vectors[probes[rows]] @ templates.T, starts, axis=1)
        own = person_indices[probes[rows]]
        _write_outcomes(result, rows, scores, names, own)
        np.add.at(
            result.impostor_histogram,
            compute_bins(scores[:, has_all_templates][own[:, None] != names[has_all_templates]]),
            1,
        )
    return result


def _write_outcomes(
    result: SearchOutcomes, rows: Indices, scores: FloatArray, persons: Indices, own_persons: Indices
) -> None:
    """Write the outcomes of `rows`: `scores` is (rows, persons of the gallery), `own_persons` each probe's person."""
    every = np.arange(len(rows))
    best = scores.argmax(axis=1)
    result.best_score[rows] = scores[every, best]
    result.best_person[rows] = persons[best]
    if len(persons) > 1:
        result.second_score[rows] = np.partition(scores, -2, axis=1)[:, -2]
    column = np.minimum(np.searchsorted(persons, own_persons), len(persons) - 1)
    enrolled = persons[column] == own_persons
    mate = scores[every, column]
    result.mate_score[rows] = np.where(enrolled, mate, -np.inf)
    result.mate_rank[rows] = np.where(enrolled, (scores >= mate[:, None]).sum(axis=1), 0)


def count_matches_by_rank(rank: Indices, *, max_rank: int) -> Indices:
    """Return how many mates are among the best 1, 2, … `max_rank` candidates: (max_rank,), non-decreasing.

    Args:
        rank: (mate searches,) rank of the mate, 0 where it is no candidate.
        max_rank: Longest list.
    """
    counts = np.bincount(rank[(rank > 0) & (rank <= max_rank)], minlength=max_rank + 1)
    return np.cumsum(counts[1:]).astype(np.int64)


def build_open_set_tally(mates: SearchOutcomes, strangers: SearchOutcomes) -> ScoreHistogram:
    """Return the decision scores of open-set searches.

    In the curve of this tally the true accept rate is 1 − FNIR and the false match rate is FPIR: a mate search counts
    with its mate's score if the mate is the best candidate and is missed otherwise, a non-mate search counts with its
    best candidate's score. Searches without a face count as misses and as no false positives.
    """
    first = mates.mate_rank == 1
    searched = strangers.best_person >= 0
    return count_scores(
        mates.mate_score[first],
        strangers.best_score[searched],
        genuine_missed=int((~first).sum()),
        impostor_missed=int((~searched).sum()),
    )


def build_one_to_one_tally(mates: SearchOutcomes, strangers: SearchOutcomes) -> ScoreHistogram:
    """Return the scores of one-to-one comparisons: mate probes with their own person, non-mate probes with each.

    Non-mates are compared only with persons enrolled with the full number of templates: the more templates, the higher
    the best of them.
    """
    own = np.bincount(
        compute_bins(mates.mate_score[np.isfinite(mates.mate_score)].astype(np.float32)), minlength=BIN_COUNT
    )
    used = np.flatnonzero(own + strangers.impostor_histogram)
    return ScoreHistogram(
        scores=compute_bin_edges(used),
        genuine=own[used].astype(np.int64),
        impostor=strangers.impostor_histogram[used],
        rejecting_threshold=float(compute_bin_edges(used[-1:] + 1)[0]) if len(used) else 0.0,
        genuine_missed=int((~np.isfinite(mates.mate_score)).sum()),
    )


def compute_quality_weights(faces: Sequence[DescribedFace | None]) -> Floats:
    """Return the (photos,) weight of each face in its person's mean: 1 for a large, sharp, frontal one; 0 for none.

    The product of the detector's score, the size up to 112 px, the square root of the sharpness up to 100, and the
    cosines of yaw and pitch.
    """

    def compute_weight(described: DescribedFace) -> float:
        quality = described.quality
        size, sharpness = min(1.0, quality.size_px / 112), min(1.0, quality.sharpness / 100)
        turned = math.cos(math.radians(quality.yaw_deg)) * math.cos(math.radians(quality.pitch_deg))
        return described.face.score * size * math.sqrt(sharpness) * max(0.01, turned)

    return np.array([0.0 if face is None else compute_weight(face) for face in faces])
