"""Opens streams of frames in collections."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.db.database import Database
from vultus.domain import Permission, SpaceRegistry
from vultus.services.limits import UsageLimiter
from vultus.services.live.attendance import Attendance
from vultus.services.live.gallery import StreamGallery
from vultus.services.live.sighting_log import SightingLog
from vultus.services.live.stream import LiveStream
from vultus.services.photo_analysis import PhotoAnalyzer
from vultus.services.recognition.decision_log import DecisionLog
from vultus.services.search.search import Searcher

if TYPE_CHECKING:
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
    decisions: DecisionLog


@dataclass(slots=True, eq=False)
class _Memory:
    """Whom a source saw lately, for its next stream.

    Attributes:
        cooldown: For how long it is of use.
        seen_at: When each person was seen last.
        stream: The one that writes it, as long as there is one.
    """

    cooldown: timedelta
    seen_at: dict[UUID, datetime] = field(default_factory=dict)
    stream: weakref.ref[LiveStream] | None = None

    def is_of_use(self) -> bool:
        """Return whether a stream goes on, or somebody was seen within the cooldown."""
        now = datetime.now(UTC)
        is_open = self.stream is not None and self.stream() is not None
        return is_open or any(abs(now - seen) <= self.cooldown for seen in self.seen_at.values())


class StreamService:
    """Opens streams of frames in a collection."""

    def __init__(self, resources: StreamResources) -> None:
        self._resources = resources
        self._memories: dict[UUID, _Memory] = {}

    async def open_stream(
        self,
        principal: Principal,
        *,
        reference: str,
        origin: StreamOrigin,
        min_face_px: float | None = None,
        zones: tuple[Zone, ...] = (),
        max_pixels: int | None = None,
        sightings: SightingLog | None = None,
    ) -> LiveStream:
        """Return a stream whose faces are searched for in a collection.

        Args:
            principal: For whom; its key's limits hold, and what it may not see is left out.
            reference: Id or name of the collection.
            origin: Where the frames come from.
            min_face_px: Shorter side of the smallest face that counts, pixels; None for the collection's rules alone.
            zones: Where in the picture faces count; everywhere without one.
            max_pixels: Of a frame, if that is less than a photo may have.
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
        memory = self._memories.get(origin.id) or _Memory(timedelta(0))
        memory.cooldown = timedelta(seconds=collection.policy.tracks.cooldown_s)
        stream = LiveStream(
            use.analyzer,
            gallery,
            sightings or use.sightings,
            Attendance(collection.id, origin, memory.seen_at),
            principal,
            use.decisions,
            min_face_px=min_face_px,
            zones=zones,
            max_pixels=max_pixels,
        )
        if origin.kind == "source":  # a session does not come back, once its stream has ended
            memory.stream = weakref.ref(stream)
            self._memories = {key: one for key, one in self._memories.items() if one.is_of_use()} | {origin.id: memory}
        return stream
