"""Live sessions over a real socket, with real networks: from the ticket to the name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from sqlalchemy import text
from tests.api.conftest import Api
from tests.callers import CALLER
from tests.faces import STRANGER, astronaut, drawn, encoded, portrait
from tests.live_sessions import LiveServer, pack_frame, receive, serving_live, wait_for_close

from vultus.domain import Permission, Role
from vultus.live.asyncapi import CLIENT_MESSAGES, build_asyncapi_schema
from vultus.live.close_codes import CloseCode
from vultus.utils import metrics

CLIENT = Path(__file__).parents[2] / "docs" / "examples" / "live_client.py"
PORTRAIT = encoded(astronaut()[:480])


@pytest.fixture
async def live(api: Api) -> AsyncIterator[LiveServer]:
    async with serving_live(api) as server:
        yield server


async def watch_until_named(socket: Any, first: int = 1) -> Any:
    """Send frames, one after the other, and return the first answer with a name."""
    for sequence in range(first, first + 40):
        await socket.send(pack_frame(sequence, PORTRAIT))
        answer = await receive(socket)
        assert answer["type"] == "result", answer
        if any(track["person"] for track in answer["tracks"]):
            return answer
        await asyncio.sleep(1 / 30)  # as many as the ticket allows
    raise AssertionError("nobody was named")


async def test_a_session_names_who_is_before_the_camera(live: LiveServer) -> None:
    person = await live.api.register(portrait(), portrait(mirror=True), name="Ada")

    async with live.open_session() as (socket, welcome):
        assert socket.subprotocol == "vultus.live.v1"
        assert welcome["type"] == "welcome"
        assert not welcome["resumed"]
        answer = await watch_until_named(socket)

    (track,) = answer["tracks"]
    assert track["verdict"] == "match"
    assert track["person"]["id"] == person["person"]["id"]
    assert track["person"]["name"] == "Ada"
    assert track["decision"]["margin"] is None or isinstance(track["decision"]["margin"], float)
    assert track["identity_age_ms"] >= 0
    assert 150 < track["box"]["left"] < track["box"]["right"] < 350
    assert (answer["width"], answer["height"]) == (512, 480)
    assert {"detect", "total"} <= answer["timings_ms"].keys()


async def test_a_program_says_hello_instead_and_goes_with_a_bye(live: LiveServer) -> None:
    ticket = await live.make_ticket()
    async with live.connect() as socket:
        await socket.send(json.dumps({"type": "hello", "ticket": ticket}))
        assert (await receive(socket))["type"] == "welcome"
        await socket.send('{"type": "bye"}')
        assert await wait_for_close(socket) == CloseCode.DONE

    assert not live.sessions._sessions


async def test_a_ticket_opens_one_session_once(live: LiveServer) -> None:
    ticket = await live.make_ticket()
    async with live.connect(f"ticket.{ticket}") as socket:
        assert (await receive(socket))["type"] == "welcome"

    for again in (ticket, ticket[:-1] + "A", "x" * 43, "short"):
        async with live.connect(f"ticket.{again}") as socket:
            assert await wait_for_close(socket) == CloseCode.UNAUTHENTICATED


async def test_of_many_that_come_with_one_ticket_one_is_admitted(live: LiveServer) -> None:
    ticket = await live.make_ticket()

    async def come() -> str:
        async with live.connect(f"ticket.{ticket}") as socket:
            try:
                return str((await receive(socket))["type"])
            except websockets.ConnectionClosed:
                return str(socket.close_code)

    outcomes = await asyncio.gather(*(come() for _ in range(8)))

    assert sorted(outcomes) == ["4401"] * 7 + ["welcome"]


async def test_an_expired_ticket_opens_nothing(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vultus.services.live.tickets.TICKET_S", -1.0)

    async with live.connect(f"ticket.{await live.make_ticket()}") as socket:
        assert await wait_for_close(socket) == CloseCode.UNAUTHENTICATED


async def test_a_ticket_needs_the_permission_and_gives_no_more_than_the_key_has(live: LiveServer) -> None:
    _, secret = await live.api.services.access.create_key(CALLER, "camera", {Permission.LIVE})
    camera = {"Authorization": f"Bearer {secret}"}
    door = await live.api.key(Role.RECOGNIZE)

    assert (await live.make_ticket(403, door))["code"] == "forbidden"
    assert (await live.make_ticket(403, camera, scores=True))["needed"] == "scores"
    assert (await live.make_ticket(404, collection="nowhere"))["code"] == "not_found"
    assert (await live.make_ticket(422, frames_per_second=1000.0))["code"] == "invalid_input"
    assert (await live.make_ticket(422, session_s=1e9))["code"] == "invalid_input"
    answer = await live.api.client.post("/v1/live/tickets", json={"frames_per_second": 5}, headers=camera)
    assert answer.json()["permissions"] == ["live"]
    assert answer.json()["frames_per_second"] == 5


async def test_scores_are_shown_to_whom_the_ticket_allows(live: LiveServer) -> None:
    await live.api.register(portrait(), name="Ada")
    await live.api.register(encoded(drawn(STRANGER)), name="Bob")

    margins = []
    for scores in (True, False):
        async with live.open_session(scores=scores) as (socket, _):
            (track,) = (await watch_until_named(socket))["tracks"]
            margins.append(track["decision"]["margin"])

    assert isinstance(margins[0], float)
    assert margins[1] is None


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [
        (None, True),
        ("own", True),
        ("https://console.example.org", True),
        ("https://console.example.org.evil.test", False),
        ("http://evil.test", False),
        ("null", False),
    ],
)
async def test_pages_of_foreign_origins_are_refused_before_the_handshake(
    serve: Callable[..., Any], origin: str | None, accepted: bool
) -> None:
    api = await serve(server={"cors_origins": "https://console.example.org"})
    async with serving_live(api) as live:
        own = f"http://127.0.0.1:{live.port}"
        headers = {} if origin is None else {"Origin": own if origin == "own" else origin}
        if accepted:
            async with live.connect(additional_headers=headers):
                return
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with live.connect(additional_headers=headers):
                pass
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body)["code"] == "forbidden"


async def test_a_ticket_in_the_address_is_refused_and_not_used_up(live: LiveServer) -> None:
    ticket = await live.make_ticket()
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with live.connect(path=f"/v1/live?ticket={ticket}"):
            pass
    assert refused.value.response.status_code == 400
    assert "sub-protocol" in json.loads(refused.value.response.body)["detail"]
    assert ticket.encode() not in refused.value.response.body

    async with live.connect(f"ticket.{ticket}") as socket:
        assert (await receive(socket))["type"] == "welcome"


async def test_a_websocket_elsewhere_is_not_found(live: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with live.connect(path="/v1/persons"):
            pass

    assert refused.value.response.status_code == 404
    assert json.loads(refused.value.response.body)["code"] == "not_found"
    await asyncio.sleep(0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_session_goes_on_in_another_connection_with_its_tracks(live: LiveServer) -> None:
    await live.api.register(portrait(), name="Ada")
    async with live.open_session() as (socket, welcome):
        (before,) = (await watch_until_named(socket))["tracks"]
        await socket.close(1001)

    async with live.connect(f"resume.{welcome['resume_token']}") as socket:
        again = await receive(socket)
        assert again["resumed"]
        assert again["session_id"] == welcome["session_id"]
        assert again["resume_token"] != welcome["resume_token"]
        await socket.send(pack_frame(1, PORTRAIT))
        (after,) = (await receive(socket))["tracks"]
        assert after["track_id"] == before["track_id"]
        assert after["person"] == before["person"]

        async with live.connect(f"resume.{again['resume_token']}") as other:  # while it is open
            assert (await receive(other))["resumed"]
            assert await wait_for_close(socket) == CloseCode.RESUMED_ELSEWHERE

    for used in (welcome["resume_token"], again["resume_token"]):
        async with live.connect(f"resume.{used}") as socket:
            assert await wait_for_close(socket) == CloseCode.RESUME_REFUSED


async def test_a_session_that_nobody_resumes_ends(serve: Callable[..., Any]) -> None:
    async with serving_live(await serve(live={"resume_s": 0.5})) as live:
        async with live.open_session() as (socket, welcome):
            await socket.close(1001)
        assert len(live.sessions._sessions) == 1
        await asyncio.sleep(1.2)

        assert not live.sessions._sessions
        async with live.connect(f"resume.{welcome['resume_token']}") as socket:
            assert await wait_for_close(socket) == CloseCode.RESUME_REFUSED


async def test_a_revoked_key_ends_its_sessions_at_once(live: LiveServer) -> None:
    key, secret = await live.api.services.access.create_key(CALLER, "camera", {Permission.LIVE})
    camera = {"Authorization": f"Bearer {secret}"}
    async with live.open_session() as (other, _), live.open_session(headers=camera) as (socket, welcome):
        await live.api.services.access.revoke_key(CALLER, key.id)
        async with asyncio.timeout(2):
            assert await wait_for_close(socket) == CloseCode.KEY_ENDED
        await other.send(pack_frame(1, PORTRAIT))
        assert (await receive(other))["type"] == "result"

    async with live.connect(f"resume.{welcome['resume_token']}") as socket:
        assert await wait_for_close(socket) == CloseCode.RESUME_REFUSED


async def test_a_session_ends_with_the_secret_that_made_its_ticket(live: LiveServer) -> None:
    access = live.api.services.access
    key, secret = await access.create_key(CALLER, "camera", {Permission.LIVE})
    before = {"Authorization": f"Bearer {secret}"}
    async with live.open_session(headers=before) as (old, _):
        unused = await live.make_ticket(headers=before)
        _, secret = await access.rotate_key(CALLER, key.id, overlap_s=60)
        async with live.open_session(headers={"Authorization": f"Bearer {secret}"}) as (new, _):
            await asyncio.sleep(0.5)
            await old.send(pack_frame(1, PORTRAIT))
            assert (await receive(old))["type"] == "result", "both secrets are accepted"

            async with live.api.services.database.transaction() as work:
                await work._session.execute(
                    text("UPDATE api_keys SET previous_until = now() WHERE previous_until IS NOT NULL")
                )
            assert await wait_for_close(old) == CloseCode.KEY_ENDED
            async with live.connect(f"ticket.{unused}") as socket:
                assert await wait_for_close(socket) == CloseCode.UNAUTHENTICATED
            await new.send(pack_frame(1, PORTRAIT))
            assert (await receive(new))["type"] == "result"


async def test_sessions_are_bounded_in_all_and_by_key(serve: Callable[..., Any]) -> None:
    async with serving_live(await serve(live={"max_sessions": 2, "max_sessions_per_key": 1})) as live:
        _, secret = await live.api.services.access.create_key(CALLER, "camera", {Permission.LIVE})
        camera = {"Authorization": f"Bearer {secret}"}
        async with live.open_session():
            async with live.connect(f"ticket.{await live.make_ticket()}") as socket:
                assert await wait_for_close(socket) == CloseCode.KEY_FULL
            async with live.open_session(headers=camera):
                ticket = await live.make_ticket()
                async with live.connect(f"ticket.{ticket}") as socket:
                    assert await wait_for_close(socket) == CloseCode.SERVER_FULL


async def test_a_frame_that_is_no_picture_is_refused_and_the_session_goes_on(live: LiveServer) -> None:
    async with live.open_session() as (socket, _):
        await socket.send(pack_frame(1, PORTRAIT[:4000]))
        refused = await receive(socket)
        await socket.send(pack_frame(2, PORTRAIT))
        answer = await receive(socket)

    assert (refused["type"], refused["sequence"], refused["code"]) == ("refused", 1, "image_truncated")
    assert answer["type"] == "result"


async def test_every_frame_is_counted_with_what_became_of_it(live: LiveServer) -> None:
    kinds = ("processed", "dropped", "refused")
    counted = {kind: metrics.get_labelled(metrics.LIVE_FRAMES, kind) for kind in kinds}
    before = {kind: counter._value.get() for kind, counter in counted.items()}
    async with live.open_session(frames_per_second=0.1) as (socket, _):
        for sequence in range(1, 8):
            await socket.send(pack_frame(sequence, PORTRAIT if sequence > 1 else b"no picture"))
            await receive(socket)

    found = {kind: counter._value.get() - before[kind] for kind, counter in counted.items()}
    assert found == {"refused": 1, "processed": 2, "dropped": 4}


async def test_a_frame_of_more_pixels_than_allowed_is_refused_unread(serve: Callable[..., Any]) -> None:
    """A photo may have as many, but a session that sends such frames would leave nothing to the others."""
    async with serving_live(await serve(live={"max_frame_pixels": 512 * 480 - 1})) as live:
        await live.api.recognize(PORTRAIT)
        async with live.open_session() as (socket, _):
            await socket.send(pack_frame(1, PORTRAIT))
            refused = await receive(socket)
            await socket.send(pack_frame(2, portrait(scale=0.9)))
            answer = await receive(socket)

    assert (refused["type"], refused["code"]) == ("refused", "image_too_large")
    assert answer["type"] == "result"


async def test_a_frame_under_way_when_the_connection_breaks_lets_the_next_one_wait(
    live: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with live.open_session() as (socket, welcome):
        await socket.send(pack_frame(1, PORTRAIT))
        await socket.close(1001)
    async with live.connect(f"resume.{welcome['resume_token']}") as socket:
        await receive(socket)
        await socket.send(pack_frame(1, PORTRAIT))  # waits for the frame that is under way
        assert (await receive(socket))["type"] == "result"

    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


async def test_a_collection_that_is_deleted_ends_its_sessions(live: LiveServer) -> None:
    await live.api.client.post("/v1/collections", json={"name": "hall"})
    async with live.open_session(collection="hall") as (socket, _):
        assert (await live.api.client.delete("/v1/collections/hall")).status_code < 300
        with contextlib.suppress(websockets.ConnectionClosed):
            for sequence in range(1, 40):
                await socket.send(pack_frame(sequence, PORTRAIT))
                await asyncio.sleep(0.1)
        assert await wait_for_close(socket) == CloseCode.NOT_FOUND
    async with asyncio.timeout(2):  # it does not wait to be resumed
        while live.sessions._sessions:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.01)


async def test_the_server_says_that_it_stops(live: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "vultus.live.connection")
    async with live.open_session() as (socket, _):
        await socket.send(pack_frame(1, PORTRAIT))
        live.server.handle_exit(signal.SIGTERM, None)

        assert await wait_for_close(socket) == CloseCode.SERVER_STOPS
        assert socket.close_reason == CloseCode.SERVER_STOPS.meaning

    (closed,) = [record for record in caplog.records if record.getMessage() == "live connection closed"]
    assert closed.__dict__["code"] == "server_stops"


async def test_a_request_that_is_no_handshake_is_told_what_is_missing(live: LiveServer) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}") as client:
        answer = await client.get("/v1/live", headers={"Sec-WebSocket-Protocol": "vultus.live.v1"})
        other = await client.delete("/v1/live")

    assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.headers["upgrade"], answer.headers["connection"]) == ("websocket", "Upgrade")
    assert "WebSocket" in answer.json()["detail"]
    assert "proxy" in answer.json()["detail"]
    assert (other.status_code, other.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


CLIENT_EXAMPLES = [
    pytest.param(name, example["payload"], id=f"{name}-{at}")
    for name in CLIENT_MESSAGES
    for at, example in enumerate(build_asyncapi_schema()["components"]["messages"][name]["examples"])
]


@pytest.mark.parametrize(("name", "example"), CLIENT_EXAMPLES)
async def test_every_example_of_the_description_can_be_sent(live: LiveServer, name: str, example: Any) -> None:
    """With secrets that this server made; a resume token needs a session to go on with."""
    async with live.open_session() as (first, welcome):
        if name == "bye":
            await first.send(json.dumps(example))
            assert await wait_for_close(first) == CloseCode.DONE
            return
        real = {"ticket": await live.make_ticket(), "resume_token": welcome["resume_token"]}
        async with live.connect() as socket:
            await socket.send(json.dumps({key: real.get(key, value) for key, value in example.items()}))
            answer = await receive(socket)

    assert answer["type"] == "welcome"
    assert answer["resumed"] == ("resume_token" in example)


async def test_the_description_needs_no_key(live: LiveServer) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}") as client:
        described = await client.get("/asyncapi.json")

    assert described.json() == build_asyncapi_schema()


async def run_client(*arguments: str | Path, **environment: str) -> tuple[int | None, str, str]:
    """Return exit status, output and errors of the reference client."""
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        CLIENT,
        *arguments,
        env={"PATH": "", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, failed = await program.communicate()
    return program.returncode, said.decode(), failed.decode()


async def test_the_reference_client_prints_who_it_sees(live: LiveServer, tmp_path: Path) -> None:
    await live.api.register(portrait(), name="Ada")
    pictures = [tmp_path / f"{at}.jpg" for at in range(12)]
    for path in pictures:
        path.write_bytes(PORTRAIT)
    key = live.api.client.headers["Authorization"].removeprefix("Bearer ")

    status, said, failed = await run_client(f"http://127.0.0.1:{live.port}", *pictures, KEY=key)

    assert status == 0, failed
    assert said.splitlines()[-1].startswith("12: Ada (")
    assert CLIENT.read_text().count("\n") <= 60
    assert not live.sessions._sessions  # it said bye


async def test_the_reference_client_says_what_is_wrong_in_a_line(live: LiveServer) -> None:
    address = f"http://127.0.0.1:{live.port}"
    unknown = await run_client(address, CLIENT, KEY="vultus_" + "x" * 43)
    keyless = await run_client(address, CLIENT)
    nothing = await run_client(KEY="x")

    assert unknown[0] == keyless[0] == nothing[0] == 1
    assert "unknown, revoked" in unknown[2]
    assert keyless[2] == nothing[2]
    assert nothing[2].startswith("Usage: KEY=")
    assert [answer[2].count("\n") for answer in (unknown, keyless, nothing)] == [1, 1, 1]
