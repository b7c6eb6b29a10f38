"""The verdict on a face's liveness: the mean score of one or several networks, held against a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vultus.domain import Liveness, LivenessReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import Box, DetectedFace, Pixels


class LivenessScorer(Protocol):
    """A network that distinguishes live faces from pictures of faces; safe for concurrent use by several threads."""

    def compute_score(self, pixels: Pixels, face: DetectedFace) -> float:
        """Return the probability, 0..1, that a face is live; arguments as of `LivenessEnsemble.assess_liveness`."""
        ...


@dataclass(frozen=True, slots=True)
class LivenessRule:
    """When a face can be assessed, and when it is accepted as live.

    Attributes:
        threshold: Least score of a live face, whichever networks give it. It is MiniFASNet's rule, the largest of three
            classes, a little stricter; Facenox's own; and for the mean of both the least sum of the worst APCER and
            the worst BPCER (docs/accuracy.md).
        min_face_px: Least side of a face. Of LFW's photos shrunk to faces of 50 pixels, MiniFASNet classified 67 % as
            live, of the original photos 80 %; of faces of 35 pixels one half.
        min_scale: Least shorter side of the photo, as a multiple of the face's side: the frame of a screen or a sheet
            of paper is visible around a face. Cropped at 1.5 sides, MiniFASNet classified 89 % of LFW's faces as live,
            at 1.2 only 64 %.
    """

    threshold: float = 0.5
    min_face_px: float = 50
    min_scale: float = 1.5


class LivenessEnsemble:
    """One network or several whose scores are averaged; safe for concurrent use by several threads.

    Args:
        scorers: The networks.
        rule: Limits and threshold.
    """

    def __init__(self, scorers: Sequence[LivenessScorer], rule: LivenessRule) -> None:
        self._scorers = scorers
        self._rule = rule

    def assess_liveness(self, pixels: Pixels, face: DetectedFace) -> Liveness:
        """Return the liveness score of a face, 0..1, and the reason of the verdict.

        Args:
            pixels: (height, width, 3) uint8, RGB, upright: the whole photo, because the surroundings of a face are the
                strongest evidence.
            face: In pixels of the same image.
        """
        score = float(np.mean([scorer.compute_score(pixels, face) for scorer in self._scorers]))
        side = compute_face_side(face.box)
        if side < self._rule.min_face_px:
            reason = LivenessReason.FACE_TOO_SMALL
        elif min(pixels.shape[:2]) < self._rule.min_scale * side:
            reason = LivenessReason.CROP_PAST_PHOTO
        else:
            reason = LivenessReason.LIVE if score >= self._rule.threshold else LivenessReason.SPOOF
        return Liveness(score, reason)


def compute_face_side(box: Box) -> float:
    """Return the side, in pixels, of the square with the area of a face's box."""
    return float(np.sqrt(max(0.0, box.width) * max(0.0, box.height)))
