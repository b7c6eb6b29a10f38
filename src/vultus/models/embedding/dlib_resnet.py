"""dlib's ResNet: 150 × 150 crops to 128 numbers, each crop averaged with its mirror image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.models.embedding.inputs import DLIB
from vultus.models.embedding.network import NetworkEmbedder

if TYPE_CHECKING:
    from vultus.models.runtime import Session


class DlibResnet(NetworkEmbedder):
    """The loaded network."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, DLIB)
