"""The edge: keys before bodies, limits while streaming, bad input, health, problems."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from opentelemetry import trace
from starlette.routing import Route
from tests.callers import CALLER
from tests.faces import portrait

from vultus.api.app import create_app
from vultus.api.guard import GuardedRoute, require_permission
from vultus.domain import Permission, Role
from vultus.schemas.base import ApiModel
from vultus.utils.request_scope import RequestLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx
    from tests.api.conftest import Api

MANY = 300


def multipart(parts: int, read: list[int]) -> AsyncIterator[bytes]:
    """Stream an endless-looking upload and count how many parts were read."""

    async def stream() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
        for at in range(parts):
            read[0] = at + 1
            yield b"\xff" * 65536
        yield b"\r\n--x--\r\n"

    return stream()


async def upload(api: Api, read: list[int], **headers: str) -> httpx.Response:
    return await api.client.post(
        "/v1/recognize",
        content=multipart(MANY, read),
        headers={"Content-Type": "multipart/form-data; boundary=x", **headers},
    )


@pytest.mark.parametrize("key", ["", "Bearer vultus_wrong", "Basic abc"])
async def test_without_a_key_no_byte_of_the_body_is_read(api: Api, key: str) -> None:
    read = [0]

    answer = await upload(api, read, Authorization=key)

    assert (answer.status_code, read) == (401, [0])
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_key_without_the_permission_is_refused_before_the_body(api: Api) -> None:
    low = await api.key(Role.RECOGNIZE)
    read = [0]

    answer = await api.client.post(
        "/v1/register",
        content=multipart(MANY, read),
        headers={"Content-Type": "multipart/form-data; boundary=x", **low},
    )

    assert (answer.status_code, answer.json()["needed"], read) == (403, "enrol", [0])


async def test_both_headers_accept_a_key_and_a_revoked_one_is_refused(api: Api) -> None:
    key, secret = await api.services.access.create_key(CALLER, "gate", Role.RECOGNIZE)
    header = {"X-API-Key": secret, "Authorization": ""}
    good = await api.client.get("/v1/version", headers=header)

    await api.client.delete(f"/v1/keys/{key.id}")
    revoked = await api.client.get("/v1/version", headers=header)
    unknown = await api.client.get("/v1/version", headers={**header, "X-API-Key": "vultus_" + "x" * 43})

    assert (good.status_code, revoked.status_code) == (200, 401)
    assert {**revoked.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}


async def test_keys_are_made_and_listed_without_their_secrets(api: Api) -> None:
    made = (await api.client.post("/v1/keys", json={"name": "gate", "role": "enrol"})).json()
    listed = await api.client.get("/v1/keys")

    assert made["secret"].startswith("vultus_")
    assert [(key["name"], key["role"]) for key in listed.json()["items"]] == [
        ("administrator", "admin"),
        ("gate", "enrol"),
    ]
    assert made["secret"] not in listed.text


async def test_a_body_over_the_limit_is_cut_off_while_it_streams(serve: Callable[..., Any]) -> None:
    api = await serve(server={"max_body_bytes": 2**20})
    read = [0]

    streamed = await upload(api, read)
    announced = await upload(api, [0], **{"Content-Length": str(2**20 + 1)})

    assert (streamed.status_code, streamed.json()["code"]) == (413, "body_too_large")
    assert read[0] < 20
    assert announced.status_code == 413


async def test_bodies_of_all_requests_share_one_memory(serve: Callable[..., Any]) -> None:
    api = await serve(server={"max_body_bytes": 2**20, "max_bodies_bytes": 2**20})
    first_part_sent, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n' + bytes(800_000)
        first_part_sent.set()
        await go_on.wait()
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    holder = asyncio.create_task(api.client.post("/v1/detect", content=slow(), headers=headers))
    await first_part_sent.wait()
    refused = await upload(api, [0])
    go_on.set()
    await holder
    afterwards = await api.client.post("/v1/detect", files={"photo": portrait()})

    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert refused.headers["retry-after"]
    assert afterwards.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"name": "x", "retention_days": NaN}',
        b'{"name": "x", "retention_days": 1e999}',
        b'{"name": "\\ud800"}',
        b'{"name": "\xff"}',
        b'{"name": "a b"}',
        b'{"name": "x", "unknown": 1}',
        b'{"name": 7}',
        b'{"name": null}',
        b'{"name": "x", "policy": {"threshold": 2}}',
        b'{"name": "x", "retention_days": true}',
        b'{"name": "019f0c2e-6a7b-7cc1-a2b3-c4d5e6f70819"}',
    ],
)
async def test_hostile_json_gets_a_problem_and_changes_nothing(api: Api, body: bytes) -> None:
    answer = await api.client.post("/v1/collections", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert len((await api.client.get("/v1/collections")).json()["items"]) == 1


async def test_an_unknown_query_parameter_is_refused(api: Api) -> None:
    answer = await api.client.get("/v1/collections", params={"limt": 3})

    assert answer.json()["errors"][0]["path"] == "query.limt"


async def test_a_foreign_cursor_is_refused(api: Api) -> None:
    for cursor in ("x", "ä", "AAAA", str(uuid4())):
        assert (await api.client.get("/v1/collections", params={"cursor": cursor})).status_code == 422


async def test_the_two_main_operations_redirect_with_method_and_body(api: Api) -> None:
    for name in ("register", "recognize"):
        answer = await api.client.post(f"/{name}", files={"photo": b"x"})

        assert (answer.status_code, answer.headers["location"]) == (308, f"v1/{name}")


@pytest.mark.parametrize("query", ["name=keys", "path=//evil.test", "url=x&next=y&to=z&location=keys"])
async def test_no_request_chooses_where_it_is_redirected(api: Api, query: str) -> None:
    routes = {"/register": "POST", "/recognize": "POST", "/": "GET"}

    answers = [await api.client.request(method, f"{path}?{query}") for path, method in routes.items()]

    assert [answer.headers["location"] for answer in answers] == ["v1/register", "v1/recognize", "docs"]


async def test_browsers_begin_at_the_console(api: Api) -> None:
    answer = await api.client.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})

    assert (answer.status_code, answer.headers["location"], answer.headers["vary"]) == (307, "console", "Accept")


async def test_no_request_is_reported_to_opentelemetry(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    tracers = []

    class Provider(trace.TracerProvider):
        def get_tracer(self, *names: Any, **more: Any) -> trace.Tracer:
            tracers.append(names)
            return trace.NoOpTracer()

    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", Provider())

    await api.client.get("/v1/health/live")

    assert tracers == []


async def test_a_route_without_a_guard_takes_nothing_from_the_query(api: Api) -> None:
    """What a function of FastAPI's declares as a parameter, a default argument too, any caller may set."""
    app = create_app(api.services, limits=RequestLimits(max_requests=1, max_bodies_bytes=1))

    plain = {route.path for route in app.routes if isinstance(route, Route) and not isinstance(route, GuardedRoute)}
    of_fastapi = {route.path for route in app.routes if isinstance(route, APIRoute)} & plain

    assert {"/", "/docs", "/register", "/recognize"} <= plain
    assert of_fastapi == set()


