"""Embedding spaces, calibrations and decision policies."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


DEFAULT_FMR = 1e-4
"""One false match in ten thousand comparisons, the maximum that NIST SP 800-63B-4 allows."""


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """Identity of an embedding space.

    Attributes:
        id: Stable short name, derived from the other fields; stored with every vector.
        network: Name of the embedding network.
        weights_sha256: Digest of the weights file.
        preprocessing: Detector, alignment template, colour and averaging; changes whenever they do.
        dimension: Length of a vector.
    """

    id: str
    network: str
    weights_sha256: str
    preprocessing: str
    dimension: int


@dataclass(frozen=True, slots=True)
class RateCurve:
    """Measured false match rates by threshold, interpolated in log10 of the rate.

    Attributes:
        points: (false match rate, cosine threshold) pairs, strictest last: rates descend, thresholds ascend.
    """

    points: tuple[tuple[float, float], ...]

    @property
    def strictest_fmr(self) -> float:
        """The lowest rate the data behind the points could resolve."""
        return self.points[-1][0]

    def get_threshold(self, fmr: float) -> float:
        """Return the cosine threshold for a false match rate; that of the nearest measured rate beyond the range."""
        logs = [-math.log10(rate) for rate, _ in self.points]
        return float(np.interp(-math.log10(fmr), logs, [threshold for _, threshold in self.points]))

    def get_fmr(self, threshold: float) -> float:
        """Return the false match rate measured at a threshold; never below the strictest measured rate."""
        thresholds = [cosine for _, cosine in self.points]
        if bisect_left(thresholds, threshold) == 0:
            return 1.0 if threshold < thresholds[0] else self.points[0][0]
        logs = [math.log10(rate) for rate, _ in self.points]
        return float(f"{10 ** np.interp(threshold, thresholds, logs):.9g}")  # without the noise of interpolation


@dataclass(frozen=True, slots=True)
class Calibration(RateCurve):
    """Measured relation of threshold and false match rate in one embedding space.

    Attributes:
        points: As in `RateCurve`. For the packs of the catalogue of two adults of one sex and age band, for thresholds
            measured on other data of any two persons; `source` says which.
        margin: Cosine by which the best candidate must lead another person who also reaches the threshold.
        source: The data, protocol and number of impostor pairs behind the points.
        logistic: (slope, intercept) of the log-odds that two faces show one person; None if not fitted.
        anybody: Points of any two persons, whom a gallery holds; empty where `points` are that.
        worst_group: Points of the group of sex, age band and ancestry with the highest rates; empty if not measured.
        default_fmr: Target of new collections.
        missed: (false non-match rate, cosine threshold) pairs, both ascending, of photos of one person; empty if not
            measured.
    """

    margin: float
    source: str
    logistic: tuple[float, float] | None = None
    anybody: tuple[tuple[float, float], ...] = ()
    worst_group: tuple[tuple[float, float], ...] = ()
    default_fmr: float = DEFAULT_FMR
    missed: tuple[tuple[float, float], ...] = ()

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Return the calibration that `dataclasses.asdict` converted to a JSON document."""
        curves = {
            name: tuple((float(rate), float(threshold)) for rate, threshold in document.get(name) or ())
            for name in ("points", "anybody", "worst_group", "missed")
        }
        fitted = document.get("logistic")
        return cls(
            **curves,
            margin=document["margin"],
            source=document["source"],
            logistic=(float(fitted[0]), float(fitted[1])) if fitted else None,
            default_fmr=document.get("default_fmr", DEFAULT_FMR),
        )

    @property
    def anybody_curve(self) -> RateCurve:
        """The rates of any two persons."""
        return RateCurve(self.anybody or self.points)

    def get_worst_group_fmr(self, threshold: float) -> float | None:
        """Return the false match rate of the worst group at a threshold; None if it was not measured."""
        return RateCurve(self.worst_group).get_fmr(threshold) if self.worst_group else None

    def get_fnmr(self, threshold: float) -> float | None:
        """Return the false non-match rate measured at a threshold, interpolated in log10 of the rate.

        Returns:
            None beyond the thresholds measured, or if none was.
        """
        thresholds = [cosine for _, cosine in self.missed]
        if not thresholds or not thresholds[0] <= threshold <= thresholds[-1]:
            return None
        return float(10 ** np.interp(threshold, thresholds, [math.log10(rate) for rate, _ in self.missed]))

    def compute_probability(self, similarity: float) -> float | None:
        """Return the probability that two faces with this cosine show one person, at equal priors.

        If half of all comparisons are of one person and half of different persons, this is the share of one person
        among those with this cosine. It is not the probability that the result of a search is correct: nearly all
        comparisons of a search are of different persons.

        Returns:
            0.0001..0.9999, because the curve is unverified beyond; None if it was not fitted.
        """
        if self.logistic is None:
            return None
        slope, intercept = self.logistic
        likely = 1 / (1 + math.exp(-max(-100.0, min(100.0, slope * similarity + intercept))))
        return min(max(likely, 1e-4), 1 - 1e-4)


