"""Presentation attack detection: networks that distinguish live faces from photos and screens. One file per family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vultus.models.liveness.minifasnet import CropNetwork, MiniFasnet
from vultus.models.runtime import OnnxSession

if TYPE_CHECKING:
    from vultus.domain import DetectedFace, Liveness, Pixels
    from vultus.models.runtime import SessionOpener


class LivenessDetector(Protocol):
    """Detects presentation attacks; safe for concurrent use by several threads."""

    def assess_liveness(self, pixels: Pixels, face: DetectedFace) -> Liveness:
        """Return the liveness score of a face and the reason of the verdict.

        Args:
            pixels: (height, width, 3) uint8, RGB, upright: the whole photo, because the surroundings of a face are the
                strongest evidence.
            face: In pixels of the same image.
        """
        ...


def load_minifasnet(v2: bytes, v1se: bytes, *, open_session: SessionOpener = OnnxSession) -> MiniFasnet:
    """Load both networks.

    Args:
        v2: Graph built from 2.7_80x80_MiniFASNetV2.pth.
        v1se: Graph built from 4_0_0_80x80_MiniFASNetV1SE.pth.
        open_session: Loads a graph.
    """
    return MiniFasnet([CropNetwork(2.7, open_session(v2)), CropNetwork(4.0, open_session(v1se))])
