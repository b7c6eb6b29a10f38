"""Webhooks over HTTP: what a caller sees of them, from the secret to the dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from tests.api.conftest import Api
from tests.callers import CALLER
from tests.receivers import Receiver, receiving
from tests.server.sockets import wait_until

from vultus.domain import Role
from vultus.domain.sightings import SourceLost
from vultus.services.events import dispatcher

WEBHOOKS = "/v1/webhooks"


@pytest.fixture
async def api(serve: Callable[..., Any]) -> AsyncIterator[Api]:
    """The API with the jobs that deliver, to this machine too."""
    started: Api = await serve(webhooks={"allowed_networks": ("127.0.0.1",), "first_retry_s": 0.05})
    services = started.services
    async with AsyncExitStack() as stack:
        stack.push_async_callback(services.webhook_dispatcher.close)
        for name, run in (("follow", services.event_follower.follow), ("send", services.webhook_dispatcher.dispatch)):
            await stack.enter_async_context(services.jobs.run(name, run, interval_s=None))
        yield started


async def create(api: Api, receiver: Receiver, **settings: Any) -> str:
    answer = await api.client.post(WEBHOOKS, json={"name": "door", "url": receiver.url, **settings})
    assert answer.status_code == 201, answer.text
    receiver.secret = answer.json()["secret"]
    assert answer.headers["location"] == f"{WEBHOOKS}/{answer.json()['id']}"
    return str(answer.json()["id"])


async def lose_source(api: Api) -> None:
    collection = await api.services.collections.ensure_default_collection()
    at = datetime(2026, 11, 24, tzinfo=UTC)
    await api.services.sightings.record(CALLER, SourceLost(collection_id=collection.id, origin_id=uuid4(), at=at))


async def test_a_webhook_from_its_secret_to_its_end(api: Api) -> None:
    with receiving() as receiver:
        webhook = await create(api, receiver, types=["source_lost"], collections=["default"])
        tested = await api.client.post(f"{WEBHOOKS}/{webhook}/test")
        assert tested.json() == {"accepted": True, "status": 204, "error": None}
        for secret in (receiver.secret, None):
            if secret is None:
                rotated = await api.client.post(f"{WEBHOOKS}/{webhook}/rotate", json={"overlap_s": 0})
                receiver.secret = rotated.json()["secret"]
            await lose_source(api)
            count = 2 if secret else 3
            await wait_until(lambda: len(receiver.accepted) >= count, 10)  # noqa: B023
        listed = (await api.client.get(f"{WEBHOOKS}/{webhook}/deliveries")).json()["items"]
        read = (await api.client.get(f"{WEBHOOKS}/{webhook}")).json()
        page = (await api.client.get(WEBHOOKS)).json()
        assert (await api.client.delete(f"{WEBHOOKS}/{webhook}")).status_code == 204
        gone = await api.client.get(f"{WEBHOOKS}/{webhook}")

    assert all(message.is_signed for message in receiver.messages)
    assert [one["type"] for one in listed] == ["source_lost", "source_lost"]
    assert page["items"] == [read]
    assert (read["types"], read["failing_since"], "secret" in read) == (["source_lost"], None, False)
    assert gone.status_code == 404
    actions = [entry["action"] for entry in (await api.client.get("/v1/audit?limit=500")).json()["items"]]
    assert [one for one in actions if one.startswith("webhook.")] == [
        "webhook.created",
        "webhook.rotated",
        "webhook.deleted",
    ]


async def test_dead_letters_are_listed_and_replayed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "MAX_ATTEMPTS", 1)
    status = 503
    with receiving(Receiver(answer=lambda _: status)) as receiver:
        webhook = await create(api, receiver, types=["source_lost"])
        for _ in range(3):
            await lose_source(api)
        await wait_until(lambda: len(receiver.messages) == 3, 10)
        await wait_until(lambda: not api.services.webhook_dispatcher._attempts, 10)
        dead = await list_dead(api, webhook)
        first = (await api.client.get(f"{WEBHOOKS}/{webhook}/deliveries?state=dead&limit=2")).json()
        second = (
            await api.client.get(f"{WEBHOOKS}/{webhook}/deliveries?state=dead&cursor={first['next_cursor']}")
        ).json()
        assert first["items"] + second["items"] == dead
        latest = await api.client.get(f"{WEBHOOKS}/{webhook}/deliveries?newest_first=true&limit=2")
        before = f"newest_first=true&cursor={latest.json()['next_cursor']}"
        rest = await api.client.get(f"{WEBHOOKS}/{webhook}/deliveries?{before}")
        assert latest.json()["items"] + rest.json()["items"] == dead[::-1]
        assert {(one["last_status"], one["last_error"], one["due_at"]) for one in dead} == {(503, "HTTP 503", None)}
        status = 200
        replayed = await api.client.post(f"{WEBHOOKS}/{webhook}/replay", json={})
        await wait_until(lambda: len(receiver.accepted) == 3, 10)

    assert replayed.json() == {"replayed": 3}


async def list_dead(api: Api, webhook: str) -> list[dict[str, Any]]:
    return list((await api.client.get(f"{WEBHOOKS}/{webhook}/deliveries?state=dead")).json()["items"])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"url": "https://10.0.0.1/"}, 422, "invalid_input"),
        ({"url": "http://93.184.216.34/"}, 422, "invalid_input"),
        ({"types": ["recognized"]}, 422, "invalid_request"),
        ({"types": []}, 422, "invalid_request"),
        ({"collections": ["none"]}, 404, "not_found"),
    ],
)
async def test_what_no_webhook_can_be_is_refused(api: Api, body: dict[str, Any], status: int, code: str) -> None:
    answer = await api.client.post(WEBHOOKS, json={"name": "door", "url": "https://example.org/", **body})

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await api.client.get(WEBHOOKS)).json()["items"] == []


async def test_changes_are_merged_and_a_webhook_can_be_stopped(api: Api) -> None:
    with receiving() as receiver:
        webhook = await create(api, receiver, types=["source_lost"])
        path = f"{WEBHOOKS}/{webhook}"
        changed = await api.client.patch(path, json={"name": "gate", "types": None, "enabled": False})
        await lose_source(api)
        await asyncio.sleep(0.5)
        assert receiver.messages == []
        again = await api.client.patch(path, json={"enabled": True})
        await wait_until(lambda: receiver.accepted, 10)
        refused = await api.client.patch(path, json={"name": None})

    assert (changed.json()["name"], changed.json()["types"]) == ("gate", None)
    assert "request" in changed.json()["disabled_reason"]
    assert (again.json()["disabled_at"], refused.status_code) == (None, 422)


async def test_who_may_not_configure_sees_no_webhook(api: Api) -> None:
    headers = await api.key(Role.MANAGE)

    assert (await api.client.get(WEBHOOKS, headers=headers)).status_code == 403
    assert (await api.client.post(WEBHOOKS, headers=headers, json={})).status_code == 403
