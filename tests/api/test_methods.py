"""Methods, keys and counts: what every path answers, how a key is sent, and what full servers still answer."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from tests.faces import portrait

from vultus.domain import Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.api.conftest import Api

NOBODY = {"Authorization": ""}
ENDLESS = "/v1/events/stream"


def list_methods(api: Api) -> dict[str, set[str]]:
    """Return the methods of every path, a parameter replaced by a word."""
    methods: dict[str, set[str]] = {}
    for route in iter_route_contexts(api.client._transport.app.routes):  # type: ignore[attr-defined]
        if route.path and route.methods:
            methods.setdefault(re.sub(r"{\w+}", "word", route.path), set()).update(route.methods)
    return methods


async def test_head_is_answered_like_get_without_a_body_on_every_path(api: Api) -> None:
    paths = [path for path, methods in list_methods(api).items() if "GET" in methods and path != ENDLESS]
    assert len(paths) > 15

    for path in paths:
        head, get = await api.client.head(path), await api.client.get(path)

        assert (head.status_code, head.content) == (get.status_code, b""), path
        assert head.headers["content-length"] == get.headers["content-length"] or path == "/metrics"


async def test_every_path_says_what_it_takes(api: Api) -> None:
    for path, methods in list_methods(api).items():
        allowed = ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))
        options = await api.client.options(path, headers=NOBODY)
        refused = await api.client.put(path, headers=NOBODY)

        assert (options.status_code, options.headers["allow"]) == (204, allowed), path
        assert (refused.status_code, refused.headers["allow"]) == (405, allowed), path
        assert refused.json()["code"] == "method_not_allowed"


async def test_a_path_that_is_none_is_404_for_every_method(api: Api) -> None:
    assert {(await api.client.request(method, "/v1/none")).status_code for method in ("GET", "OPTIONS", "PUT")} == {404}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("X-API-Key", "KEY")], 200),
        ([("X-API-Key", "  KEY \t")], 200),
        ([("Authorization", "Bearer  KEY ")], 200),
        ([("Authorization", "bearer\tKEY")], 200),
        ([("Authorization", "")], 401),
        ([("Authorization", "Bearer KEY"), ("X-API-Key", "KEY")], 200),
        ([("Authorization", "Basic YTpi"), ("X-API-Key", "KEY")], 200),
        ([("Authorization", "Bearer KEY"), ("X-API-Key", "OTHER")], 400),
        ([("Authorization", "Bearer OTHER"), ("X-API-Key", "KEY")], 400),
        ([("X-API-Key", "KEY"), ("X-API-Key", "OTHER")], 400),
        ([("Authorization", "Bearer KEY"), ("Authorization", "Bearer OTHER")], 400),
        ([("Authorization", "Bearer"), ("X-API-Key", "KEY")], 400),
        ([("Authorization", "Basic YTpi")], 401),
    ],
)
async def test_one_key_is_sent_once_and_blanks_do_not_matter(
    api: Api, headers: list[tuple[str, str]], status: int
) -> None:
    key = (await api.key(Role.RECOGNIZE))["Authorization"].removeprefix("Bearer ")
    other = (await api.key(Role.RECOGNIZE))["Authorization"].removeprefix("Bearer ")
    sent = [(name, value.replace("KEY", key).replace("OTHER", other)) for name, value in headers]

    async with httpx.AsyncClient(transport=api.client._transport, base_url="http://vultus.test") as client:
        assert (await client.get("/v1/version", headers=sent)).status_code == status


async def test_health_is_answered_when_nothing_else_is(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    api: Api = await serve(server={"max_requests": 1})
    begun, go_on = asyncio.Event(), asyncio.Event()
    original = api.services.collections.list_collections

    async def wait(*arguments: Any, **options: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await original(*arguments, **options)

    monkeypatch.setattr(api.services.collections, "list_collections", wait)
    held = asyncio.create_task(api.client.get("/v1/collections"))
    await begun.wait()
    refused = await api.client.get("/v1/version")
    healthy = [await api.client.get(f"/v1/health/{kind}", headers=NOBODY) for kind in ("live", "ready")]
    go_on.set()

    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert refused.headers["retry-after"]
    assert [answer.status_code for answer in healthy] == [200, 200]
    assert (await held).status_code == 200


async def test_a_request_that_waits_for_its_body_takes_no_place(serve: Callable[..., Any]) -> None:
    api: Api = await serve(server={"max_requests": 1})
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def send_slowly() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
        begun.set()
        await go_on.wait()
        yield portrait() + b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    slow = [
        asyncio.create_task(api.client.post("/v1/detect", content=send_slowly(), headers=headers)) for _ in range(3)
    ]
    await begun.wait()
    meanwhile = await api.client.get("/v1/version")
    go_on.set()
    await asyncio.gather(*slow)

    assert meanwhile.status_code == 200


async def test_no_caller_can_make_the_metrics_grow(api: Api) -> None:
    for path in ("/v1/collections", "/v1/nothing", "/v1/collections/a/persons"):
        await api.client.get(path)  # what follows is measured against these
    for method in ("PUT", "OPTIONS"):
        for path in ("/v1/collections", "/v1/collections/a/persons"):
            await api.client.request(method, path, headers=NOBODY)

    async def read_lines() -> set[str]:
        text = (await api.client.get("/metrics")).text
        return {line.rpartition(" ")[0] for line in text.splitlines() if line.startswith("vultus_request")}

    before = await read_lines()
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW", "PROPFIND", "HEAD"):
        for path in ("/v1/collections", "/v1/nothing", "/v1/other", "/v1/collections/b/persons", "/docs-assets/x"):
            await api.client.request(method, path, headers=NOBODY)
    grown = await read_lines() - before

    assert {line for line in grown if "seconds" in line and 'route="-"' not in line} == set()
    assert len(grown) <= 8
    assert not re.search(r"BREW|PROPFIND|TRACE", "".join(grown))
