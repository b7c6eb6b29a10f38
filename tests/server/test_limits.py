"""Time, pace and number: who is silent, slow or too many is closed, and nobody else notices."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import time
from typing import Any

import pytest
from tests.server.sockets import GET, Line, read_problem, running, wait_until

from vultus.errors import RequestTimeoutError
from vultus.server import pace, protocol, registry
from vultus.server.pace import Pace
from vultus.server.refusals import RefusalLog
from vultus.server.registry import ConnectionRegistry, bound_connections, raise_descriptor_limit

HOLD = GET.replace(b"/echo", b"/hold")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten every deadline; they are looked at once a second."""
    for module, name in (
        (protocol, "HEAD_TIMEOUT_S"),
        (protocol, "KEEP_ALIVE_S"),
        (protocol, "LINGER_S"),
        (pace, "GRACE_S"),
    ):
        monkeypatch.setattr(module, name, 0.5)


@pytest.mark.usefixtures("hurried")
async def test_silent_half_and_dripping_heads_are_closed_and_others_answered() -> None:
    async with running() as server:
        silent, half, dripping, idle, blank, idle_blank = [await server.connect() for _ in range(6)]
        half.writer.write(GET[:10])
        for line in (idle, idle_blank):
            line.writer.write(GET)
            await line.read_response()

        async def drip(line: Line, part: bytes) -> None:
            while not line.reader.at_eof():
                line.writer.write(part)
                await asyncio.sleep(0.05)

        drips = [(dripping, b"A"), (blank, b"\r\n"), (idle_blank, b"\r\n\r\n")]
        dripping_on = [asyncio.create_task(drip(*one)) for one in drips]
        answers = [await line.read_all() for line in (silent, half, dripping, idle, blank, idle_blank)]
        await asyncio.gather(*dripping_on)

        assert {answers[0], *answers[3:]} <= {b"", b"(reset)"}
        assert [read_problem(answer) for answer in answers[1:3]] == [(408, "request_timeout")] * 2
        assert (await server.exchange(GET, 0.2)).startswith(b"HTTP/1.1 200")


