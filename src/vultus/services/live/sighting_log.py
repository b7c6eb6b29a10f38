"""Where a stream reports what happens in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.domain import Principal
    from vultus.domain.sightings import Sighting


class SightingLog(Protocol):
    """Receives what happens in streams, once each, in order."""

    async def record(self, principal: Principal, sighting: Sighting, event_id: UUID) -> None:
        """Record one event.

        Args:
            principal: For whom the stream is processed.
            sighting: What happened.
            event_id: Id under which it is told.
        """
        ...
