"""Rates and means with confidence intervals, all two-sided, 95 %.

Comparisons that share a person are not independent. If the persons behind a rate are known, its interval is therefore
computed by leaving out one person at a time (`compute_clustered_rate`); the binomial intervals are for independent
trials only (ISO/IEC 19795-1:2021, annex on uncertainty of error rates, makes the same distinction).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE = 0.95
NORMAL_QUANTILE = float(special.ndtri((1 + CONFIDENCE) / 2))


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of trials with its 95 % interval.

    Attributes:
        value: hits / trials, 0..1.
        low: Lower end of the interval.
        high: Upper end.
        hits: Trials that had the outcome.
        trials: All of them.
        interval: Method of the interval.
    """

    value: float
    low: float
    high: float
    hits: int
    trials: int
    interval: str


@dataclass(frozen=True, slots=True)
class Mean:
    """An average of independent values with its standard error and 95 % interval by Student's t."""

    value: float
    standard_error: float
    low: float
    high: float
    count: int


def compute_wilson_rate(hits: int, trials: int) -> Rate:
    """Return a rate with Wilson's score interval (Wilson 1927), for independent trials.

    Raises:
        ValueError: There are no trials.
    """
    _check_trials(trials)
    low, high = _compute_score_interval(hits / trials, trials, NORMAL_QUANTILE)
    return Rate(hits / trials, low, high, hits, trials, "Wilson")


def compute_clopper_pearson_rate(hits: int, trials: int) -> Rate:
    """Return a rate with the exact binomial interval (Clopper and Pearson 1934), for few hits.

    Raises:
        ValueError: There are no trials.
    """
    _check_trials(trials)
    tail = (1 - CONFIDENCE) / 2
    low = float(special.betaincinv(hits, trials - hits + 1, tail)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return Rate(hits / trials, low, high, hits, trials, "Clopper-Pearson")


def compute_clustered_rate(hits: NDArray[Any], trials: NDArray[Any], *, order: int = 1) -> Rate:
    """Return a rate with an interval for trials that are dependent within persons.

    The variance is the jackknife's over persons (for rates over pairs of persons it is that of a U-statistic: Arvesen
    1969, "Jackknifing U-statistics"). It is converted to the number of independent trials with the same variance, at
    most those made, and Wilson's interval for that number is taken (after Korn and Graubard 1998,
    "Confidence intervals for proportions with small expected number of positive counts"), with Student's t for the
    persons. Without variance, when all trials had the same outcome, each person counts as one trial.

    Args:
        hits: (persons,) trials with the outcome in which the person took part.
        trials: (persons,) trials in which the person took part.
        order: Persons per trial: 1, or 2 for comparisons of different persons, which count for both.

    Raises:
        ValueError: There are no trials.
    """
    used = trials > 0
    hits, trials = hits[used].astype(float), trials[used].astype(float)
    all_hits, all_trials = hits.sum() / order, trials.sum() / order
    _check_trials(all_trials)
    value = float(all_hits / all_trials)
    persons = len(trials)
    independent = float(persons)
    rest = all_trials - trials
    if persons > 1 and (rest > 0).all():
        without = (all_hits - hits) / rest
        variance = float((persons - 1) * np.mean((without - without.mean()) ** 2))
        if variance > 0 and 0 < value < 1:
            independent = value * (1 - value) / variance
    quantile = float(special.stdtrit(max(1, persons - 1), (1 + CONFIDENCE) / 2))
    low, high = _compute_score_interval(value, min(independent, all_trials), quantile)
    return Rate(value, low, high, round(all_hits), round(all_trials), "jackknife over persons")


def compute_mean(values: NDArray[Any]) -> Mean:
    """Return the mean of independent values with its standard error and interval.

    Args:
        values: (n,), n >= 2.

    Raises:
        ValueError: There are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("a mean with an interval needs at least two values")
    value = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half_width = float(special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * error
    return Mean(value, error, value - half_width, value + half_width, len(values))


def _compute_score_interval(value: float, trials: float, quantile: float) -> tuple[float, float]:
    """Return the ends of Wilson's interval; `trials` need not be whole."""
    square = quantile**2 / trials
    centre = (value + square / 2) / (1 + square)
    half_width = math.sqrt(value * (1 - value) * square + square**2 / 4) / (1 + square)
    # Rounding must not move the interval off the value or out of 0..1.
    return max(0.0, min(value, centre - half_width)), min(1.0, max(value, centre + half_width))


def _check_trials(trials: float) -> None:
    if trials <= 0:
        raise ValueError("a rate needs trials")
