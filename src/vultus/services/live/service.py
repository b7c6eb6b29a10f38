"""Opens streams of frames in collections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.db.database import Database
from vultus.domain import Permission, SpaceRegistry
from vultus.services.limits import UsageLimiter
from vultus.services.live.attendance import Attendance
from vultus.services.live.gallery import StreamGallery
from vultus.services.live.sighting_log import SightingLog
from vultus.services.live.stream import LiveStream
from vultus.services.photo_analysis import PhotoAnalyzer
from vultus.services.search.search import Searcher

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from vultus.domain import Principal, StreamOrigin, Zone


@dataclass(frozen=True, slots=True)
class StreamResources:
    """What every stream uses."""

    database: Database
    analyzer: PhotoAnalyzer
    spaces: SpaceRegistry
    searcher: Searcher
    limiter: UsageLimiter
    sightings: SightingLog


class StreamService:
    """Opens streams of frames in a collection."""

    def __init__(self, resources: StreamResources) -> None:
        self._resources = resources
        self._seen_at: dict[UUID, dict[UUID, datetime]] = {}

    async def open_stream(
        self,
        principal: Principal,
        *,
        reference: str,
        origin: StreamOrigin,
        min_face_px: float | None = None,
        zones: tuple[Zone, ...] = (),
        sightings: SightingLog | None = None,
    ) -> LiveStream:
        """Return a stream whose faces are searched for in a collection.

        Args:
            principal: For whom; its key's limits hold, and what it may not see is left out.
            reference: Id or name of the collection.
            origin: Where the frames come from.
            min_face_px: Shorter side of the smallest face that counts, pixels; None for the collection's rules alone.
            zones: Where in the picture faces count; everywhere without one.
            sightings: Receives what happens; the service's log by default.

        Raises:
            ForbiddenError: The principal may not recognise people in live video.
            NotFoundError: There is no such collection.
            PackNotLoadedError: The collection's pack is not loaded.
        """
        use = self._resources
        async with use.database.hot_queries() as work:
            collection = await work.open(reference, principal, Permission.LIVE)
        gallery = StreamGallery(use.database, use.searcher, use.limiter, use.spaces, principal, collection)
        seen_at: dict[UUID, datetime] = {}
        if origin.kind == "source":  # a session does not come back, once its stream has ended
            seen_at = self._seen_at.setdefault(origin.id, seen_at)
        return LiveStream(
            use.analyzer,
            gallery,
            sightings or use.sightings,
            Attendance(collection.id, origin, seen_at),
            principal,
            min_face_px=min_face_px,
            zones=zones,
        )
