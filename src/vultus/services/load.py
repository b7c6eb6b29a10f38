"""How much this process does: its counters as numbers, for whoever looks after the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import Permission
from vultus.utils import metrics
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from vultus.domain import Principal

UNCOUNTED_ROUTES = ("/v1/health", "/v1/load")
"""What is asked all the time by those that watch the server."""

PHOTO_ROUTES = frozenset(
    f"/v1/{name}" for name in ("recognize", "register", "screen", "detect", "compare", "verify", "embeddings", "search")
)


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """What a process did since it started, and what it does now.

    Attributes:
        answers_within: Requests with photos or vectors that were answered within so many seconds, cumulatively, by the
            bounds of the histogram; `+Inf` counts all.
    """

    process_id: UUID
    started_at: datetime
    at: datetime
    requests: int
    photos: int
    searches: int
    answers_within: Mapping[str, int]
    photos_waiting: int
    workers_busy: int
    connections_in_use: int
    connections_idle: int
    live_sessions: int


class LoadService:
    """Reads the counters of this process, which has an id of its own."""

    def __init__(self) -> None:
        self._process_id = new_id()
        self._started_at = datetime.now(UTC)

    def read_load(self, principal: Principal) -> ServerLoad:
        """Return the counters as they are.

        Raises:
            ForbiddenError: The principal may not configure, or is bound to collections: the counts are of all.
        """
        principal.require(Permission.CONFIGURE)
        principal.require_all_collections("see the load of the server")
        return ServerLoad(
            process_id=self._process_id,
            started_at=self._started_at,
            at=datetime.now(UTC),
            requests=_count_requests(),
            photos=_sum_samples("vultus_batch_photos_sum"),
            searches=_sum_samples("vultus_searches_total"),
            answers_within=_count_answers(),
            photos_waiting=_sum_samples("vultus_photos_waiting"),
            workers_busy=_sum_samples("vultus_workers_busy"),
            connections_in_use=_sum_samples("vultus_database_connections", state="in_use"),
            connections_idle=_sum_samples("vultus_database_connections", state="idle"),
            live_sessions=_sum_samples("vultus_live_sessions"),
        )


def _sum_samples(name: str, **labels: str) -> int:
    """Return the sum of the samples with this name and these labels."""
    found = metrics.list_samples(name)
    return int(sum(value for own, value in found if labels.items() <= own.items()))


def _count_requests() -> int:
    found = metrics.list_samples("vultus_requests_total")
    return int(sum(value for labels, value in found if not labels["route"].startswith(UNCOUNTED_ROUTES)))


def _count_answers() -> dict[str, int]:
    counts = Counter[str]()
    for labels, value in metrics.list_samples("vultus_request_seconds_bucket"):
        if labels["route"] in PHOTO_ROUTES:
            counts[labels["le"]] += int(value)
    return dict(counts)