async def test_a_request_id_is_kept_if_it_is_a_word(api: Api) -> None:
    kept = await api.client.get("/v1/nothing", headers={"X-Request-ID": "abc-123"})
    replaced = await api.client.get("/v1/nothing", headers={"X-Request-ID": "two words\t"})

    assert (kept.status_code, kept.headers["x-request-id"], kept.json()["request_id"]) == (404, "abc-123", "abc-123")
    assert replaced.headers["x-request-id"] == replaced.json()["request_id"] != "two words\t"


async def test_health_needs_no_key_and_readiness_needs_the_database(api: Api) -> None:
    nobody = {"Authorization": ""}
    assert (await api.client.get("/v1/health/live", headers=nobody)).status_code == 200
    assert (await api.client.get("/v1/health/ready", headers=nobody)).status_code == 200

    await api.services.database.close()
    assert (await api.client.get("/v1/health/live", headers=nobody)).status_code == 200


async def test_models_say_what_is_in_use_and_under_which_licence(api: Api) -> None:
    (model,) = (await api.client.get("/v1/models")).json()["items"]

    assert (model["pack"], model["commercial_use"], model["dimension"]) == ("builtin", True, 128)
    assert model["licences"] == {"mtcnn": "MIT", "dlib-resnet": "CC0-1.0"}
    assert model["runtime"].keys() == {"detector", "embedder"}
    assert model["runtime"]["detector"].startswith("ONNX Runtime")
    assert [point["threshold"] for point in model["operating_points"]] == sorted(
        point["threshold"] for point in model["operating_points"]
    )


