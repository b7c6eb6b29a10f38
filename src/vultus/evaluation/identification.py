"""Searches of a gallery: who is enrolled, who is searched, and how often the answer is right.

Terms follow NIST's Face Recognition Technology Evaluation (FRTE), part 2, and ISO/IEC 19795-1:2021:

- A mate search is for a person who is (or should be) enrolled; a non-mate search for one who is not.
- FPIR: share of non-mate searches whose best candidate reaches the threshold.
- FNIR: share of mate searches whose mate is not the best candidate or does not reach the threshold. A probe without a
  face, or of a person who could not be enrolled, is a miss.
- CMC, cumulative match characteristic: share of mate searches with the mate among the best r candidates, without a
  threshold (closed set).

The similarity of a person with several templates is that of the closest one, or as `Fusion` says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import InvalidInputError
from vultus.statistics.all_pairs import BINS, bins_of, edges_of
from vultus.statistics.metrics import Counts, Floats, Indices, Tally, tally_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import DescribedFace, FloatArray
    from vultus.evaluation.datasets import DataSet
    from vultus.statistics.metrics import Flags


class Fusion(StrEnum):
    """How similar a probe is to a person with several templates; a collection's policy knows the first two."""

    BEST = "best"  # cosine to the closest template
    MEAN = "mean"  # cosine to the mean of the templates
    QUALITY = "quality"  # cosine to their mean weighted by quality


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Who plays which part; arrays hold positions of photos in the data set, rising.

    Attributes:
        enrolled: Photos that make the gallery: those of the mates and of the distractors.
        mates: Probes of persons who are enrolled.
        strangers: Probes of persons who are not.
        distractors: Enrolled persons who are never searched.
    """

    enrolled: Indices
    mates: Indices
    strangers: Indices
    distractors: int


@dataclass(frozen=True, slots=True, eq=False)
class Searches:
    """What a search of the gallery returned for each probe.

    Attributes:
        best: (n,) cosine of the best candidate; −inf for a probe without a face.
        second: (n,) cosine of the next person; −inf where there is none.
        found: (n,) person of the best candidate; −1 for a probe without a face.
        mate: (n,) cosine of the probe's own person; −inf where it is not in the gallery.
        rank: (n,) place of the probe's own person, from 1, ties counted against it; 0 where it is not in the gallery.
        strangers: Histogram (see `allpairs`) of the cosines to other persons who have as many templates as anybody.
    """

    best: Floats
    second: Floats
    found: Indices
    mate: Floats
    rank: Indices
    strangers: Counts


def split(data: DataSet, *, enrol: int, held_out: float, seed: int) -> Split:
    """Divide the persons of a data set; the same seed gives the same split.

    A share `held_out` of the persons with more than `enrol` photos, and the same share of the others, drawn at random,
    is not enrolled: all their photos are non-mate probes. Of every other person the first `enrol` photos, in the order
    of file names, are enrolled; what photos remain are mate probes. Persons without a remaining photo are distractors.

    Args:
        data: All photos.
        enrol: Photos enrolled a person, at least 1.
        held_out: Share of strangers, 0..1.
        seed: Of the random choice.

    Raises:
        InvalidInputError: The data set has too few persons with more than `enrol` photos for both kinds of search.
    """
    counts = data.counts
    generator = np.random.default_rng(seed)
    stranger = np.zeros(len(counts), bool)
    for group in (np.flatnonzero(counts > enrol), np.flatnonzero((counts > 0) & (counts <= enrol))):
        stranger[generator.permutation(group)[: round(held_out * len(group))]] = True
    # The data set is sorted by person: a photo's place within its person counts from its person's first photo.
    order = np.arange(len(data.person)) - np.searchsorted(data.person, data.person)
    known = ~stranger[data.person]
    parts = Split(
        enrolled=np.flatnonzero(known & (order < enrol)),
        mates=np.flatnonzero(known & (order >= enrol)),
        strangers=np.flatnonzero(~known),
        distractors=int((~stranger & (counts > 0) & (counts <= enrol)).sum()),
    )
    if not (len(parts.mates) and len(parts.strangers)):
        raise InvalidInputError(
            f"{int((counts > enrol).sum())} of {int((counts > 0).sum())} persons have more than {enrol} photos: too "
            f"few to search for enrolled people and for strangers. Enrol fewer photos, or change the share held out."
        )
    return parts


def search(
    vectors: FloatArray,
    found: Flags,
    person: Indices,
    *,
    enrolled: Indices,
    probes: Indices,
    fusion: Fusion = Fusion.BEST,
    weights: Floats | None = None,
    block: int = 1024,
) -> Searches:
    """Search the gallery for every probe, exactly.

    Args:
        vectors: (photos, d) float32 unit vectors.
        found: (photos,) whether there is a vector.
        person: (photos,) whom each shows; never falls.
        enrolled: Positions of the gallery's photos, rising.
        probes: Positions of the photos searched, in any order.
        fusion: How a person with several templates is compared.
        weights: (photos,) of each template in its person's mean, for `Fusion.QUALITY`.
        block: Probes compared at a time.

    Raises:
        InvalidInputError: No enrolled photo shows a face.
    """
    gallery = enrolled[found[enrolled]]
    if not len(gallery):
        raise InvalidInputError("No enrolled photo shows a face; the gallery is empty.")
    names, starts = np.unique(person[gallery], return_index=True)
    templates = vectors[gallery]
    if fusion is not Fusion.BEST:
        weighted = templates if weights is None else templates * weights[gallery, None].astype(np.float32)
        templates = np.add.reduceat(weighted, starts, axis=0)
        templates /= np.linalg.norm(templates, axis=1, keepdims=True)
        starts = np.arange(len(names))
    complete = np.bincount(person[gallery])[names] == np.bincount(person[gallery]).max()
    result = Searches(
        best=np.full(len(probes), -np.inf),
        second=np.full(len(probes), -np.inf),
        found=np.full(len(probes), -1, np.int64),
        mate=np.full(len(probes), -np.inf),
        rank=np.zeros(len(probes), np.int64),
        strangers=np.zeros(BINS, np.int64),
    )
    searchable = np.flatnonzero(found[probes])
    for start in range(0, len(searchable), block):
        rows = searchable[start : start + block]
        scores = np.maximum.reduceat(vectors[probes[rows]] @ templates.T, starts, axis=1)
        own = person[probes[rows]]
        _fill(result, rows, scores, names, own)
        np.add.at(result.strangers, bins_of(scores[:, complete][own[:, None] != names[complete]]), 1)
    return result


def _fill(result: Searches, rows: Indices, scores: FloatArray, names: Indices, own: Indices) -> None:
    """Write the outcome of some probes: `scores` is (rows, persons of the gallery), `own` each probe's person."""
    every = np.arange(len(rows))
    best = scores.argmax(axis=1)
    result.best[rows] = scores[every, best]
    result.found[rows] = names[best]
    if len(names) > 1:
        result.second[rows] = np.partition(scores, -2, axis=1)[:, -2]
    column = np.minimum(np.searchsorted(names, own), len(names) - 1)
    enrolled = names[column] == own
    mate = scores[every, column]
    result.mate[rows] = np.where(enrolled, mate, -np.inf)
    result.rank[rows] = np.where(enrolled, (scores >= mate[:, None]).sum(axis=1), 0)


