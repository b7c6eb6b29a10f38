"""Idempotency keys: any write has one effect, its answer is replayed, and forgotten with the person it names."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pytest
from tests.faces import portrait
from tests.galleries import enrol, people
from tests.migrations import fetch_scalar, others, second

from vultus.domain import Principal, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import httpx
    from tests.api.conftest import Api

    Prepare = Callable[[Api], Coroutine[Any, Any, "Write"]]

__all__ = ["others", "second"]

SETUP = Principal.from_process("setup")
COLLECTION = "/v1/collections/default"
PEOPLE = f"{COLLECTION}/persons"
TRANSITION = f"{COLLECTION}/transition"
CONSENT = {"purpose": "Tests", "recorded_by": "tests@example.org"}
FORM = {"consent_purpose": "Tests", "consent_recorded_by": "tests@example.org"}


@dataclass(frozen=True)
class Write:
    """A request that writes.

    Attributes:
        path: Where to send it.
        action: Of the audit entry that every effect leaves.
        change: Makes it another request.
        content: Arguments of httpx for the body.
        status: Of the answer.
    """

    path: str
    action: str
    change: dict[str, Any]
    content: dict[str, Any] = field(default_factory=dict)
    status: int = 201

    async def send(self, api: Api, key: str | None = "k-1", **headers: str) -> httpx.Response:
        headers = {**({"Idempotency-Key": key} if key else {}), **headers}
        return await api.client.post(self.path, headers=headers, **self.content)

    def changed(self) -> Write:
        return Write(self.path, self.action, {}, self.content | self.change, self.status)


async def create_person(api: Api) -> str:
    made = await api.client.post(PEOPLE, json={"external_id": "bob", "consent": CONSENT})
    return f"{PEOPLE}/{made.json()['id']}"


async def register_one(_: Api) -> Write:
    form = {"data": {"name": "Ada", **FORM}, "files": {"photo": portrait()}}
    return Write("/v1/register", "person.registered", {"files": {"photo": portrait(mirror=True)}}, form)


async def add_photo(api: Api) -> Write:
    change = {"data": FORM | {"largest_face": "true"}}
    form = {"data": FORM, "files": {"photo": portrait()}}
    return Write(f"{await create_person(api)}/faces", "faces.added", change, form)


async def create_one(_: Api) -> Write:
    body = {"name": "Ada", "consent": CONSENT}
    return Write(PEOPLE, "person.created", {"json": body | {"name": "Eve"}}, {"json": body})


async def consent_again(api: Api) -> Write:
    change = {"json": CONSENT | {"purpose": "Other"}}
    return Write(f"{await create_person(api)}/consents", "consent.recorded", change, {"json": CONSENT})


async def create_gallery(_: Api) -> Write:
    return Write("/v1/collections", "collection.created", {"json": {"name": "b"}}, {"json": {"name": "a"}})


async def register_vectors(api: Api) -> Write:
    vector = base64.b64encode(np.ones(128, "<f4").tobytes()).decode()
    space_id = (await api.client.get(COLLECTION)).json()["contract_id"]
    body = {"contract_id": space_id, "consent": CONSENT, "persons": [{"external_id": "E-1", "vector": vector}]}
    change = {"json": body | {"persons": [{"external_id": "E-2", "vector": vector}]}}
    return Write(f"{COLLECTION}/vectors", "vectors.registered", change, {"json": body})


async def start_migration(_: Api) -> Write:
    body = {"pack": "zoomed"}
    return Write(TRANSITION, "transition.begun", {"json": body | {"shadow_share": 0.5}}, {"json": body}, 200)


async def switch_space(api: Api) -> Write:
    assert (await api.client.post(TRANSITION, json={"pack": "zoomed"})).status_code == 200
    change = {"params": {"leave_behind": True}}
    return Write(f"{TRANSITION}/switch", "transition.switched", change, status=200)


async def apply_calibration(api: Api) -> Write:
    await enrol(api.services.database, people(30))
    body = {"apply": True, "target_fmr": 0.001, "group_by": "site"}
    change = {"json": body | {"target_fmr": 0.01}}
    return Write(f"{COLLECTION}/calibration", "collection.calibrated", change, {"json": body}, 200)


WRITES = [
    register_one,
    add_photo,
    create_one,
    consent_again,
    create_gallery,
    register_vectors,
    start_migration,
    switch_space,
    apply_calibration,
]
every_write = pytest.mark.parametrize("prepare", WRITES, ids=lambda prepare: prepare.__name__)


async def count_effects(api: Api, write: Write) -> int:
    entries = (await api.client.get("/v1/audit", params={"limit": 500})).json()["items"]
    return sum(entry["action"] == write.action and entry["actor"] != SETUP.id for entry in entries)


async def count_stored(api: Api) -> Any:
    return await fetch_scalar(api, "SELECT count(*) FROM idempotency WHERE body IS NOT NULL")


@every_write
async def test_a_repeated_request_replays_the_first_answer(api: Api, prepare: Prepare) -> None:
    write = await prepare(api)

    first, again = await write.send(api), await write.send(api)

    assert (first.status_code, first.headers.get("idempotent-replayed")) == (write.status, None), first.text
    assert (again.status_code, again.headers["idempotent-replayed"]) == (write.status, "true")
    assert json.dumps(again.json()) == json.dumps(first.json())  # in the same order
    assert await count_effects(api, write) == 1


@every_write
async def test_another_request_with_the_key_is_refused(api: Api, prepare: Prepare) -> None:
    write = await prepare(api)
    await write.send(api)

    other = await write.changed().send(api)

    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert await count_effects(api, write) == 1


@every_write
async def test_a_burst_with_one_key_has_one_effect(api: Api, prepare: Prepare) -> None:
    write = await prepare(api)

    answers = await asyncio.gather(*(write.send(api) for _ in range(6)))

    done = [answer.json() for answer in answers if answer.status_code == write.status]
    codes = {answer.json()["code"] for answer in answers if answer.status_code != write.status}
    assert done
    assert done == done[:1] * len(done)
    assert codes <= {"idempotency_in_flight", "overloaded"}  # they also wait for the writers' share of the pool
    assert await count_effects(api, write) == 1


@every_write
async def test_the_key_of_another_caller_is_another_key(api: Api, prepare: Prepare) -> None:
    write = await prepare(api)
    await write.send(api)

    other = await write.send(api, **await api.key(Role.ADMIN))

    assert "idempotent-replayed" not in other.headers


@every_write
async def test_without_a_key_nothing_is_stored(api: Api, prepare: Prepare) -> None:
    write = await prepare(api)

    answer = await write.send(api, key=None)

    assert answer.status_code == write.status
    assert await count_stored(api) == 0


@every_write
async def test_a_refused_request_leaves_its_key_free(api: Api, prepare: Prepare) -> None:
    write = await prepare(api)
    missing = Write(write.path.replace("default", "nowhere"), write.action, {}, {"json": {"name": 7}})

    refused = await missing.send(api)
    done = await write.send(api)

    assert refused.status_code in {404, 415, 422}
    assert done.status_code == write.status


@pytest.mark.parametrize("prepare", [register_one, add_photo, create_one, consent_again], ids=lambda one: one.__name__)
async def test_answers_are_forgotten_with_the_person(api: Api, prepare: Prepare) -> None:
    write = await prepare(api)
    body = (await write.send(api)).json()
    person_id = body.get("person_id") or (body.get("person") or body)["id"]
    assert await count_stored(api) == 1

    await api.client.delete(f"{PEOPLE}/{person_id}")
    late = await write.send(api)

    assert await count_stored(api) == 0
    assert (late.status_code, late.json()["code"]) == (410, "idempotency_erased")
    assert person_id not in (await api.client.get(PEOPLE)).text


@pytest.mark.parametrize("path", ["persons/{}", ""])
async def test_answers_about_a_gallery_are_forgotten_with_anybody_in_it(api: Api, path: str) -> None:
    write = await apply_calibration(api)
    await write.send(api)
    person = (await api.client.get(PEOPLE)).json()["items"][0]["id"]
    other = await create_gallery(api)
    await other.send(api, "k-2")

    await api.client.delete(f"{COLLECTION}/{path.format(person)}".rstrip("/"))

    assert await count_stored(api) == 1  # of the collection that was created, where nobody is named


async def test_a_report_that_changes_nothing_is_not_stored(api: Api) -> None:
    await enrol(api.services.database, people(30))

    answer = await api.client.post(f"{COLLECTION}/calibration", json={}, headers={"Idempotency-Key": "k-1"})

    assert (answer.status_code, await count_stored(api)) == (200, 0)


@pytest.mark.parametrize(
    ("path", "content", "why"),
    [
        ("/v1/keys", {"json": {"name": "gate"}}, "secret"),
        (f"{TRANSITION}/photos", {"files": {"photo": portrait()}}, "already_carried"),
    ],
)
async def test_where_no_answer_can_be_stored_a_key_is_refused(
    api: Api, path: str, content: dict[str, Any], why: str
) -> None:
    refused = await api.client.post(path, headers={"Idempotency-Key": "k-1"}, **content)

    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_not_supported")
    assert why in refused.json()["detail"]
    assert len((await api.client.get("/v1/keys")).json()["items"]) == 1


async def test_where_nothing_is_written_a_key_is_ignored(api: Api) -> None:
    headers = {"Idempotency-Key": "k-1"}

    answers = [
        await api.client.post("/v1/detect", files={"photo": photo}, headers=headers)
        for photo in (portrait(), portrait(scale=0.9))
    ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert await count_stored(api) == 0


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "ä".encode().decode("latin-1")])
async def test_a_key_that_is_no_word_is_refused(api: Api, key: str) -> None:
    refused = await api.client.post(
        PEOPLE, json={"name": "Ada", "consent": CONSENT}, headers=[(b"Idempotency-Key", key.encode("latin-1"))]
    )

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


async def test_one_key_for_two_operations_is_a_mismatch(api: Api) -> None:
    await (await create_one(api)).send(api)

    other = await (await create_gallery(api)).send(api)

    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


async def test_a_retried_form_is_the_same_request_though_its_boundary_is_another(api: Api) -> None:
    write = await register_one(api)
    first, again = [
        await write.send(api, **{"Content-Type": f"multipart/form-data; boundary={uuid4().hex}"}) for _ in range(2)
    ]

    assert (again.headers["idempotent-replayed"], again.json()) == ("true", first.json())


@pytest.mark.parametrize("media_type", ["Multipart/Form-Data; boundary=B", "multipart/FORM-DATA;boundary=B"])
async def test_a_form_is_one_however_its_media_type_is_written(api: Api, media_type: str) -> None:
    write = await register_one(api)
    form = api.client.build_request(
        "POST",
        write.path,
        headers={"Content-Type": "multipart/form-data; boundary=B", "Idempotency-Key": "k-1"},
        **write.content,
    )
    headers = {**form.headers, "content-type": media_type}

    first, again = [await api.client.post(form.url, content=form.read(), headers=headers) for _ in range(2)]

    assert (first.status_code, again.headers.get("idempotent-replayed")) == (201, "true"), first.text


@pytest.mark.parametrize("build", [register_one, create_one, create_gallery])
async def test_the_repeated_answer_is_equal_in_bytes_and_says_where_the_resource_is(api: Api, build: Any) -> None:
    write = await build(api)
    first, again = [await write.send(api) for _ in range(2)]

    assert (first.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert (await api.client.get(first.headers["location"])).status_code == 200


async def test_a_form_without_files_is_refused_like_one_without_a_key(api: Api) -> None:
    form = Write("/v1/register", "person.registered", {}, {"data": {"name": "Ada", **FORM}})

    answers = [
        await form.send(api, key, **{"Content-Type": "application/X-WWW-Form-URLEncoded"}) for key in (None, "k-1")
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(415, "unsupported_media_type")] * 2
