"""Results of a collection's search."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

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
