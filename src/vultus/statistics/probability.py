"""Probability that two faces with a given cosine show one person: a logistic curve fitted as by Platt (1999).

The log-odds are linear in the cosine ("Probabilistic outputs for support vector machines and comparisons to
regularized likelihood methods", 1999). The curve has two parameters, is monotonic, and errs by 0.003 to 0.008 on
average on persons of LFW outside the fit; isotonic regression, with hundreds of parameters, errs as much when fitted to
up to 200 persons, and half as much when fitted to more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from vultus.domain import FloatArray
    from vultus.statistics.metrics import Floats, Indices, ScoreHistogram

MIN_FITTED_PERSONS = 20
"""Minimum number of persons with several faces: a fit to fewer does not generalize."""

MAX_STEPS = 100
MIN_STEP = 1e-9


def fit_logistic_to_pairs(
    vectors: FloatArray, person: Indices, histogram: ScoreHistogram
) -> tuple[float, float] | None:
    """Fit the curve to all pairs of a data set.

    Both kinds of pairs have equal total weight, so that the probability is that at equal priors. Each person has equal
    weight among the pairs of one person: one with hundreds of photos would otherwise dominate.

    Args:
        vectors: (n, d) float32 unit vectors.
        person: (n,) index of the person in each photo; non-decreasing.
        histogram: Scores of the same photos, from `all_pairs.count_pair_scores`.

    Returns:
        Slope and intercept of the log-odds; None with fewer than `MIN_FITTED_PERSONS` persons with several photos, or
        unless pairs of one person are the more similar ones.
    """
    persons = np.unique(person)
    groups = [vectors[slice(*np.searchsorted(person, [index, index + 1]))] for index in persons]
    own = [(group @ group.T)[np.triu_indices(len(group), 1)] for group in groups if len(group) > 1]
    if len(own) < MIN_FITTED_PERSONS or not histogram.impostor.any():
        return None
    genuine = np.concatenate([np.full(len(scores), 1 / len(scores)) for scores in own])
    scores = np.concatenate([*own, histogram.scores]).astype(np.float64)
    no_weights = np.zeros(len(histogram.scores)), np.zeros(len(genuine))
    return fit_logistic(
        scores,
        np.concatenate([genuine, no_weights[0]]),
        np.concatenate([no_weights[1], histogram.impostor]),
        comparisons=(len(genuine), int(histogram.impostor.sum())),
    )


def fit_logistic(
    scores: Floats, genuine: Floats, impostor: Floats, *, comparisons: tuple[int, int]
) -> tuple[float, float] | None:
    """Fit log-odds = slope · score + intercept by maximum likelihood (Newton's method).

    The targets are Platt's, (n + 1) / (n + 2) and 1 / (n + 2) instead of 1 and 0 for n comparisons of a kind: the slope
    stays finite if the two kinds do not overlap.

    Args:
        scores: (n,) cosines.
        genuine: (n,) weight of each as a pair of one person; normalized here.
        impostor: (n,) weight of each as a pair of different persons; normalized here.
        comparisons: Numbers of comparisons of one person and of different persons behind the weights.

    Returns:
        Slope and intercept; None unless the slope is positive.
    """
    genuine, impostor = genuine / genuine.sum(), impostor / impostor.sum()
    weight = genuine + impostor
    hits = genuine * (comparisons[0] + 1) / (comparisons[0] + 2) + impostor / (comparisons[1] + 2)
    middle = float(weight @ scores / weight.sum())
    spread = float(np.sqrt(weight @ (scores - middle) ** 2 / weight.sum())) or 1.0
    design = np.stack([(scores - middle) / spread, np.ones(len(scores))], axis=1)
    line = np.zeros(2)
    for _ in range(MAX_STEPS):
        expected = special.expit(design @ line)
        curvature = design.T @ (design * (weight * expected * (1 - expected))[:, None]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (hits - weight * expected))
        # A full step may overshoot where the curve is nearly saturated.
        line += step / max(1.0, float(np.abs(step).max()) / 2)
        if np.abs(step).max() < MIN_STEP:
            break
    slope = float(line[0]) / spread
    return (slope, float(line[1]) - slope * middle) if slope > 0 else None
