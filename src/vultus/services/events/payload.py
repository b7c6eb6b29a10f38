"""An event as receivers get it: the same in lists, streams and deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vultus.domain.sightings import ACTIONS
from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from vultus.domain import OutboxEntry


def build_payload(entry: OutboxEntry) -> dict[str, Any]:
    """Return an event for JSON, in the form that Standard Webhooks recommends."""
    ids = {
        "collection_id": entry.collection_id,
        "person_id": entry.person_id,
        "origin_id" if entry.action in ACTIONS else "object_id": entry.object_id,
    }
    return {
        "id": str(entry.id),
        "type": entry.action,
        "timestamp": format_moment(entry.created_at),
        "data": {name: None if value is None else str(value) for name, value in ids.items()} | entry.detail,
    }
