"""Sightings are stored with ids and times, under names that receivers know."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from vultus.domain import sightings
from vultus.domain.sightings import Left, Sighting, SourceLost, TrackSighting

KINDS = {
    kind.action: kind
    for _, kind in inspect.getmembers(sightings, inspect.isclass)
    if issubclass(kind, Sighting) and kind not in {Sighting, TrackSighting}
}
COLLECTION, ORIGIN, TRACK, PERSON = uuid4(), uuid4(), uuid4(), uuid4()
THEN, NOW = datetime(2026, 3, 4, 5, tzinfo=UTC), datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=UTC)


def test_the_actions_are_those_that_receivers_know() -> None:
    assert KINDS.keys() == {"appeared", "recognised", "left", "unknown", "spoof", "source_lost", "source_back"}


def test_the_detail_is_what_has_no_column_of_its_own() -> None:
    left = Left(
        collection_id=COLLECTION, origin_kind="session", origin_id=ORIGIN, person_id=PERSON, track_id=TRACK,
        since=THEN, at=NOW, track_ids=(TRACK, PERSON),
    )  # fmt: skip
    lost = SourceLost(collection_id=COLLECTION, origin_id=ORIGIN, at=NOW)

    at = "2026-03-04T05:06:07.000Z"
    assert json.loads(json.dumps(left.detail)) == {
        "origin": "session", "track_id": str(TRACK), "since": "2026-03-04T05:00:00.000Z", "at": at,
        "track_ids": [str(TRACK), str(PERSON)],
    }  # fmt: skip
    assert (lost.detail, lost.person_id) == ({"origin": "source", "at": at}, None)


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_sighting_cannot_hold_a_name_a_score_or_a_vector(kind: type[Sighting]) -> None:
    types = {field.type for field in kind.__dataclass_fields__.values() if field.name != "action"}

    assert types <= {"UUID", "UUID | None", "tuple[UUID, ...]", "OriginKind", "datetime", "Band"}
