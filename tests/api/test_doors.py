"""Every key opens only its own door: each operation without its permission, and with another's collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from tests.callers import CALLER
from tests.contracts.test_openapi import SCHEMA
from tests.faces import portrait

from vultus.api import guard
from vultus.api.guard import PERMISSION_KEY
from vultus.domain import Permission, Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.api.conftest import Api

OPERATIONS = {
    operation["operationId"]: (method.upper(), path, Permission(operation[PERMISSION_KEY]))
    for path, methods in SCHEMA["paths"].items()
    for method, operation in methods.items()
    if PERMISSION_KEY in operation
}
CONSENT = {"purpose": "Tests", "recorded_by": "tests@example.org"}
FORM_CONSENT = {"consent_purpose": "Tests", "consent_recorded_by": "tests@example.org"}
PHOTO = {"photo": portrait()}
PERSON = str(uuid4())
BODIES: dict[str, dict[str, Any]] = {
    "register": {"data": {"name": "Ada", **FORM_CONSENT}, "files": PHOTO},
    "add_faces": {"data": FORM_CONSENT, "files": PHOTO},
    "screen_photos": {"data": {}, "files": PHOTO},
    "recognize": {"data": {}, "files": PHOTO},
    "compare": {"data": {}, "files": {"first": portrait(), "second": portrait()}},
    "verify": {"data": {"person_id": PERSON}, "files": PHOTO},
    "compute_embeddings": {"data": {}, "files": PHOTO},
    "search_by_vector": {"json": {"contract_id": "x", "vector": [1.0] * 128}},
    "supply_photos": {"files": PHOTO},
    "change_collection": {"json": {"retention_days": 9}},
    "calibrate_collection": {"json": {}},
    "begin_transition": {"json": {"pack": "builtin"}},
    "create_person": {"json": {"name": "Ada", "consent": CONSENT}},
    "change_person": {"json": {"name": "Eve"}},
    "record_consent": {"json": CONSENT},
    "change_consent": {"json": {"evidence_ref": "x"}},
    "register_vectors": {
        "json": {"contract_id": "x", "consent": CONSENT, "persons": [{"external_id": "E", "vector": "AACAPw=="}]}
    },
    "create_key": {"json": {"name": "x"}},
    "create_ticket": {"json": {}},
    "create_source": {"json": {"name": "door", "address": "http://127.0.0.1/mjpeg"}},
    "create_webhook": {"json": {"name": "door", "url": "https://example.org/"}},
    "change_source": {"json": {"name": "gate"}},
    "change_webhook": {"json": {"name": "gate"}},
    "rotate_webhook": {"json": {}},
}
IN_BODY = {
    *(
        "register",
        "screen_photos",
        "recognize",
        "compare",
        "verify",
        "compute_embeddings",
        "search_by_vector",
        "create_key",
    ),
    *("create_ticket", "create_source", "create_webhook"),
}
LISTED = {"create_key", "create_webhook"}
IN_QUERY = {"list_events", "stream_events"}
IN_PATH = {name for name, (_, path, _) in OPERATIONS.items() if "{collection}" in path}
ELSEWHERE = {
    "detect": "looks at a photo only",
    "create_collection": "refused to a bound key",
    "list_collections": "a list",
    "list_keys": "a list",
    "rotate_key": "about a key",
    "revoke_key": "about a key",
    "read_version": "about the server",
    "list_models": "about the server",
    "list_audit_entries": "a list",
    "list_decisions": "a list",
    "explain_decision": "about a decision record",
    "list_erasures": "a list",
    **dict.fromkeys(("read_erasure", "get_receipt"), "of a collection that may be gone; see test_erasures"),
    "read_load": "counts of all collections, for keys that are bound to none",
    "list_sources": "a list",
    **dict.fromkeys(("read_source", "change_source", "delete_source", "take_snapshot"), "about a source"),
    "list_webhooks": "a list",
    **dict.fromkeys(("read_webhook", "change_webhook", "delete_webhook", "rotate_webhook"), "about a webhook"),
    **dict.fromkeys(("list_deliveries", "replay_deliveries", "send_test_event"), "about a webhook"),
}
"""Operations that name no collection."""


def build_request(name: str, collection: str) -> dict[str, Any]:
    """Return a request that would be served if the collection were there."""
    method, path, _ = OPERATIONS[name]
    for part in ("person", "face_id", "consent_id", "key_id", "source_id", "webhook_id", "erasure_id", "decision_id"):
        path = path.replace(f"{{{part}}}", PERSON)
    body = {kind: dict(value) for kind, value in BODIES.get(name, {}).items()}
    if name in LISTED:
        body["json"]["collections"] = [collection]
    elif name in IN_QUERY:
        body["params"] = {"collection": collection}
    elif name in IN_BODY:
        body["json" if "json" in body else "data"]["collection"] = collection
    return {"method": method, "url": path.replace("{collection}", collection), **body}


async def make_key(api: Api, permissions: set[Permission], *collections: str) -> dict[str, str]:
    _, secret = await api.services.access.create_key(CALLER, "test", permissions, collections=collections or None)
    return {"Authorization": f"Bearer {secret}"}


async def test_no_operation_is_served_without_its_permission(api: Api) -> None:
    keys = {one: await make_key(api, set(Permission) - {one}) for one in Permission}
    allowed = []

    for name, (_, _, permission) in OPERATIONS.items():
        answer = await api.client.request(**build_request(name, "default"), headers=keys[permission])
        if (answer.status_code, answer.json().get("needed")) != (403, permission):
            allowed.append(f"{name}: {answer.status_code} {answer.text}")

    assert allowed == []


def test_every_operation_that_names_a_collection_is_tried() -> None:
    assert OPERATIONS.keys() == IN_BODY | IN_QUERY | IN_PATH | ELSEWHERE.keys()


@pytest.mark.parametrize("name", sorted(IN_BODY | IN_QUERY | IN_PATH))
async def test_anothers_collection_is_answered_like_one_that_does_not_exist(api: Api, name: str) -> None:
    own = (await api.client.post("/v1/collections", json={"name": "mine"})).json()["id"]
    foreign = (await api.client.get("/v1/collections/default")).json()["id"]
    bound = await make_key(api, set(Permission), own)

    for hidden, absent in (("default", "nothing"), (foreign, str(uuid4()))):
        answers = [
            await api.client.request(**build_request(name, collection), headers=bound)
            for collection in (hidden, absent)
        ]
        bodies = [
            answer.text.replace(answer.json()["request_id"], "").replace(collection, "")
            for answer, collection in zip(answers, (hidden, absent), strict=True)
        ]

        assert [answer.status_code for answer in answers] == [404, 404], answers[0].text
        assert bodies[0] == bodies[1]


async def test_lists_show_a_bound_key_its_own_only(api: Api) -> None:
    await api.register(portrait(), name="Ada")
    granted = (await api.client.post("/v1/collections", json={"name": "mine"})).json()
    bound = await make_key(api, set(Permission), "mine")

    listed = {
        name: (await api.client.request(**build_request(name, ""), headers=bound)).json()["items"]
        for name in ("list_collections", "list_keys", "list_audit_entries")
    }
    refused = await api.client.post("/v1/collections", json={"name": "more"}, headers=bound)

    assert [one["id"] for one in listed["list_collections"]] == [granted["id"]]
    assert [one["collections"] for one in listed["list_keys"]] == [[granted["id"]]]
    assert {one["collection_id"] for one in listed["list_audit_entries"]} == {granted["id"]}
    assert refused.status_code == 403


async def test_a_key_revoked_while_its_body_comes_does_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body may take minutes."""
    monkeypatch.setattr(guard, "SLOW_BODY_S", 0.0)
    key, secret = await api.services.access.create_key(CALLER, "test", Role.ADMIN)

    async def send_body() -> AsyncIterator[bytes]:
        yield b'{"name":'
        await api.services.access.revoke_key(CALLER, key.id)
        yield b'"late"}'

    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    answer = await api.client.post("/v1/collections", content=send_body(), headers=headers)

    assert answer.status_code == 401
    assert (await api.client.get("/v1/collections/late")).status_code == 404
