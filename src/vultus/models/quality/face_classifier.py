"""Whether a crop shows a human face: the second look of a network that did not detect it.

A detector gives animals scores that some people do not reach, and faces that lie on their side landmarks in wrong
places. MTCNN's output network (Zhang et al. 2016), which ships with the service, errs on others, and has landmarks too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from vultus.models.imaging.geometry import estimate_similarity_transform, transform_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import FloatArray, Pixels
    from vultus.models.imaging.alignment import AlignmentTemplate
    from vultus.models.runtime import NetworkSession

INPUT_SIDE = 48
"""Of the network's input, pixels."""

REGION_CORNER, REGION_SIDE = (10, 11), 128
"""Left, top and side of the part of a crop of 150 pixels that the network sees: as large as its own boxes.

Parts of 96, 112 and 144 pixels tell faces from animals less well.
"""

MAX_DISAGREEMENT = 0.25
"""Mean distance of the landmarks of two networks, in distances of the eyes, from which they do not see one face.

Of 3,898 faces of LFW, UTK and NUAA the largest is 0.24; of 17 animals and things called faces 5 are above it.
"""


class FaceClassifier:
    """The loaded network; safe for concurrent use by several threads.

    Args:
        session: MTCNN's output network. Input uint8 (n, 48, 48, 3), RGB; outputs (n,) probabilities of a face,
            offsets of the box, and (n, 10) landmarks, five x then five y, as fractions of the input's side.
        template: Of the crops: 150 pixels, with the positions of the detector's landmarks on a frontal face.
    """

    def __init__(self, session: NetworkSession, template: AlignmentTemplate) -> None:
        self._session = session
        self._template = template.array
        self._eyes_px = float(np.hypot(*(self._template[1] - self._template[0])))

    def score_chips(self, chips: Sequence[Pixels], landmarks: Sequence[FloatArray]) -> list[float]:
        """Return the probability, 0..1, that each crop shows a face; 0 where the network sees its landmarks elsewhere.

        Args:
            chips: (150, 150, 3) uint8 each, RGB, aligned to the template.
            landmarks: (5, 2) each, the detector's, at any scale and roll.
        """
        if not len(chips):
            return []
        (left, top), side = REGION_CORNER, REGION_SIDE
        regions = [chip[top : top + side, left : left + side] for chip in chips]
        inputs = [cv2.resize(region, (INPUT_SIDE, INPUT_SIDE), interpolation=cv2.INTER_AREA) for region in regions]
        scores, _, fractions = self._session.run(np.stack(inputs).astype(np.uint8, copy=False))
        seen = fractions.reshape(-1, 2, 5).transpose(0, 2, 1) * side + np.array(REGION_CORNER)
        return [
            float(score) if self._compute_disagreement(points, found) < MAX_DISAGREEMENT else 0.0
            for score, points, found in zip(scores.reshape(-1), seen, landmarks, strict=True)
        ]

    def _compute_disagreement(self, seen: FloatArray, landmarks: FloatArray) -> float:
        """Return the mean distance of (5, 2) landmarks in a crop from the detector's, in distances of the eyes."""
        matrix = estimate_similarity_transform(landmarks, self._template)
        distances = np.linalg.norm(seen - transform_points(landmarks, matrix), axis=1)
        return float(distances.mean()) / self._eyes_px
