"""Thresholds measured on a gallery's own faces, completed by those its pack was measured with.

What a gallery's own comparisons resolve (at least `RESOLVED_ERRORS` expected false matches) is taken from them, be it
laxer or stricter than the pack's: these are the faces that will be searched. Stricter rates come from the pack, raised
by what the own threshold is above the pack's at the strictest rate that is resolved, and never lowered. Thresholds so
never fall as rates do, and an unmeasured rate is never served by a laxer threshold than the pack's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import Calibration, DecisionPolicy, FloatArray
from vultus.domain.decision import fpir_for_fmr, threshold_for
from vultus.statistics.all_pairs import Accepted, accepted_by_person, tally_pairs
from vultus.statistics.intervals import Rate, clustered
from vultus.statistics.metrics import RESOLVED_ERRORS, Curve, Tally, at_fmr, curve_of, expected_errors
from vultus.statistics.probability import logistic_of

if TYPE_CHECKING:
    from vultus.statistics.metrics import Indices

DECADES = tuple(10.0**-power for power in range(1, 10))
LAXEST_FMR = 1e-1
MOST_SUSPICIOUS = 50
MOST_ALIKE_PAIRS = 1000
HIGHEST = 1.0


@dataclass(frozen=True, slots=True)
class OwnPoint:
    """What a threshold means for a gallery.

    Attributes:
        threshold: Cosine.
        stated_fmr: False match rate the new calibration gives it.
        origin: `own`, or `pack` where the own comparisons cannot resolve the rate.
        expected_errors: False matches that rate means among the gallery's comparisons.
        resolved: Whether they are enough.
        fmr: False match rate among the gallery's faces.
        fnmr: False non-match rate among them; None where nobody has two faces.
        expected_fpir: False positive identification rate a search of the whole gallery should have: 1 − (1 − FMR)^N.
        measured_fpir: Share of the faces compared to which another person's reaches the threshold.
    """

    threshold: float
    stated_fmr: float
    origin: str
    expected_errors: float
    resolved: bool
    fmr: Rate
    fnmr: Rate | None
    expected_fpir: float
    measured_fpir: Rate


@dataclass(frozen=True, slots=True)
class Measured:
    """What a gallery's comparisons say.

    Attributes:
        genuine: Comparisons of one person.
        genuine_persons: Persons with several faces.
        impostor: Comparisons of different persons.
        points: One for each rate of the new calibration, strictest last.
        current: The threshold that decides now.
        proposed: The threshold the new calibration gives the wanted error.
        beyond_measurement: The wanted error is stricter than even the pack's data resolve.
        alike: Pairs of persons at least as alike as the pack's strictest threshold: person, person, cosine; best first.
        calibration: The new one; its source says what came from where.
    """

    genuine: int
    genuine_persons: int
    impostor: int
    points: tuple[OwnPoint, ...]
    current: OwnPoint
    proposed: OwnPoint
    beyond_measurement: bool
    alike: tuple[tuple[int, int, float], ...]
    calibration: Calibration


def measure_gallery(
    vectors: FloatArray,
    person: Indices,
    *,
    pack: Calibration,
    current: Calibration,
    policies: tuple[DecisionPolicy, DecisionPolicy],
    gallery_size: int,
    described: str,
) -> Measured:
    """Compare every face of a gallery with every other.

    Args:
        vectors: (n, d) float32 unit vectors.
        person: (n,) whom each shows, from 0 without gaps; never falls.
        pack: The pack's calibration.
        current: The one that decides now.
        policies: The one that decides now, and the one with the wanted error.
        gallery_size: Templates a search compares.
        described: The data, in words for the new calibration's source.

    Raises:
        ValueError: There are too few comparisons of different persons to resolve a false match rate of `LAXEST_FMR`.
    """
    tally = tally_pairs(vectors, person)
    curve, impostors = _curve(tally), tally.impostor_trials
    own = {
        rate: float(curve.thresholds[at_fmr(curve, rate, impostors)])
        for rate in sorted({*DECADES, *(rate for rate, _ in pack.points)}, reverse=True)
        if expected_errors(rate, impostors) >= RESOLVED_ERRORS
    }
    if not own:
        raise ValueError("too few comparisons of different persons")
    combined = combine(pack, own)
    logistic = logistic_of(vectors, person, tally)
    calibration = Calibration(
        points=combined,
        margin=pack.margin,
        source=_source(described, pack, own, combined, fitted=logistic is not None),
        logistic=logistic or pack.logistic,
    )
    now = threshold_for(policies[0], current, gallery_size)
    wanted = threshold_for(policies[1], calibration, gallery_size)
    stated = [*combined, (calibration.fmr_at(now.cosine), now.cosine), (wanted.fmr, wanted.cosine)]
    naming = max(pack.points[-1][1], _at(curve, MOST_ALIKE_PAIRS, impostors))
    accepted = accepted_by_person(
        vectors, person, np.array([limit for _, limit in stated]), persons=int(person[-1]) + 1, name_from=naming
    )
    points = [_point(at, *both, accepted, person, gallery_size, min(own)) for at, both in enumerate(stated)]
    return Measured(
        genuine=tally.genuine_trials,
        genuine_persons=int((accepted.genuine_trials > 0).sum()),
        impostor=impostors,
        points=tuple(points[:-2]),
        current=points[-2],
        proposed=points[-1],
        beyond_measurement=wanted.beyond_measurement,
        alike=_persons_alike(accepted, person),
        calibration=calibration,
    )


def combine(pack: Calibration, own: dict[float, float]) -> tuple[tuple[float, float], ...]:
    """Return the points of a calibration: own thresholds, then the pack's for rates stricter than all of them.

    Args:
        pack: The pack's calibration.
        own: Thresholds by false match rate, of every rate that is resolved; at least one.
    """
    strictest = min(own)
    measured = [(rate, min(HIGHEST, own[rate])) for rate in sorted(own, reverse=True)]
    raised = max(0.0, measured[-1][1] - pack.threshold_at(strictest))
    return (
        *measured,
        *((rate, min(HIGHEST, threshold + raised)) for rate, threshold in pack.points if rate < strictest),
    )


def _curve(tally: Tally) -> Curve:
    # A gallery with one face a person has no comparison of one person: one that fails stands in, and is not read.
    return curve_of(tally if tally.genuine_trials else replace(tally, genuine_missed=1))


def _at(curve: Curve, matches: int, impostors: int) -> float:
    return float(curve.thresholds[at_fmr(curve, matches / impostors, impostors)])


def _point(
    at: int,
    stated: float,
    threshold: float,
    accepted: Accepted,
    person: Indices,
    gallery_size: int,
    strictest: float,
) -> OwnPoint:
    impostors = int(accepted.impostor_trials.sum()) // 2
    own = accepted.genuine_trials
    found = accepted.nearest >= threshold
    expected = expected_errors(stated, impostors)
    return OwnPoint(
        threshold=threshold,
        stated_fmr=stated,
        origin="own" if stated >= strictest else "pack",
        expected_errors=expected,
        resolved=expected >= RESOLVED_ERRORS,
        fmr=clustered(accepted.impostor[at], accepted.impostor_trials, order=2),
        fnmr=clustered(own - accepted.genuine[at], own) if own.any() else None,
        expected_fpir=fpir_for_fmr(stated, gallery_size),
        measured_fpir=clustered(np.bincount(person, weights=found), np.bincount(person)),
    )


def _persons_alike(accepted: Accepted, person: Indices) -> tuple[tuple[int, int, float], ...]:
    best: dict[tuple[int, int], float] = {}
    for one, two, cosine in accepted.closest:  # best first
        best.setdefault((int(person[one]), int(person[two])), cosine)
    return tuple((*pair, cosine) for pair, cosine in list(best.items())[:MOST_SUSPICIOUS])


def _source(
    described: str,
    pack: Calibration,
    own: dict[float, float],
    combined: tuple[tuple[float, float], ...],
    *,
    fitted: bool,
) -> str:
    strictest = min(own)
    parts = [f"{described}; thresholds down to FMR {strictest:g} from there"]
    if combined[-1][0] < strictest:
        raised = max(0.0, own[strictest] - pack.threshold_at(strictest))
        parts.append(f"stricter ones from the pack, raised by {raised:.4f}")
    parts.append("probability " + ("from there" if fitted else "from the pack"))
    return "; ".join(parts) + f". Pack: {pack.source}"
