"""How probable it is that two faces with a given cosine show one person: a logistic curve, as Platt (1999) fits it.

The log-odds are a straight line in the cosine ("Probabilistic outputs for support vector machines and comparisons to
regularized likelihood methods", 1999). Two numbers are easily kept, cannot fall anywhere, and on persons of LFW that
were not fitted to err by 0.003 to 0.008 on average; isotonic regression, of hundreds of numbers, errs as much when
fitted to up to 200 persons, and half as much when fitted to more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from vultus.domain import FloatArray
    from vultus.statistics.metrics import Floats, Indices, Tally

LEAST_PERSONS = 20
"""Persons with several faces from which on a curve is fitted: fewer say more about themselves than about people."""

MOST_STEPS = 100
SMALLEST_STEP = 1e-9


def logistic_of(vectors: FloatArray, person: Indices, tally: Tally) -> tuple[float, float] | None:
    """Fit the curve to all pairs of a data set.

    Both kinds of pairs weigh alike in all, so that the probability is that at equal priors. Among the pairs of one
    person each person weighs alike: one with hundreds of photos would otherwise own most of them.

    Args:
        vectors: (n, d) float32 unit vectors.
        person: (n,) whom each shows; never falls.
        tally: Of the same photos, from `allpairs.tally_pairs`.

    Returns:
        Slope and intercept of the log-odds; None with fewer than `LEAST_PERSONS` persons with several photos, or where
        pairs of one person are not the more alike ones.
    """
    persons = np.unique(person)
    groups = [vectors[slice(*np.searchsorted(person, [who, who + 1]))] for who in persons]
    own = [(group @ group.T)[np.triu_indices(len(group), 1)] for group in groups if len(group) > 1]
    if len(own) < LEAST_PERSONS or not tally.impostor.any():
        return None
    genuine = np.concatenate([np.full(len(scores), 1 / len(scores)) for scores in own])
    scores = np.concatenate([*own, tally.scores]).astype(np.float64)
    nothing = np.zeros(len(tally.scores)), np.zeros(len(genuine))
    return fit(
        scores,
        np.concatenate([genuine, nothing[0]]),
        np.concatenate([nothing[1], tally.impostor]),
        comparisons=(len(genuine), int(tally.impostor.sum())),
    )


def fit(
    scores: Floats, genuine: Floats, impostor: Floats, *, comparisons: tuple[int, int]
) -> tuple[float, float] | None:
    """Fit log-odds = slope · score + intercept by maximum likelihood (Newton's method).

    The targets are Platt's, (n + 1) / (n + 2) and 1 / (n + 2) instead of 1 and 0 for n comparisons of a kind: the slope
    stays finite where the two kinds do not overlap.

    Args:
        scores: (n,) cosines.
        genuine: (n,) weight of each as a pair of one person; any sum.
        impostor: (n,) weight of each as a pair of different persons; any sum.
        comparisons: Of one person, and of different persons, behind the weights.

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
    for _ in range(MOST_STEPS):
        expected = special.expit(design @ line)
        curvature = design.T @ (design * (weight * expected * (1 - expected))[:, None]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (hits - weight * expected))
        # A full step may overshoot where nearly everything is decided already.
        line += step / max(1.0, float(np.abs(step).max()) / 2)
        if np.abs(step).max() < SMALLEST_STEP:
            break
    slope = float(line[0]) / spread
    return (slope, float(line[1]) - slope * middle) if slope > 0 else None
