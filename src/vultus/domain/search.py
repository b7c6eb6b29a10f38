"""What a search of a collection finds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from vultus.domain.policies import Candidate


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What was found for one probe.

    Attributes:
        candidates: Best first, each person once.
        gallery_size: Templates compared.
        changed_at: When the collection was last changed, as the search saw it.
    """

    candidates: tuple[Candidate, ...]
    gallery_size: int
    changed_at: datetime | None = None