@pytest.mark.usefixtures("hurried")
async def test_a_connection_that_answers_or_reads_in_time_is_left_alone() -> None:
    async with running() as server:
        line = await server.connect()
        line.writer.write(HOLD)
        await asyncio.sleep(2.5)
        server.app.let_go.set()

        assert await line.read_response() == (200, b"GET ")


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("rhythm_s", [0.1, 60.0], ids=["a-byte-at-a-time", "silent"])
async def test_a_body_that_comes_too_slowly_fails(rhythm_s: float) -> None:
    async with running() as server:
        line = await server.connect()
        line.writer.write(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome")

        async def drip() -> None:
            while True:
                await asyncio.sleep(rhythm_s)
                line.writer.write(b"A")

        dripping_on = asyncio.create_task(drip())
        answer = await line.read_all()
        dripping_on.cancel()

    assert answer.startswith(b"HTTP/1.1 408")
    assert isinstance(server.app.errors[0], RequestTimeoutError)
    assert server.app.running == 0


def test_the_pace_counts_after_its_grace() -> None:
    slow, fast, stopped = Pace(0), Pace(0), Pace(0)
    stopped.add_bytes(10**9, 20)
    seen = {}
    for second in range(1, 40):
        slow.add_bytes(pace.MIN_BYTES_PER_S // 2, second)
        fast.add_bytes(pace.MIN_BYTES_PER_S, second)
        seen[second] = [one.is_too_slow(second) for one in (slow, fast, stopped)]

    assert seen[29] == [False, False, False]  # half the least pace holds for twice the grace
    assert seen[31] == [True, False, False]
    assert seen[36] == [True, False, True]


@pytest.mark.usefixtures("hurried")
async def test_who_does_not_read_is_closed_and_holds_no_request() -> None:
    async with running() as server:
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        reader.setblocking(False)
        await asyncio.get_running_loop().sock_connect(reader, ("127.0.0.1", server.port))
        reader.send(GET.replace(b"/echo", b"/large") * 8)
        await asyncio.sleep(0.3)
        running_then, open_then = server.app.running, len(server.registry)
        await wait_until(lambda: not len(server.registry))
        reader.close()

        assert (running_then, open_then, len(server.registry)) == (0, 1, 0)
        assert len(server.app.scopes) == 1


async def test_a_body_after_a_refusal_is_not_drained() -> None:
    async with running() as server:
        loop = asyncio.get_running_loop()
        with socket.socket() as sender:
            sender.setblocking(False)
            await loop.sock_connect(sender, ("127.0.0.1", server.port))
            await loop.sock_sendall(sender, b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n")
            sent = 0
            try:
                while sent < 60_000_000:
                    sent += await asyncio.wait_for(loop.run_in_executor(None, _send_some, sender), 10)
            except (ConnectionError, TimeoutError):
                pass

    assert sent < 16_000_000


def _send_some(sender: socket.socket) -> int:
    for _ in range(400):
        try:
            return sender.send(b"x" * 65536)
        except BlockingIOError:
            time.sleep(0.01)
    raise TimeoutError


async def test_a_caller_that_sends_a_short_body_before_it_reads_finds_the_answer() -> None:
    async with running() as server:
        answer = await server.exchange(
            b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\n" + b"x" * 600_000
        )

    assert answer.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in answer
    assert answer.endswith(b"no")


async def test_silent_connections_make_room_for_others() -> None:
    async with running(connections=10) as server:
        silent = [await server.connect() for _ in range(30)]
        answers = [(await server.exchange(GET, 0.1)).split(b"\r\n")[0] for _ in range(5)]

        assert set(answers) == {b"HTTP/1.1 200 OK"}
        assert len(server.registry) <= 10
        assert await silent[0].read_all() in {b"", b"(reset)"}


@pytest.mark.parametrize("bounds", [{"connections": 3}, {"per_address": 3}])
async def test_when_all_are_busy_others_are_refused_and_health_is_answered(bounds: dict[str, Any]) -> None:
    async with running(is_always_answered=lambda path: path == "/health", **bounds) as server:
        for _ in range(3):
            line = await server.connect()
            line.writer.write(HOLD)
        await wait_until(lambda: server.app.running == 3)
        refused = await server.exchange(GET)
        healthy = await server.exchange(GET.replace(b"/echo", b"/health"), 0.2)
        server.app.let_go.set()

    assert read_problem(refused) == ((503, "overloaded") if "connections" in bounds else (429, "too_many_connections"))
    assert b"retry-after: 2" in refused
    assert healthy.startswith(b"HTTP/1.1 200")


async def test_a_connection_over_the_bound_is_served_once_there_is_room() -> None:
    async with running(connections=1, is_always_answered=lambda path: path == "/health") as server:
        busy = await server.connect()
        busy.writer.write(HOLD)
        await wait_until(lambda: server.app.running)
        line = await server.connect()
        line.writer.write(GET.replace(b"/echo", b"/health"))
        healthy = await line.read_response()
        server.app.let_go.set()
        await busy.read_response()
        busy.writer.close()
        await wait_until(lambda: len(server.registry) == 1)
        line.writer.write(GET)

        assert (healthy[0], await line.read_response()) == (200, (200, b"GET "))


async def test_far_beyond_the_bound_connections_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SPARE_CONNECTIONS", 0)
    async with running(connections=1) as server:
        line = await server.connect()
        line.writer.write(HOLD)
        await wait_until(lambda: server.app.running)
        beyond = await server.exchange(b"")
        server.app.let_go.set()

    assert beyond in {b"", b"(reset)"}


class _Connection:
    over_bound = False
    evicted = False

    def evict(self) -> None:
        self.evicted = True


def test_what_never_sent_a_request_makes_room_first_then_what_waits_longest() -> None:
    book = ConnectionRegistry(max_connections=3, max_per_address=3)
    used, fresh, busy, *later = [_Connection() for _ in range(6)]
    book.add(used, "10.0.0.1")
    book.mark_busy(used)
    book.mark_idle(used)
    book.add(fresh, "10.0.0.1")
    book.add(busy, "10.0.0.1")
    book.mark_busy(busy)
    for one in later:
        book.add(one, "10.0.0.1")
        book.mark_busy(one)

    assert [one.evicted for one in (fresh, used, busy)] == [True, True, False]
    assert [one.over_bound for one in later] == [False, False, True]


def test_addresses_are_counted_by_what_one_caller_has() -> None:
    def is_over(*addresses: str, is_proxy: str = "") -> list[bool]:
        book = ConnectionRegistry(max_connections=99, max_per_address=1, is_proxy=lambda address: address == is_proxy)
        connections = [_Connection() for _ in addresses]
        for connection, address in zip(connections, addresses, strict=True):
            book.add(connection, address)
            book.mark_busy(connection)
        return [connection.over_bound for connection in connections]

    assert is_over("10.0.0.1", "10.0.0.2") == [False, False]
    assert is_over("10.0.0.1", "::ffff:10.0.0.1") == [False, True]
    assert is_over("2001:db8::1", "2001:db8::2:0:0:1") == [False, True]
    assert is_over("2001:db8::1", "2001:db8:0:1::1", "fe80::1%eth0") == [False] * 3
    assert is_over("10.0.0.1", "10.0.0.1", is_proxy="10.0.0.1") == [False, False]


def test_the_limit_of_open_files_is_raised_and_connections_stay_below_it() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        raised = raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == raised > 512
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert bound_connections(4096, 65_536) == 4096
    assert bound_connections(4096, 1024) < 1024 - registry.SPARE_CONNECTIONS


def test_a_flood_of_refusals_is_one_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    log = RefusalLog()
    with caplog.at_level(logging.WARNING):
        for _ in range(1_000):
            log.add("head_too_long")
        now[0] += 11
        log.write_counts()

    assert [record.__dict__["count"] for record in caplog.records] == [1, 999]