async def test_a_full_server_refuses_immediately(serve: Callable[..., Any]) -> None:
    api = await serve(inference={"workers": 1, "max_queue": 1})

    answers = await asyncio.gather(
        *(api.client.post("/v1/detect", files={"photo": portrait(scale=1.5)}) for _ in range(8))
    )

    statuses = sorted(answer.status_code for answer in answers)
    assert set(statuses) == {200, 503}
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 503)


async def test_a_photo_that_is_being_read_has_its_slot(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vultus.models.workers.admission_queue.RESERVATION_TTL_S", 60.0)
    api = await serve(inference={"workers": 1, "max_queue": 1})
    both_begun, go_on = asyncio.Barrier(3), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        await both_begun.wait()
        await go_on.wait()
        yield b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n' + portrait()
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    post = api.client.post
    held = [asyncio.create_task(post("/v1/recognize", content=slow(), headers=headers)) for _ in range(2)]
    await both_begun.wait()
    read = [0]
    refused = await upload(api, read)
    go_on.set()
    served = [(await each).status_code for each in held]
    afterwards = await api.client.post("/v1/detect", files={"photo": portrait()})

    assert (refused.status_code, refused.json()["code"], read) == (503, "overloaded", [0])
    assert (served, afterwards.status_code) == ([200, 200], 200)


class PhotoInJson(ApiModel):
    """A photo as JSON has it."""

    photo: str


async def test_photos_inside_json_are_admitted_like_those_of_forms(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot is reserved before the body is read, which may be as long as photos are, and refused if there is none."""
    monkeypatch.setattr("vultus.models.workers.admission_queue.RESERVATION_TTL_S", 60.0)
    api = await serve(inference={"workers": 1, "max_queue": 1}, server={"max_json_bytes": 1_024})
    router, reservations = APIRouter(route_class=GuardedRoute), list[Any]()

    @router.post("/json", openapi_extra=require_permission(Permission.RECOGNIZE, photos=True))
    async def read_json(body: PhotoInJson, request: Request) -> int:
        reservations.append(request.state.reservation)
        return len(body.photo)

    app = api.client._transport.app
    app.include_router(router)
    read = [0]

    async def send() -> AsyncIterator[bytes]:
        read[0] += 1
        yield b'{"photo": "' + b"A" * 5_000 + b'"}'

    headers = {"Content-Type": "application/json"}
    admitted = await api.client.post("/json", content=send(), headers=headers)
    (key,) = await api.services.access.list_keys(CALLER, after=None, limit=1)
    reserve_slot, client = api.services.photo_analyzer.reserve_slot, f"key:{key.id}"  # of others it would get one
    with reserve_slot(client), reserve_slot(client):
        refused = await api.client.post("/json", content=send(), headers=headers)

    assert (admitted.status_code, admitted.json(), len(reservations)) == (200, 5_000, 1)
    assert (refused.status_code, refused.json()["code"], read) == (503, "overloaded", [1])
    assert api.pool._queue._reservations == set()


async def test_a_defect_is_answered_without_its_secrets(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(type(api.services.collections), "list_collections", broken)

    answer = await api.client.get("/v1/collections")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "swordfish" not in answer.text


async def test_the_documentation_requests_nothing_from_another_host(api: Api) -> None:
    page = await api.client.get("/docs", headers={"Authorization": ""})

    assert page.status_code == 200
    assert "https://" not in page.text
    assert (await api.client.get("/docs-assets/swagger-ui-bundle.js")).status_code == 200
