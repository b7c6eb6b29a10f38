"""What WebSockets may take, through raw sockets: frames, stalls, prefixes and bounds."""

from __future__ import annotations

import asyncio
import signal
import socket as sockets
from typing import Any

import pytest
from tests.server.sockets import Line, Running, read_problem, running, wait_until

from vultus.server import websockets

HANDSHAKE = (
    b"GET /live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MASK = b"\x00\x00\x00\x00"
PING = b"\x89\xfd" + MASK + b"p" * 125
TEXT = b"\x81\x82" + MASK + b"hi"
LONG_PART = (3000).to_bytes(2, "big") + MASK + b"x" * 3000
BEGIN, NOTHING = b"\x02\x80" + MASK, b"\x00\x80" + MASK
POLICY_VIOLATION, MESSAGE_TOO_BIG = b"\x03\xf0", b"\x03\xf1"


async def shake_hands(server: Running, **options: Any) -> Line:
    line = await server.connect(**options)
    line.writer.write(HANDSHAKE)
    assert (await line.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return line


async def get_an_answer(line: Line) -> None:
    """Send a text, and get it back: only then may more be sent."""
    line.writer.write(TEXT)
    assert await line.reader.readexactly(4) == b"\x81\x02hi"


async def pour(scope: Any, receive: Any, send: Any) -> None:
    """Send without an end."""
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "bytes": bytes(100_000)})


def connect_without_reading(port: int) -> sockets.socket:
    plain = sockets.socket()
    plain.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    plain.connect(("127.0.0.1", port))
    plain.sendall(HANDSHAKE)
    return plain


@pytest.mark.parametrize("frames", [PING * 5000, BEGIN + NOTHING * 5000, TEXT * 5000], ids=["pings", "parts", "texts"])
async def test_a_flood_of_frames_ends_the_connection(frames: bytes) -> None:
    async with running() as server:
        line = await shake_hands(server)
        await get_an_answer(line)
        line.writer.write(frames)
        received = await line.read_all()

    assert POLICY_VIOLATION in received or received.endswith(b"(reset)")
    assert not received.endswith(b"(open)")


async def test_frames_at_a_camera_s_pace_are_taken() -> None:
    async with running() as server:
        line = await shake_hands(server)
        await get_an_answer(line)
        for _ in range(3):
            line.writer.write((TEXT + PING) * 200)
            await asyncio.sleep(0.4)
        answers = await asyncio.wait_for(line.reader.readexactly(600 * (127 + 4)), 5)

        assert answers.count(b"\x81\x02hi") == answers.count(b"\x8a\x7d") == 600
        assert not line.reader.at_eof()


@pytest.mark.parametrize(
    "begun",
    [
        b"\x81\xff" + (2**20).to_bytes(8, "big") + MASK + b"x" * 9000,
        b"\x01\xfe" + LONG_PART + b"\x00\xfe" + LONG_PART,
    ],
    ids=["one", "in parts"],
)
async def test_a_stranger_may_not_send_much(begun: bytes) -> None:
    """A message is held in memory until its end has come; strangers could hold thousands."""
    async with running(max_message_bytes=2**17) as server:
        line = await shake_hands(server)
        line.writer.write(begun)
        assert MESSAGE_TOO_BIG in await line.read_all()


async def test_whom_the_application_has_answered_may_send_longer_messages() -> None:
    long = b"x" * 2**16
    async with running(max_message_bytes=2**17) as server:
        line = await shake_hands(server)
        await get_an_answer(line)
        line.writer.write(b"\x81\xff" + len(long).to_bytes(8, "big") + MASK + long)
        assert (await line.reader.readexactly(10 + len(long))).endswith(long)
        line.writer.write(b"\x81\xff" + (2**18).to_bytes(8, "big") + MASK)
        assert MESSAGE_TOO_BIG in await line.read_all()


async def test_a_caller_that_reads_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "STALLED_S", 1.0)

    async with running(pour) as server:
        plain = connect_without_reading(server.port)
        await wait_until(lambda: len(server.registry) == 1)
        await wait_until(lambda: len(server.registry) == 0)
        plain.close()


async def test_a_stop_is_told_and_whoever_does_not_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "STOP_S", 0.5)
    async with running() as server:
        line = await shake_hands(server)
        server.server.handle_exit(signal.SIGTERM, None)
        received = await line.read_all()

    reason = websockets.STOP_REASON.encode()
    assert received == b"\x88" + bytes([len(reason) + 2]) + b"\x03\xf4" + reason


async def test_a_caller_that_reads_nothing_does_not_delay_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "STOP_S", 0.5)
    async with running(pour) as server:
        plain = connect_without_reading(server.port)
        await wait_until(lambda: len(server.registry) == 1)
        await asyncio.sleep(0.5)
        server.server.handle_exit(signal.SIGTERM, None)
        await wait_until(lambda: len(server.registry) == 0)
        plain.close()


async def test_the_prefix_of_a_proxy_is_not_put_before_itself() -> None:
    async with running(root_path="/faces") as server:
        for path in (b"/live", b"/faces/live"):
            line = await server.connect()
            line.writer.write(HANDSHAKE.replace(b"/live", path))
            await line.reader.readuntil(b"\r\n\r\n")

        assert [scope["path"] for scope in server.app.scopes] == ["/faces/live"] * 2


async def test_a_connection_over_the_bound_gets_no_websocket() -> None:
    async with running(per_address=1) as server:
        await shake_hands(server)
        refused = await server.exchange(HANDSHAKE)

    assert read_problem(refused) == (429, "too_many_connections")


async def test_a_text_that_is_not_utf8_ends_the_connection_without_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as server:
        line = await shake_hands(server)
        line.writer.write(b"\x81\x82" + MASK + b"\xc3\x28")
        received = await line.read_all()

    assert received[2:4] == (1007).to_bytes(2, "big")
    assert [record for record in caplog.records if record.exc_info] == []
