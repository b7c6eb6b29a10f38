"""Events over HTTP: pages, and a stream that a reader takes up again where it was cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sse_starlette.sse import AppStatus
from tests.api.conftest import Api
from tests.callers import CALLER
from tests.faces import portrait
from tests.server.sockets import Running, running, wait_until

from vultus.api.app import create_app
from vultus.domain import Band, Permission
from vultus.domain.sightings import Recognised, SourceLost
from vultus.services.events import listing
from vultus.utils.request_scope import RequestLimits

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_server_has_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process whose server was stopped once all streams end; a server in another test may have been."""
    monkeypatch.setattr(AppStatus, "should_exit", False)


@asynccontextmanager
async def serving(api: Api) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    """Serve the API on a socket, with the job that follows the outbox."""
    app = create_app(api.services, limits=RequestLimits(max_requests=1, max_bodies_bytes=2**20))
    headers = {"Authorization": api.client.headers["Authorization"]}
    jobs = api.services.jobs.run("event-follower", api.services.event_follower.follow, interval_s=None)
    async with jobs, running(app) as server, httpx.AsyncClient(headers=headers) as client:
        client.base_url = httpx.URL(f"http://127.0.0.1:{server.port}")
        yield server, client


async def read_events(lines: AsyncIterator[str], count: int) -> list[dict[str, str]]:
    """Read events of a stream, with their fields by name."""
    events: list[dict[str, str]] = [{}]
    async with asyncio.timeout(10):
        async for line in lines:
            name, _, value = line.partition(": ")
            if line and name:
                events[-1][name] = value
            elif not line and "data" in events[-1]:
                if len(events) == count:
                    break
                events.append({})
    return events


async def test_events_are_listed_with_what_they_are_about(api: Api) -> None:
    done = await api.register(portrait(), name="Ada Lovelace", external_id="E-17")
    collection = await api.services.collections.ensure_default_collection()
    person, source, track = done["person"]["id"], uuid4(), uuid4()
    ids = {"collection_id": collection.id, "person_id": person, "origin_id": source, "track_id": track}
    seen = Recognised(origin_kind="source", band=Band.CLEAR, at=NOW, **ids)
    await api.services.sightings.record(CALLER, seen)

    answer = await api.client.get("/v1/events", params={"collection": "default", "type": "recognised"})
    (event,) = answer.json()["items"]

    assert event["data"] == {
        "collection_id": str(collection.id),
        "person_id": person,
        "origin": "source",
        "origin_id": str(source),
        "track_id": str(track),
        "band": "clear",
        "at": "2026-11-24T09:30:00.000Z",
    }
    assert answer.json()["next_cursor"] is None
    everything = await api.client.get("/v1/events", params={"limit": 2})
    rest = await api.client.get("/v1/events", params={"cursor": everything.json()["next_cursor"]})
    types = [one["type"] for one in everything.json()["items"] + rest.json()["items"]]
    assert types == ["collection.created", "key.created", "person.registered", "recognised"]
    assert "Lovelace" not in everything.text + rest.text
    later = await api.client.get("/v1/events", params={"cursor": rest.json()["last_cursor"]})
    assert later.json()["items"] == []


