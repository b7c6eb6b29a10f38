"""Results of a collection's search, and whether they still hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from vultus.domain.policies import Candidate


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Result of a search for one probe.

    Attributes:
        candidates: Best first, each person once.
        gallery_size: Templates compared.
        changed_at: Time of the collection's last change, as of the search.
    """

    candidates: tuple[Candidate, ...]
    gallery_size: int
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class GalleryState:
    """What results of earlier searches of a collection depend on.

    Attributes:
        changed_at: Time of the collection's last change, of its policy among others.
        last_number: Greatest number of a template; 0 without one. It grows when faces are enrolled.
        live_faces: External id and name of the person of each face asked for that is still there under a live consent.
    """

    changed_at: datetime
    last_number: int
    live_faces: dict[UUID, tuple[str | None, str | None]]

    def supports(self, candidate: Candidate) -> bool:
        """Return whether a candidate's face is still there, and its person's name the same."""
        return self.live_faces.get(candidate.face_id) == (candidate.external_id, candidate.name)
