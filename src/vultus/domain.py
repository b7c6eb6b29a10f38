"""The values every layer speaks in: frozen, free of I/O, with units and orders stated."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Pixels = NDArray[np.uint8]  # (height, width, 3), RGB, upright


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned rectangle in pixels of the upright photo; it may reach past the photo's edge."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.bottom - self.top


@dataclass(frozen=True, slots=True, eq=False)
class DetectedFace:
    """One face a detector found.

    Attributes:
        box: Where the face is, in pixels of the upright photo.
        landmarks: (5, 2) float32, x then y in pixels of the upright photo. Order: the eye on the image's left, the
            eye on its right, the nose tip, the mouth corner on its left, the mouth corner on its right.
        score: The detector's confidence, 0..1.
    """

    box: Box
    landmarks: FloatArray
    score: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How usable a face is, each figure with its own unit.

    Attributes:
        size_px: Shorter side of the face's box in pixels of the original photo.
        sharpness: Variance of the Laplacian of the aligned grey crop; blurred faces are low.
        brightness: Mean grey level of the aligned crop, 0..1.
        yaw_deg: Estimated turn to the side, degrees; positive when the nose points to the image's right.
        pitch_deg: Estimated nod, degrees; positive when the nose points down.
        roll_deg: Tilt of the line between the eyes, degrees, clockwise positive.
    """

    size_px: float
    sharpness: float
    brightness: float
    yaw_deg: float
    pitch_deg: float
    roll_deg: float


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A unit vector in the space named by its contract.

    Attributes:
        vector: (d,) float32 of length 1.
        contract_id: Which vector space; vectors of two contracts are never compared.
    """

    vector: FloatArray
    contract_id: str


@dataclass(frozen=True, slots=True, eq=False)
class DescribedFace:
    """A detected face with its quality and, unless it was not asked for, its embedding."""

    face: DetectedFace
    quality: Quality
    embedding: Embedding | None

    @property
    def vector(self) -> FloatArray:
        """The embedding's (d,) unit vector.

        Raises:
            ValueError: The face was described without an embedding.
        """
        if self.embedding is None:
            raise ValueError("the face was described without an embedding")
        return self.embedding.vector


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Everything the networks say about one photo.

    Attributes:
        width: Of the upright photo, pixels.
        height: Of the upright photo, pixels.
        sha256: Digest of the photo's bytes, lower-case hexadecimal.
        faces: Left to right by box.
        timings_ms: Milliseconds by stage: queue, decode, detect, align, embed.
    """

    width: int
    height: int
    sha256: str
    faces: tuple[DescribedFace, ...]
    timings_ms: dict[str, float] = field(default_factory=dict)


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


class Fusion(StrEnum):
    """How similar a probe is to a person with several faces."""

    BEST = "best"  # cosine to the closest face
    MEAN = "mean"  # cosine to the mean of the faces


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
        fusion: How a person with several faces is compared.
    """

    enrol: QualityRule
    recognize: QualityRule
    threshold: float | None = None
    target_fmr: float | None = None
    target_fpir: float | None = None
    margin: float | None = None
    fusion: Fusion = Fusion.BEST


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


@dataclass(frozen=True, slots=True)
class Collection:
    """An isolated gallery: it pins one contract, one decision policy and one retention rule.

    Attributes:
        contract_id: Vector space of the templates that are searched.
        second_contract_id: Another one that enrolment also writes, while the collection changes its network.
        calibrations: By contract: thresholds measured on this gallery, which take the place of the pack's.
    """

    id: UUID
    name: str
    contract_id: str
    policy: DecisionPolicy
    retention_days: int | None
    created_at: datetime
    updated_at: datetime
    second_contract_id: str | None = None
    calibrations: dict[str, Calibration] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Person:
    """An identity in a collection."""

    id: UUID
    collection_id: UUID
    external_id: str | None
    name: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Consent:
    """A record that a person agreed; `expires_at` None means until withdrawn."""

    id: UUID
    collection_id: UUID
    person_id: UUID
    purpose: str
    recorded_by: str
    evidence_ref: str | None
    granted_at: datetime
    expires_at: datetime | None
    withdrawn_at: datetime | None


@dataclass(frozen=True, slots=True)
class Face:
    """One enrolled template of a person, without the vector."""

    id: UUID
    collection_id: UUID
    person_id: UUID
    consent_id: UUID
    contract_id: str
    quality: Quality
    score: float
    source_sha256: str
    created_at: datetime


class Role(StrEnum):
    """What an API key may do; each role includes the ones before it."""

    RECOGNIZE = "recognize"
    ENROL = "enrol"
    ADMIN = "admin"

    def allows(self, needed: Role) -> bool:
        """Say whether this role includes the needed one."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret."""

    id: UUID
    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, for the audit record: an API key's id or the command line, and the request."""

    id: str
    request_id: str | None = None