@dataclass(frozen=True, slots=True)
class QualityRule:
    """Minimum quality of a face. Units as in `Quality`."""

    min_score: float
    min_size_px: float
    min_sharpness: float
    max_yaw_deg: float
    max_pitch_deg: float
    min_brightness: float = 0.0
    max_brightness: float = 1.0
    min_network_score: float = 0.0
    min_face_score: float = 0.0


class Fusion(StrEnum):
    """How similar a probe is to a person with several faces."""

    BEST = "best"  # cosine to the closest face
    MEAN = "mean"  # cosine to the mean of the faces


class LivenessMode(StrEnum):
    """Handling of presentation attacks; each mode is stricter than the one before."""

    OFF = "off"  # not checked
    REPORT = "report"  # the score is reported, the verdict does not depend on it
    REQUIRED = "required"  # a face that is not live is neither matched nor enrolled

    def get_stricter_mode(self, other: LivenessMode | None) -> LivenessMode:
        """Return the stricter of two modes."""
        order = list(LivenessMode)
        return self if other is None or order.index(self) >= order.index(other) else other


class Storage(StrEnum):
    """How a collection's templates lie in the database."""

    OPEN = "open"  # as vectors
    SEALED = "sealed"  # encrypted by a key of their person, which lies outside the database


DEFAULT_STORAGE = Storage.SEALED
"""Of new collections; those that were made before there was a choice are open."""


class SearchRecording(StrEnum):
    """Which decisions about probes are recorded, before they are answered."""

    NONE = "none"
    MATCHES = "matches"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class TrackPolicy:
    """When a face in live video is named, and when its coming and going is told.

    Attributes:
        confirm_frames: Frames that show a face before it `appeared`.
        agreeing_frames: Embedded frames that must agree on who it is.
        agreeing_s: Least time between the first of them and the last, seconds.
        max_embeddings: Times that a track's face is embedded at most.
        unknown_after_s: Time in view after which a face without a name is told as `unknown`, seconds.
        absence_s: Time out of view after which somebody `left`, seconds.
        cooldown_s: Time since somebody was seen last within which they are not told as `recognised` again, seconds.
    """

    confirm_frames: int = 2
    agreeing_frames: int = 3
    agreeing_s: float = 0.2
    max_embeddings: int = 8
    unknown_after_s: float = 2.0
    absence_s: float = 3.0
    cooldown_s: float = 60.0


@dataclass(frozen=True, slots=True)
class DecisionPolicy:
    """Decision policy of a collection. A fixed threshold and targets exclude each other.

    Attributes:
        threshold: Fixed cosine threshold.
        target_fmr: False match rate of one comparison; the calibration gives the threshold.
        target_fpir: False positive identification rate of a search of the whole gallery; its threshold follows the
            gallery's size, and is never laxer than that of `target_fmr`. Without it a search follows `target_fmr`.
        margin: Lead over the runner-up, as cosine, below which a match is ambiguous; None takes the calibration's.
        enrol: Quality a photo must reach to be enrolled.
        recognize: Quality a probe must reach; below it the verdict is `low_quality`.
        keep_crops: Keep an encrypted crop of every enrolled face, so that another network can embed it.
        fusion: How a person with several faces is compared.
        liveness: Minimum handling of presentation attacks; a request may be stricter.
        tracks: When a face in live video is named.
        storage: How templates lie in the database; never changed from sealed to open.
        record_searches: Which decisions are recorded.
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
    tracks: TrackPolicy = TrackPolicy()
    storage: Storage = DEFAULT_STORAGE
    record_searches: SearchRecording = SearchRecording.NONE


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person of the gallery as a search result.

    Attributes:
        face_id: The person's face closest to the probe.
        similarity: Cosine to the person, −1..1, according to the policy's fusion.
        probability: `Calibration.compute_probability` of that cosine; None if unknown.
    """

    person_id: UUID
    external_id: str | None
    name: str | None
    face_id: UUID
    similarity: float
    probability: float | None = None


class Verdict(StrEnum):
    """Outcome of the decision about one probe face."""

    MATCH = "match"
    AMBIGUOUS = "ambiguous"
    NO_MATCH = "no_match"
    LOW_QUALITY = "low_quality"
    NOT_LIVE = "not_live"


class Band(StrEnum):
    """How clearly a match matches: all that is said of its cosine to who may see no scores."""

    CLEAR = "clear"  # above the threshold by the calibration's margin or more
    NEAR_THRESHOLD = "near_threshold"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with everything needed to understand it.

    Attributes:
        verdict: The outcome.
        threshold: Cosine a candidate had to reach.
        fmr: False match rate of one comparison at that threshold.
        worst_group_fmr: That of the group with the highest rate; None if it was not measured.
        fpir: False positive identification rate expected of a search of `gallery_size` templates.
        gallery_size: Templates compared.
        margin: Difference of the cosines of the best candidate and the next person; None with fewer than two, or if
            hidden.
        reasons: Stable identifiers of the reasons, strongest first.
        band: How clear a match is; None for any other verdict.
    """

    verdict: Verdict
    threshold: float
    fmr: float
    worst_group_fmr: float | None
    fpir: float
    gallery_size: int
    margin: float | None
    reasons: tuple[str, ...]
    band: Band | None = None

    def hide_scores(self) -> Self:
        """Return the decision without what depends on a cosine, but for the verdict and the band."""
        return replace(self, margin=None)