async def test_the_newest_come_first_and_a_stream_goes_on_where_they_begin(api: Api) -> None:
    everything = (await api.client.get("/v1/events", params={"limit": 500})).json()["items"]
    query: dict[str, Any] = {"newest_first": True, "limit": 2, "type": "collection.created,key.created"}
    first = (await api.client.get("/v1/events", params=query)).json()
    await api.register(portrait(), name="Ada")
    await api.client.post("/v1/collections", json={"name": "later"})
    pages, cursor = [first], first["next_cursor"]
    while cursor:
        pages.append((await api.client.get("/v1/events", params=query | {"cursor": cursor})).json())
        cursor = pages[-1]["next_cursor"]
    since = {"cursor": first["last_cursor"], "type": "person.registered,collection.created"}
    later = (await api.client.get("/v1/events", params=since)).json()["items"]

    assert [one for page in pages for one in page["items"]] == everything[::-1]
    assert [one["type"] for one in later] == ["person.registered", "collection.created"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"cursor": "x"}, 422, "invalid_request"),
        ({"cursor": str(2**63)}, 422, "invalid_request"),
        ({"cursor": "900000000"}, 410, "events_expired"),
        ({"type": "recognized"}, 422, "invalid_request"),
        ({"collection": "none"}, 404, "not_found"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/events", "/v1/events/stream"])
async def test_what_cannot_be_listed_is_refused(
    api: Api, path: str, query: dict[str, str], status: int, code: str
) -> None:
    answer = await api.client.get(path, params=query)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_stream_goes_on_without_a_gap_and_ends_with_its_key(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "KEY_CHECK_S", 0.05)
    collection = await api.services.collections.ensure_default_collection()
    key, secret = await api.services.access.create_key(CALLER, "reader", {Permission.READ})
    headers = {"Authorization": f"Bearer {secret}"}

    async def lose(count: int) -> None:
        for _ in range(count):
            await api.services.sightings.record(
                CALLER, SourceLost(collection_id=collection.id, origin_id=uuid4(), at=NOW)
            )

    async with serving(api) as (_, client):
        async with client.stream("GET", "/v1/events/stream", headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.aiter_lines()
            assert await anext(lines) == ": events follow"
            await lose(2)
            first = await read_events(lines, 2)
        await lose(2)
        last = headers | {"Last-Event-ID": first[0]["id"]}
        async with client.stream("GET", "/v1/events/stream", headers=last) as answer:
            lines = answer.aiter_lines()
            again = await read_events(lines, 3)
            health = await client.get("/v1/version")  # a stream is no request in flight
            await api.services.access.revoke_key(CALLER, key.id)
            async with asyncio.timeout(5):
                rest = [line async for line in lines if line]

    assert again[0]["data"] == first[1]["data"]
    assert [json.loads(event["data"])["type"] for event in again] == [event["event"] for event in again]
    assert len({event["id"] for event in first + again}) == 4
    assert (health.status_code, rest) == (200, [])


async def test_lines_of_a_stream_end_as_those_of_a_file(serve: Callable[..., Any]) -> None:
    api: Api = await serve()

    text = ""
    async with (
        serving(api) as (_, client),
        asyncio.timeout(5),
        client.stream("GET", "/v1/events/stream", params={"cursor": "0"}) as answer,
    ):
        async for part in answer.aiter_text():
            text += part
            if text.count("\ndata: ") >= 2:
                break

    assert "\r" not in text


async def test_a_stream_ends_when_its_reader_has_left_also_before_it_begins(serve: Callable[..., Any]) -> None:
    api: Api = await serve()
    head = f"GET /v1/events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: {api.client.headers['Authorization']}\r\n\r\n"

    async with serving(api) as (server, _):
        for waits in (True, False):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head.encode())
            if waits:
                await reader.readuntil(b": events follow")
            writer.write_eof()
            async with asyncio.timeout(5):
                await reader.read()
            writer.close()
        await wait_until(lambda: not api.services.events._streams)


async def test_streams_beyond_the_limits_are_refused_and_those_that_ended_do_not_count(
    serve: Callable[..., Any],
) -> None:
    api: Api = await serve(events={"max_streams": 3, "max_streams_per_key": 2})
    _, secret = await api.services.access.create_key(CALLER, "other", {Permission.READ})
    other, path = {"Authorization": f"Bearer {secret}"}, "/v1/events/stream"

    async with serving(api) as (_, client), AsyncExitStack() as stack, asyncio.timeout(20):
        for _ in range(5):
            head = await client.head(path)
            assert (head.status_code, head.content) == (200, b"")
        for _ in range(5):
            async with client.stream("GET", path) as answer:
                assert answer.status_code == 200
            await wait_until(lambda: not api.services.events._streams)
        opened = [await stack.enter_async_context(client.stream("GET", path)) for _ in range(2)]
        of_key = await client.get(path)
        opened.append(await stack.enter_async_context(client.stream("GET", path, headers=other)))
        of_server = await client.get(path, headers=other)

    assert [one.status_code for one in opened] == [200] * 3
    assert (of_key.status_code, of_key.json()["code"], of_key.headers["retry-after"]) == (429, "stream_limit", "15")
    assert (of_server.status_code, of_server.json()["code"]) == (503, "overloaded")
    assert of_server.headers["retry-after"] == "15"
