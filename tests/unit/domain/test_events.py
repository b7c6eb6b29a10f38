"""Events are stored as they always were: the audit record is what users read."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from vultus.domain import BundleImported, CollectionExported, Permission, bundle_events, events, sources, webhooks
from vultus.domain.events import Event

COLLECTION, PERSON, OBJECT = uuid4(), uuid4(), uuid4()
IN_COLLECTION = {"collection_id": COLLECTION}
OF_PERSON = IN_COLLECTION | {"person_id": PERSON}
OF_OBJECT = OF_PERSON | {"object_id": OBJECT}
THEN, NOW = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=UTC)
CONSENT_TIME = {"granted_at": "2026-01-02T00:00:00Z", "ended_at": "2026-03-04T05:06:07.000008Z"}

EXAMPLES: list[tuple[type[Event], str, dict[str, UUID], dict[str, Any], dict[str, Any]]] = [
    (
        events.KeyCreated,
        "key.created",
        {"object_id": OBJECT},
        {"permissions": (Permission.AUDIT, Permission.READ), "collections": None, "expires_at": None},
        {"permissions": ["audit", "read"]},
    ),
    (
        events.KeyCreated,
        "key.created",
        {"object_id": OBJECT},
        {"permissions": (Permission.READ,), "collections": (COLLECTION,), "expires_at": THEN},
        {"permissions": ["read"], "collections": [str(COLLECTION)], "expires_at": "2026-01-02T00:00:00Z"},
    ),
    (
        events.KeyRotated,
        "key.rotated",
        {"object_id": OBJECT},
        {"previous_until": THEN},
        {"previous_until": "2026-01-02T00:00:00Z"},
    ),
    (sources.SourceCreated, "source.created", IN_COLLECTION | {"object_id": OBJECT}, {}, {}),
    (
        sources.SourceChanged,
        "source.changed",
        IN_COLLECTION | {"object_id": OBJECT},
        {"fields": ("fps",)},
        {"fields": ["fps"]},
    ),
    (sources.SourceDeleted, "source.deleted", IN_COLLECTION | {"object_id": OBJECT}, {}, {}),
    (events.KeyRevoked, "key.revoked", {"object_id": OBJECT}, {}, {}),
    (events.CollectionCreated, "collection.created", IN_COLLECTION, {}, {}),
    (events.CollectionChanged, "collection.changed", IN_COLLECTION, {"fields": ("name",)}, {"fields": ["name"]}),
    (
        events.CollectionChanged,
        "collection.changed",
        IN_COLLECTION,
        {"fields": ("name", "policy"), "crops_deleted": 3},
        {"fields": ["name", "policy"], "crops_deleted": 3},
    ),
    (
        events.SearchGraphSet,
        "collection.changed",
        IN_COLLECTION,
        {"m": 16, "ef_construction": 64, "ef_search": 200, "probes": 956, "lost": 1},
        {"fields": ["search"], "m": 16, "ef_construction": 64, "ef_search": 200, "probes": 956, "lost": 1},
    ),
    (
        events.CollectionCalibrated,
        "collection.calibrated",
        IN_COLLECTION,
        {"contract_id": "a", "points": ((1e-3, 0.5), (1e-4, 0.6)), "target_fmr": 1e-4, "target_fpir": None},
        {"contract_id": "a", "points": [[1e-3, 0.5], [1e-4, 0.6]], "target_fmr": 1e-4, "target_fpir": None},
    ),
    (
        events.CollectionUncalibrated,
        "collection.uncalibrated",
        IN_COLLECTION,
        {"contract_id": "a"},
        {"contract_id": "a"},
    ),
    (
        events.CollectionDeleted,
        "collection.deleted",
        IN_COLLECTION,
        {"persons": 2, "faces": 3},
        {"persons": 2, "faces": 3},
    ),
    (events.MigrationStarted, "transition.begun", IN_COLLECTION, {"contract_id": "b"}, {"contract_id": "b"}),
    (events.MigrationRetried, "transition.retried", IN_COLLECTION, {"contract_id": "b"}, {"contract_id": "b"}),
    (
        events.MigrationCutOver,
        "transition.switched",
        IN_COLLECTION,
        {"from_contract_id": "a", "to_contract_id": "b", "persons_left_behind": 1},
        {"from": "a", "to": "b", "persons_left_behind": 1},
    ),
    (
        events.MigrationFinished,
        "transition.finished",
        IN_COLLECTION,
        {"kept": "b", "removed": "a", "templates": 9, "faces_lost": 2, "persons_left_behind": 1},
        {"kept": "b", "removed": "a", "templates": 9, "faces_lost": 2, "persons_left_behind": 1},
    ),
    (events.PersonCreated, "person.created", OF_OBJECT, {}, {}),
    (events.PersonRegistered, "person.registered", OF_OBJECT, {"faces": 2, "rejected": 1}, {"faces": 2, "rejected": 1}),
    (events.FacesAdded, "faces.added", OF_OBJECT, {"faces": 2, "rejected": 0}, {"faces": 2, "rejected": 0}),
    (
        events.VectorsRegistered,
        "vectors.registered",
        IN_COLLECTION,
        {"persons": 5, "faces": 5},
        {"persons": 5, "faces": 5},
    ),
    (CollectionExported, "collection.exported", IN_COLLECTION, {"persons": 5, "faces": 9}, {"persons": 5, "faces": 9}),
    (
        BundleImported,
        "collection.imported",
        IN_COLLECTION,
        {"persons": 5, "consents": 6, "faces": 9, "installation": OBJECT},
        {"persons": 5, "consents": 6, "faces": 9, "installation": str(OBJECT)},
    ),
    (events.PersonChanged, "person.changed", OF_PERSON, {"fields": ("name",)}, {"fields": ["name"]}),
    (events.PersonErased, "person.erased", OF_PERSON, {"faces": 2, "consents": 1}, {"faces": 2, "consents": 1}),
    (
        events.AuditTrimmed,
        "audit.trimmed",
        {},
        {"before": THEN, "entries": 7},
        {"before": "2026-01-02T00:00:00Z", "entries": 7},
    ),
    (webhooks.WebhookCreated, "webhook.created", {"object_id": OBJECT}, {}, {}),
    (
        webhooks.WebhookChanged,
        "webhook.changed",
        {"object_id": OBJECT},
        {"fields": ("name", "url")},
        {"fields": ["name", "url"]},
    ),
    (webhooks.WebhookRotated, "webhook.rotated", {"object_id": OBJECT}, {}, {}),
    (webhooks.WebhookDisabled, "webhook.disabled", {"object_id": OBJECT}, {}, {}),
    (webhooks.WebhookDeleted, "webhook.deleted", {"object_id": OBJECT}, {}, {}),
    (events.FaceDeleted, "face.deleted", OF_OBJECT, {}, {}),
    (events.ConsentRecorded, "consent.recorded", OF_OBJECT, {}, {}),
    (events.ConsentChanged, "consent.changed", OF_OBJECT, {"fields": ("expires_at",)}, {"fields": ["expires_at"]}),
    (
        events.ConsentWithdrawn,
        "consent.withdrawn",
        OF_OBJECT,
        {"faces": 1, "granted_at": THEN, "ended_at": NOW},
        {"faces": 1} | CONSENT_TIME,
    ),
    (
        events.ConsentExpired,
        "consent.expired",
        OF_OBJECT,
        {"faces": 1, "granted_at": THEN, "ended_at": NOW},
        {"faces": 1} | CONSENT_TIME,
    ),
]
KINDS = {
    kind
    for module in (bundle_events, events, webhooks, sources)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, Event) and kind != Event
}


@pytest.mark.parametrize(("kind", "action", "ids", "fields", "detail"), EXAMPLES)
def test_an_event_is_stored_under_its_action_with_its_ids_and_detail(
    kind: type[Event], action: str, ids: dict[str, UUID], fields: dict[str, Any], detail: dict[str, Any]
) -> None:
    event = kind(**ids, **fields)  # type: ignore[arg-type]

    assert event.action == action
    assert {name: getattr(event, name) for name in ("collection_id", "person_id", "object_id")} == {
        "collection_id": None,
        "person_id": None,
        "object_id": None,
    } | ids
    assert json.loads(json.dumps(event.detail)) == detail


def test_proofs_and_personal_values_are_in_no_detail() -> None:
    """Followers of events and receivers of webhooks get the detail."""
    event = events.PersonChanged(**OF_PERSON, fields=("name",), proof={"purpose": "x"}, personal={"name": ("A", "B")})

    assert event.detail == {"fields": ("name",)}


def test_every_event_has_an_example() -> None:
    assert {kind for kind, *_ in EXAMPLES} == KINDS


@pytest.mark.parametrize("kind", sorted(KINDS, key=str))
def test_an_event_cannot_hold_a_name_a_vector_or_an_image(kind: type[Event]) -> None:
    """Its texts are names and values of settings, and embedding spaces; everything else is an id, a count or a time.

    What the audit record alone keeps is beside it: proofs of consents, and a person's values until they are erased.
    """
    texts = {"contract_id", "from_contract_id", "to_contract_id", "kept", "removed", "fields", "changes"}
    types = {"UUID", "UUID | None", "int", "float | None", "datetime", "tuple[tuple[float, float], ...]"}
    types |= {"datetime | None", "tuple[UUID, ...] | None", "tuple[Permission, ...]"}

    fields = {
        name: field.type
        for name, field in kind.__dataclass_fields__.items()
        if name not in {"action", "proof", "personal"}
    }

    assert {name: kind for name, kind in fields.items() if kind not in types and name not in texts} == {}


def test_an_event_without_its_ids_is_refused() -> None:
    with pytest.raises(TypeError, match="person_id"):
        events.PersonErased(collection_id=COLLECTION, faces=1, consents=1)  # type: ignore[call-arg]
