"""Results of face analysis: faces, their quality and vectors, with units and orders stated."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

FloatArray = NDArray[np.float32]
Pixels = NDArray[np.uint8]  # (height, width, 3), RGB, upright

MIN_OVERLAP = 0.3
"""IoU of two detectors' boxes of one face; one may box the whole head, the other only brow to chin."""


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned rectangle in pixels of the upright photo; it may extend beyond the photo's edge."""

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
        """The centre, x and y in pixels."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def compute_iou(self, other: Box) -> float:
        """Return the intersection over union with another box, 0..1."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(width, 0.0) * max(height, 0.0)
        return shared / (self.width * self.height + other.width * other.height - shared) if shared else 0.0


def find_matching_box(boxes: Sequence[Box], box: Box) -> int | None:
    """Return the position of the box that is of the same face as another: it overlaps enough, or contains its centre.

    Args:
        boxes: Boxes of the faces of a photo.
        box: Box of a face, in the same pixels, by another detector or in an earlier frame.
    """
    best = max(range(len(boxes)), key=lambda at: boxes[at].compute_iou(box), default=None)
    if best is None:
        return None
    found, (x, y) = boxes[best], box.centre
    contains_centre = found.left <= x <= found.right and found.top <= y <= found.bottom
    return best if contains_centre or found.compute_iou(box) >= MIN_OVERLAP else None


@dataclass(frozen=True, slots=True, eq=False)
class DetectedFace:
    """One face found by a detector.

    Attributes:
        box: Location of the face, in pixels of the upright photo.
        landmarks: (5, 2) float32, x then y in pixels of the upright photo. Order: the eye on the image's left, the
            eye on its right, the nose tip, the mouth corner on its left, the mouth corner on its right. In a photo that
            is turned, left and right are those of the photo turned upright.
        score: The detector's confidence, 0..1.
    """

    box: Box
    landmarks: FloatArray
    score: float


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality measurements of a face.

    Attributes:
        size_px: Shorter side of the face's box in pixels of the original photo.
        sharpness: Variance of the Laplacian of the aligned grey crop; blurred faces are low.
        brightness: Mean grey level of the aligned crop, 0..1.
        yaw_deg: Estimated turn to the side, degrees; positive when the nose points to the image's right.
        pitch_deg: Estimated nod, degrees; positive when the nose points down.
        roll_deg: Tilt of the line between the eyes, degrees, clockwise positive.
        network_score: Recognizability that a quality network predicts, 0..1; None without such a network.
        face_score: Probability that the crop shows a human face, by another network than the detector, 0..1; None if it
            was not computed.
    """

    size_px: float
    sharpness: float
    brightness: float
    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    network_score: float | None = None
    face_score: float | None = None


class LivenessReason(StrEnum):
    """Reason of a liveness result; the last two mean that it is inconclusive."""

    LIVE = "live"
    SPOOF = "spoof"
    FACE_TOO_SMALL = "face_too_small"
    CROP_PAST_PHOTO = "crop_past_photo"


@dataclass(frozen=True, slots=True)
class Liveness:
    """Liveness of a face: presentation attack detection (ISO/IEC 30107-1).

    Attributes:
        score: The networks' probability of a live presentation, 0..1; computed even where `reason` is inconclusive.
        reason: The decision, or why there is none.
    """

    score: float
    reason: LivenessReason

    @property
    def live(self) -> bool:
        """Whether the face passed; an inconclusive result does not."""
        return self.reason is LivenessReason.LIVE

    @property
    def is_conclusive(self) -> bool:
        """Whether the face was large enough, with enough of the photo around it."""
        return self.reason in {LivenessReason.LIVE, LivenessReason.SPOOF}


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A unit vector in an embedding space.

    Attributes:
        vector: (d,) float32 of length 1.
        space_id: Its embedding space; vectors of different spaces are never compared.
    """

    vector: FloatArray
    space_id: str


@dataclass(frozen=True, slots=True)
class Crop:
    """A small photo of a face and its surroundings, from which any pipeline can embed the face again.

    Attributes:
        jpeg: The encoded file.
        box: Location of the face, in pixels of the crop.
    """

    jpeg: bytes
    box: Box


@dataclass(frozen=True, slots=True, eq=False)
class DescribedFace:
    """A detected face with its quality and, if requested, its embedding, crop and liveness."""

    face: DetectedFace
    quality: Quality
    embedding: Embedding | None
    crop: Crop | None = None
    liveness: Liveness | None = None

    @property
    def vector(self) -> FloatArray:
        """The embedding's (d,) unit vector.

        Raises:
            ValueError: The face was analyzed without an embedding.
        """
        if self.embedding is None:
            raise ValueError("the face was analyzed without an embedding")
        return self.embedding.vector


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Analysis of one photo.

    Attributes:
        width: Width of the upright photo, pixels.
        height: Height of the upright photo, pixels.
        sha256: Digest of the photo's bytes, lower-case hexadecimal.
        faces: Left to right by box.
        timings_ms: Milliseconds by stage: queue, decode, detect, align, embed.
        faces_left_out: Smaller faces beyond the limit of faces in a photo, of which nothing is known.
        smallest_face_px: Width of the smallest face that was looked for, in pixels of the upright photo.
    """

    width: int
    height: int
    sha256: str
    faces: tuple[DescribedFace, ...]
    timings_ms: dict[str, float] = field(default_factory=dict)
    faces_left_out: int = 0
    smallest_face_px: float = 0.0


@dataclass(frozen=True, slots=True)
class Want:
    """What is wanted of a photo besides its faces and their quality.

    Attributes:
        embed: An embedding of every face, except of the known ones.
        crops: A crop of every face, which can be embedded again later.
        liveness: The liveness of every face.
        known_boxes: Of faces that need no embedding, in pixels of the upright photo: a tracker knows who they are.
        turned: Whether to search the photo turned by 90°, 180° and 270° too if no face is certainly upright.
        max_pixels: Width times height beyond which it is refused, where that is less than the limit of all photos.
    """

    embed: bool = True
    crops: bool = False
    liveness: bool = False
    known_boxes: tuple[Box, ...] = ()
    turned: bool = True
    max_pixels: int | None = None


DETECTION = Want(embed=False)
EMBEDDINGS = Want()


class Lane(StrEnum):
    """Urgency of an analysis.

    Photos of requests wait in a bounded queue, and are refused when it is full. Frames of a live source never queue
    behind photos: a newer frame replaces the one that waits, and a frame that would have to wait for photos is dropped.
    Photos that come later overtake a frame that waits, for a tenth of a second at most.
    Photos in batch are analysed while nothing else waits; they are not refused, and wait for a bounded time.
    """

    INTERACTIVE = "interactive"
    LIVE = "live"
    BATCH = "batch"
