"""Requests in flight are bounded, and counted down however they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from vultus.api.middleware import RequestContextMiddleware
from vultus.utils.request_scope import RequestLimits

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

LIMIT = 2

LIMITS = RequestLimits(max_requests=LIMIT, max_bodies_bytes=2**20)


class Application:
    """Answers 200, fails on `/broken`, and waits on `/slow` until released."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.begun = 0
        self.is_full = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        if self.begun == LIMIT:
            self.is_full.set()
        if scope["path"] == "/broken":
            raise RuntimeError("a defect")
        if scope["path"] == "/slow":
            await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def client(application: Application) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(RequestContextMiddleware(application, limits=LIMITS))
    return httpx.AsyncClient(transport=transport, base_url="http://vultus.test")


async def fetch_status(client: httpx.AsyncClient, path: str) -> int:
    return (await client.get(path)).status_code


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/broken", 500)])
async def test_requests_one_after_another_are_never_too_many(client: httpx.AsyncClient, path: str, status: int) -> None:
    assert [await fetch_status(client, path) for _ in range(3 * LIMIT)] == [status] * 3 * LIMIT


async def test_as_many_as_allowed_are_served_at_once_and_one_more_is_not_begun(
    client: httpx.AsyncClient, application: Application
) -> None:
    held = [asyncio.create_task(fetch_status(client, "/slow")) for _ in range(LIMIT)]
    await application.is_full.wait()

    refused = await client.get("/")
    refused_again = await fetch_status(client, "/")
    application.release.set()

    assert (refused.status_code, refused.json()["code"], refused_again) == (503, "overloaded", 503)
    assert await asyncio.gather(*held) == [200] * LIMIT
    assert application.begun == LIMIT
    assert await fetch_status(client, "/") == 200


async def test_a_client_that_hangs_up_makes_room(client: httpx.AsyncClient, application: Application) -> None:
    held = [asyncio.create_task(fetch_status(client, "/slow")) for _ in range(LIMIT)]
    await application.is_full.wait()

    for task in held:
        task.cancel()
    await asyncio.wait(held)

    assert await fetch_status(client, "/") == 200
