"""Heads and framing: what is HTTP is answered, what is not is refused with problem details."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.server.sockets import GET, read_problem, running

from vultus.errors import MalformedRequestError
from vultus.server.heads import MAX_HEAD_BYTES, HeadBuffer, HeadTooLongError

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAA\r\n"
WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
LENGTH = b"Content-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000,
        b"\r\n" * 20_000,
    ],
    ids=["long-line", "many-lines", "long-address", "endless-line", "blank-lines"],
)
async def test_a_head_beyond_32_kb_is_refused_and_the_connection_ends(head: bytes) -> None:
    async with running() as server:
        answer = await server.exchange(head + b"a" * 10)

    assert read_problem(answer) in {(431, "head_too_long"), (400, "malformed_request")}
    assert b"connection: close" in answer


async def test_an_endless_line_in_small_pieces_ends_at_the_limit() -> None:
    async with running() as server:
        line = await server.connect()
        line.writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        sent = 0
        while not line.reader.at_eof() and sent < 2**20:
            try:
                line.writer.write(b"a" * 256)
                await line.writer.drain()
            except ConnectionError:
                break
            sent += 256
            await asyncio.sleep(0)

    assert sent < 2**20


def test_a_head_in_pieces_is_put_together_once() -> None:
    head = GET.replace(b"Host: a", b"Host: a\r\nX: " + b"a" * 20_000)
    buffer = HeadBuffer()

    results = [buffer.add(head[at : at + 1]) for at in range(len(head))]

    assert results[-1] == head
    assert set(results[:-1]) == {None}
    assert not len(buffer)


def test_a_head_may_be_as_long_as_the_limit() -> None:
    filling = MAX_HEAD_BYTES - len(GET) - len(b"X: \r\n")
    head = GET[:-2] + b"X: " + b"a" * filling + b"\r\n\r\n"

    assert len(head) == MAX_HEAD_BYTES
    assert HeadBuffer().add(head + b"body") == head + b"body"
    with pytest.raises(HeadTooLongError):
        HeadBuffer().add(head.replace(b"X: ", b"X: a"))


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"POST /echo HTTP/1.1\r\nHost: a\r\n" + LENGTH, b"POST hello"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\n" + H2C + LENGTH, b"POST hello"),
        (
            b"POST /echo HTTP/1.1\r\nHost: a\r\nupgrade:\th2c,\r\n foo\r\nConnection: upgrade\r\n" + LENGTH,
            b"POST hello",
        ),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\n" + LENGTH, b"POST hello"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + LENGTH, b"POST hello"),
        (b"POST http://a/echo HTTP/1.1\r\nHost: a\r\n" + LENGTH, b"POST hello"),
        (b"POST /echo HTTP/1.0\r\n" + LENGTH, b"POST hello"),
        (
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2;x=1\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n",
            b"POST hello",
        ),
        (b"\r\nPOST /echo HTTP/1.1\r\nHost: a\r\n" + LENGTH, b"POST hello"),
        (GET, b"GET "),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS "),
    ],
)
async def test_every_lawful_way_to_send_a_request_is_answered(request_: bytes, answer: bytes) -> None:
    async with running() as server:
        line = await server.connect()
        line.writer.write(request_)

        assert await line.read_response() == (200, answer)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: user@a/b\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + WEBSOCKET + LENGTH,
        b"GET / HTTP/1.1\r\nHost: a\r\n" + WEBSOCKET + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 80\r\n" + GET,
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c",
    ],
)
async def test_what_is_no_http_gets_a_problem_and_the_end_of_the_connection(request_: bytes) -> None:
    async with running() as server:
        answer = await server.exchange(request_)

    assert read_problem(answer) == (400, "malformed_request")
    assert answer.count(b"HTTP/1.1 4") == 1
    assert not server.app.scopes


async def test_a_chunk_that_is_none_fails_the_body() -> None:
    async with running() as server:
        answer = await server.exchange(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")

    assert b"malformed_request" in answer
    assert isinstance(server.app.errors[0], MalformedRequestError)


async def test_trailers_end_at_the_limit_and_are_no_headers() -> None:
    async with running() as server:
        line = await server.connect()
        line.writer.write(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Late: 1\r\n"
        )
        for _ in range(40):
            await asyncio.sleep(0.01)
            line.writer.write(b"X-More: " + b"a" * 1_000 + b"\r\n")
        answer = await line.read_all()

    assert b"malformed_request" in answer
    assert not [name for name, _ in server.app.scopes[0]["headers"] if name.startswith(b"x-")]


async def test_continue_is_sent_when_the_body_is_wanted_and_only_then() -> None:
    async with running() as server:
        head = b"POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        line = await server.connect()
        line.writer.write(head % b"/echo")
        assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.writer.write(b"hello")
        assert await line.read_response() == (200, b"POST hello")

        refused = await server.exchange(head % b"/refuse")

    assert refused.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in refused


async def test_pipelined_requests_are_answered_in_order_up_to_a_number() -> None:
    async with running() as server:
        line = await server.connect()
        line.writer.write(b"".join(GET.replace(b"GET", method) for method in (b"GET", b"PUT", b"POST", b"DELETE")))
        bodies = [(await line.read_response())[1] for _ in range(4)]
        flood = await server.exchange(GET * 1_000)

    assert bodies == [b"GET ", b"PUT ", b"POST ", b"DELETE "]
    assert flood.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in flood


async def test_head_has_no_body_but_its_length() -> None:
    async with running() as server:
        line = await server.connect()
        line.writer.write(GET.replace(b"GET", b"HEAD") + GET)
        head = await line.reader.readuntil(b"\r\n\r\n")
        following = await line.read_response()

    assert b"content-length: 5" in head
    assert following == (200, b"GET ")


async def test_an_answer_without_a_length_is_chunked_or_ends_with_the_connection() -> None:
    async def app(_scope: object, _receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"one", "more_body": True})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"two"})  # type: ignore[operator]

    async with running(app) as server:
        new, old = await server.exchange(GET, 0.3), await server.exchange(b"GET / HTTP/1.0\r\n\r\n")

    assert new.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n(open)")
    assert old.endswith(b"\r\n\r\nonetwo")


async def test_a_caller_that_sends_no_more_gets_its_answer() -> None:
    async with running() as server:
        line = await server.connect()
        line.writer.write(b"POST /echo HTTP/1.1\r\nHost: a\r\n" + LENGTH)
        line.writer.write_eof()
        whole = await line.read_all()
        cut = await server.connect()
        cut.writer.write(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello")
        cut.writer.write_eof()
        broken = await cut.read_all()

    assert whole.endswith(b"POST hello")
    assert b"malformed_request" in broken


async def test_a_prefix_is_added_where_the_proxy_took_it_away() -> None:
    async with running(root_path="/faces") as server:
        for path in (b"/echo", b"/faces/echo"):
            line = await server.connect()
            line.writer.write(GET.replace(b"/echo", path))
            await line.read_response()

    assert [(scope["root_path"], scope["path"], scope["raw_path"]) for scope in server.app.scopes] == [
        ("/faces", "/faces/echo", b"/faces/echo")
    ] * 2


async def test_an_application_that_fails_ends_the_connection_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def app(_scope: object, _receive: object, _send: object) -> None:
        raise RuntimeError("broken")

    async with running(app) as server:
        started = time.monotonic()
        answers = [await server.exchange(GET) for _ in range(2)]

    assert answers == [b"", b""]
    assert time.monotonic() - started < 5
    assert "the application failed" in caplog.text
