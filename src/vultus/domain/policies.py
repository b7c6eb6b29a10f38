"""What turns cosines into verdicts: contracts, calibrations, policies."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import numpy as np


@dataclass(frozen=True, slots=True)
class Contract:
    """Identity of a vector space.

    Attributes:
        id: Stable short name, derived from the other fields; stored beside every vector.
        network: Name of the embedding network.
        weights_sha256: Digest of the weights file.
        preprocessing: Detector, alignment template, colour and averaging, in words that change when they do.
        dimension: Length of a vector.
    """

    id: str
    network: str
    weights_sha256: str
    preprocessing: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measured relation of threshold and false match rate for one contract.

    Attributes:
        points: (false match rate, cosine threshold) pairs, strictest rate last: rates fall, thresholds rise.
        margin: Cosine a best candidate must be ahead of another person who also reaches the threshold.
        source: The data, protocol and number of impostor pairs behind the points.
        logistic: (slope, intercept) of the log-odds that two faces show one person; None where they were not fitted.
    """

    points: tuple[tuple[float, float], ...]
    margin: float
    source: str
    logistic: tuple[float, float] | None = None

    def threshold_at(self, fmr: float) -> float:
        """Return the cosine threshold for a false match rate, interpolated in log10 of the rate.

        Rates outside the measured range get the threshold of the nearest measured rate.
        """
        logs = [-math.log10(rate) for rate, _ in self.points]
        return float(np.interp(-math.log10(fmr), logs, [threshold for _, threshold in self.points]))

    def fmr_at(self, threshold: float) -> float:
        """Return the false match rate measured at a threshold; never below the strictest measured rate."""
        thresholds = [at for _, at in self.points]
        if bisect_left(thresholds, threshold) == 0:
            return 1.0 if threshold < thresholds[0] else self.points[0][0]
        logs = [math.log10(rate) for rate, _ in self.points]
        return float(10 ** np.interp(threshold, thresholds, logs))

    def probability(self, similarity: float) -> float | None:
        """Return the probability that two faces with this cosine show one person, at equal priors.

        Of comparisons half of which are of one person and half of different persons, this share of those with this
        cosine is of one person. It is not the probability that the result of a search is right: among the many
        comparisons of a search nearly all are of different persons.

        Returns:
            0.0001..0.9999, for nobody has verified the curve beyond; None where it was not fitted.
        """
        if self.logistic is None:
            return None
        slope, intercept = self.logistic
        likely = 1 / (1 + math.exp(-max(-100.0, min(100.0, slope * similarity + intercept))))
        return min(max(likely, 1e-4), 1 - 1e-4)

    @property
    def strictest_fmr(self) -> float:
        """The lowest rate the data behind the points could resolve."""
        return self.points[-1][0]


@dataclass(frozen=True, slots=True)
class QualityRule:
    """The least a face must reach. Units as in `Quality`."""

    min_score: float
    min_size_px: float
    min_sharpness: float
    max_yaw_deg: float
    max_pitch_deg: float
    min_brightness: float = 0.0
    max_brightness: float = 1.0
    min_network_score: float = 0.0


class Fusion(StrEnum):
    """How similar a probe is to a person with several faces."""

    BEST = "best"  # cosine to the closest face
    MEAN = "mean"  # cosine to the mean of the faces


class LivenessMode(StrEnum):
    """What is done about presentation attacks; each mode is stricter than the one before."""

    OFF = "off"  # nobody looks
    REPORT = "report"  # the score is told, the verdict does not depend on it
    REQUIRED = "required"  # what is not live is neither matched nor enrolled

    def at_least(self, other: LivenessMode | None) -> LivenessMode:
        """Return the stricter of two modes."""
        order = list(LivenessMode)
        return self if other is None or order.index(self) >= order.index(other) else other


@dataclass(frozen=True, slots=True)
class DecisionPolicy:
    """How a collection decides. At most one of threshold, target_fmr and target_fpir is set.

    Attributes:
        threshold: Fixed cosine threshold.
        target_fmr: False match rate of one comparison; the contract's calibration gives the threshold.
        target_fpir: False positive identification rate of a search of the whole gallery; the threshold follows the
            gallery's size.
        margin: Cosine ahead of the runner-up below which a match is ambiguous; None takes the contract's.
        enrol: What a photo must reach to be enrolled.
        recognize: What a probe must reach; below it the verdict is `low_quality`.
        keep_crops: Keep an encrypted crop of every enrolled face, so that another network can describe it.
        fusion: How a person with several faces is compared.
        liveness: The least that is done about presentation attacks; a request may ask for more.
    """

    enrol: QualityRule
    recognize: QualityRule
    threshold: float | None = None
    target_fmr: float | None = None
    target_fpir: float | None = None
    margin: float | None = None
    keep_crops: bool = False
    fusion: Fusion = Fusion.BEST
    liveness: LivenessMode = LivenessMode.OFF


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person of the gallery.

    Attributes:
        face_id: The person's face that is closest to the probe.
        similarity: Cosine to the person, −1..1: that of their closest face, or as the policy's fusion has it.
        probability: `Calibration.probability` of that cosine; None where it is unknown.
    """

    person_id: UUID
    external_id: str | None
    name: str | None
    face_id: UUID
    similarity: float
    probability: float | None = None


class Verdict(StrEnum):
    """What was decided about one probe face."""

    MATCH = "match"
    AMBIGUOUS = "ambiguous"
    NO_MATCH = "no_match"
    LOW_QUALITY = "low_quality"
    NOT_LIVE = "not_live"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with everything needed to understand it.

    Attributes:
        verdict: The outcome.
        threshold: Cosine a candidate had to reach.
        fmr: False match rate of one comparison at that threshold.
        fpir: False positive identification rate expected of a search of `gallery_size` templates.
        gallery_size: Templates compared.
        margin: Cosine between the best candidate and the next person; None with fewer than two candidates.
        reasons: Stable words saying why, strongest first.
    """

    verdict: Verdict
    threshold: float
    fmr: float
    fpir: float
    gallery_size: int
    margin: float | None
    reasons: tuple[str, ...]