def match_counts(rank: Indices, *, most: int) -> Indices:
    """Return how many mates are among the best 1, 2, … `most` candidates: (most,), never falling.

    Args:
        rank: (mate searches,) place of the mate, 0 where it is no candidate.
        most: Longest list.
    """
    places = np.bincount(rank[(rank > 0) & (rank <= most)], minlength=most + 1)
    return np.cumsum(places[1:]).astype(np.int64)


def open_set(mates: Searches, strangers: Searches) -> Tally:
    """Return the scores that decide open-set searches.

    In the curve of this tally the true accept rate is 1 − FNIR and the false match rate is FPIR: a mate search counts
    with its mate's score if the mate is the best candidate and is missed otherwise, a non-mate search counts with its
    best candidate's score. Searches without a face count as misses and as no false positives.
    """
    first = mates.rank == 1
    searched = strangers.found >= 0
    return tally_of(
        mates.mate[first],
        strangers.best[searched],
        genuine_missed=int((~first).sum()),
        impostor_missed=int((~searched).sum()),
    )


def one_to_one(mates: Searches, strangers: Searches) -> Tally:
    """Return the scores of comparing probes with one enrolled person each: with their own, and strangers with each.

    Only persons with as many templates as anybody take part as somebody else's: the more templates, the higher the
    best of them.
    """
    own = np.bincount(bins_of(mates.mate[np.isfinite(mates.mate)].astype(np.float32)), minlength=BINS)
    used = np.flatnonzero(own + strangers.strangers)
    return Tally(
        scores=edges_of(used),
        genuine=own[used].astype(np.int64),
        impostor=strangers.strangers[used],
        beyond=float(edges_of(used[-1:] + 1)[0]) if len(used) else 0.0,
        genuine_missed=int((~np.isfinite(mates.mate)).sum()),
    )


def quality_weights(faces: Sequence[DescribedFace | None]) -> Floats:
    """Return the (photos,) weight of each face in its person's mean: 1 for a large, sharp, frontal one; 0 for none.

    The product of the detector's score, the size up to 112 px, the square root of the sharpness up to 100, and the
    cosines of yaw and pitch.
    """

    def weight(described: DescribedFace) -> float:
        quality = described.quality
        size, sharpness = min(1.0, quality.size_px / 112), min(1.0, quality.sharpness / 100)
        turned = math.cos(math.radians(quality.yaw_deg)) * math.cos(math.radians(quality.pitch_deg))
        return described.face.score * size * math.sqrt(sharpness) * max(0.01, turned)

    return np.array([0.0 if face is None else weight(face) for face in faces])
