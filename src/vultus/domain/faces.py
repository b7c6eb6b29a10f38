"""What the networks see in a photo: faces, their quality and vectors, with units and orders stated."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

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

    @property
    def centre(self) -> tuple[float, float]:
        """The middle, x and y in pixels."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def overlap(self, other: Box) -> float:
        """Return the area shared with another box as a fraction of the area of both together, 0..1."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(width, 0.0) * max(height, 0.0)
        return shared / (self.width * self.height + other.width * other.height - shared) if shared else 0.0


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
        network_score: What a quality network expects of the face's recognition, 0..1; None without one.
    """

    size_px: float
    sharpness: float
    brightness: float
    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    network_score: float | None = None


class LivenessReason(StrEnum):
    """Why a face passed for live or did not; the last two mean that it could not be judged."""

    LIVE = "live"
    SPOOF = "spoof"
    FACE_TOO_SMALL = "face_too_small"
    CROP_PAST_PHOTO = "crop_past_photo"


@dataclass(frozen=True, slots=True)
class Liveness:
    """Whether a face is a person's before the camera, or a picture of one (presentation attack, ISO/IEC 30107-1).

    Attributes:
        score: The networks' probability of a live presentation, 0..1; computed even where `reason` says not to trust
            it.
        reason: What was decided, or why nothing could be.
    """

    score: float
    reason: LivenessReason

    @property
    def live(self) -> bool:
        """Whether the face passed; one that could not be judged did not."""
        return self.reason is LivenessReason.LIVE

    @property
    def judged(self) -> bool:
        """Whether the face was large enough and seen with enough around it."""
        return self.reason in {LivenessReason.LIVE, LivenessReason.SPOOF}


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A unit vector in the space named by its contract.

    Attributes:
        vector: (d,) float32 of length 1.
        contract_id: Which vector space; vectors of two contracts are never compared.
    """

    vector: FloatArray
    contract_id: str


@dataclass(frozen=True, slots=True)
class Crop:
    """A small photo of a face and its surroundings, from which any pipeline can describe the face again.

    Attributes:
        jpeg: The file.
        box: Where the face is, in pixels of the crop.
    """

    jpeg: bytes
    box: Box


@dataclass(frozen=True, slots=True, eq=False)
class DescribedFace:
    """A detected face with its quality and, if they were asked for, its embedding and its crop."""

    face: DetectedFace
    quality: Quality
    embedding: Embedding | None
    crop: Crop | None = None
    liveness: Liveness | None = None

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
