"""Deliveries go to addresses that were checked, follow nothing, wait for nobody, and keep nothing of an answer."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import h11
import pytest
from tests.receivers import Receiver, receiving
from tests.server.test_tls_and_sockets import write_pair

from vultus.server.serving import load_tls
from vultus.services.events import sending as sending_module
from vultus.services.events.sending import (
    BROKEN_OFF,
    FORBIDDEN,
    FORBIDDEN_PLAIN,
    TOO_LONG,
    AddressRule,
    GuardedBackend,
    WebhookSender,
    parse_retry_after,
)
from vultus.settings import WebhookSettings
from vultus.utils.addresses import is_public

SECRETS = (b"s" * 32,)


@asynccontextmanager
async def sending(*allowed: str, timeout_s: float = 5.0) -> AsyncIterator[WebhookSender]:
    sender = WebhookSender(WebhookSettings(allowed_networks=allowed, timeout_s=timeout_s))
    yield sender
    await sender.close()


async def send(sender: WebhookSender, url: str) -> tuple[int | None, str | None]:
    attempt = await sender.send(url, "id", {"type": "test"}, SECRETS)
    return attempt.status, attempt.error


@pytest.mark.parametrize(
    "address",
    [
        *("10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.1", "0.0.0.0", "169.254.169.254", "100.100.100.200"),
        *("168.63.129.16", "192.0.0.192", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00:ec2::254"),
        *("::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a00:1::1", "ff02::1"),
        *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "64:ff9b:1::a9fe:a9fe", "fec0::1", "::127.0.0.1"),
    ],
)
def test_no_delivery_goes_to_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not AddressRule(()).is_allowed(ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"])
def test_public_addresses_are_public_however_they_are_written(address: str) -> None:
    assert is_public(ip_address(address))


def test_the_operator_allows_networks_also_in_another_notation() -> None:
    rule = AddressRule(["10.0.0.0/8"])

    assert rule.is_allowed(ip_address("10.1.2.3"))
    assert rule.is_allowed(ip_address("::ffff:10.1.2.3"))
    assert not rule.is_allowed(ip_address("192.168.1.1"))
    assert not rule.is_exception(ip_address("93.184.216.34"))


@pytest.mark.parametrize(("scheme", "error"), [("https", FORBIDDEN), ("http", FORBIDDEN_PLAIN)])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "2130706433", "0x7f.1", "127.1"])
async def test_nothing_is_sent_to_this_machine_however_it_is_named(scheme: str, host: str, error: str) -> None:
    with receiving() as receiver:
        port = receiver.url.split(":")[2]
        async with sending() as sender:
            assert await send(sender, f"{scheme}://{host}:{port}") == (None, error)

    assert receiver.messages == []


async def test_plain_http_goes_to_no_public_address_however_it_is_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending_module, "is_public", lambda _: True)
    with receiving() as receiver:
        async with sending() as sender:
            for scheme in ("http", "HTTP", "Http"):
                assert await send(sender, receiver.url.replace("http", scheme, 1)) == (None, FORBIDDEN_PLAIN)

    assert receiver.messages == []


async def test_a_name_that_leads_elsewhere_the_second_time_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that is checked is the one connected to; among several, those that are not allowed are left out."""
    with receiving() as receiver:
        port = int(receiver.url.split(":")[2].split("/")[0])
        answers = [["127.0.0.1"], ["10.0.0.1"], ["10.0.0.1", "127.0.0.1"]]
        asked: list[str] = []

        def resolve(host: str, port: int) -> Any:
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in answers[len(asked) - 1]]

        monkeypatch.setattr(sending_module, "resolve_name", resolve)
        async with sending("127.0.0.1") as sender:
            assert await send(sender, f"http://door.example:{port}/") == (204, None)
        async with sending("127.0.0.1") as sender:
            assert await send(sender, f"http://door.example:{port}/") == (None, FORBIDDEN_PLAIN)
            assert await send(sender, f"http://door.example:{port}/") == (204, None)

    assert asked == ["door.example"] * 3
    assert [message.headers["host"] for message in receiver.messages] == [f"door.example:{port}"] * 2


@pytest.mark.parametrize("host", ["a..example", "a" * 64 + ".example"])
async def test_a_name_that_cannot_be_looked_up_is_a_failure(host: str) -> None:
    async with sending() as sender:
        assert await send(sender, f"https://{host}/") == (None, "the host's name does not resolve")


async def test_names_whose_servers_do_not_answer_keep_no_threads_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: waiting.wait(5))
    async with sending(timeout_s=0.2) as sender:
        attempts = await asyncio.gather(*(send(sender, f"https://{at}.example/") for at in range(40)))
        async with asyncio.timeout(1):
            await asyncio.to_thread(lambda: None)
        waiting.set()

    assert attempts == [(None, "no answer within 0.2 seconds")] * 40


async def test_redirects_are_not_followed_and_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as elsewhere, receiving(Receiver(answer=lambda _: (302, {"location": elsewhere.url}))) as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, elsewhere.url)
        async with sending("127.0.0.1") as sender:
            status, error = await send(sender, receiver.url)

    assert (status, "redirects are not followed" in (error or "")) == (302, True)
    assert (len(receiver.messages), elsewhere.messages) == (1, [])


@asynccontextmanager
async def answering(
    parts: Iterable[bytes], pause_s: float = 0.0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[int]]]:
    """Answer the first request with parts of an answer; yield the address, and the lengths of what was taken."""
    taken: list[int] = []
    tasks: set[asyncio.Task[Any] | None] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
                taken.append(len(part))
                await asyncio.sleep(pause_s)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}/", taken
        for task in tasks:
            if task:
                task.cancel()
    await asyncio.sleep(0.01)  # so that the transports learn that they were closed


async def send_raw(*parts: bytes, timeout_s: float = 5.0) -> tuple[int | None, str | None]:
    """Send to a receiver that answers with these bytes, then ends the connection."""
    async with answering(parts) as (url, _), sending("127.0.0.1", timeout_s=timeout_s) as sender:
        return await send(sender, url)


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (b"", None, "the connection broke off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None, "the connection broke off"),
        (b"HTTP/1.1 banana\r\n\r\n", None, "the connection broke off"),
        (b"HTTP/1.1 204 No Content\r\nBad Header\r\n\r\n", None, "the connection broke off"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nyes", None, "the connection broke off"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, None),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304, "HTTP 304"),
        (b"HTTP/1.1 999 ?\r\nContent-Length: 0\r\n\r\n", 999, "HTTP 999"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", None, "the connection broke off"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", None, TOO_LONG),
    ],
)
async def test_every_answer_is_told_of_in_a_sentence(answer: bytes, status: int | None, error: str | None) -> None:
    assert await send_raw(answer) == (status, error)


async def test_a_body_in_many_parts_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part takes time to parse, which everything else would wait for."""
    part = b"1\r\nx\r\n" * 1000
    parts = itertools.chain([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], itertools.repeat(part))
    parsed: list[object] = []
    parse = h11.Connection.next_event

    def count(line: h11.Connection) -> object:
        parsed.append(event := parse(line))
        return event

    monkeypatch.setattr(h11.Connection, "next_event", count)
    async with answering(parts) as (url, _), sending("127.0.0.1") as sender:
        assert await send(sender, url) == (200, None)

    assert len(parsed) < 20


async def test_interim_answers_do_not_go_on_for_long() -> None:
    parts = itertools.repeat(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)
    async with answering(parts) as (url, taken), sending("127.0.0.1") as sender:
        assert await send(sender, url) == (None, TOO_LONG)

    assert sum(taken) < 2**24


async def test_what_nobody_foresaw_is_a_failure_and_does_not_show_the_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def break_off(*_: Any, **__: Any) -> Any:
        raise RuntimeError("https://example.org/capability")

    monkeypatch.setattr(GuardedBackend, "connect_tcp", break_off)
    async with sending() as sender:
        assert await send(sender, "https://example.org/capability") == (None, BROKEN_OFF)

    assert "RuntimeError in break_off" in caplog.text
    assert "capability" not in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_the_whole_address_is_asked_for(host: str) -> None:
    heads: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(accept, host.strip("[]"), 0)
    port = server.sockets[0].getsockname()[1]
    async with server, sending("127.0.0.1", "::1") as sender:
        assert await send(sender, f"http://{host}:{port}/a;b=c/d;token=e?f=g;h") == (204, None)

    lines = heads[0].decode().split("\r\n")
    assert lines[0] == "POST /a;b=c/d;token=e?f=g;h HTTP/1.1"
    assert [line.lower() for line in lines if line.lower().startswith("host:")] == [f"host: {host}:{port}"]


async def test_an_answer_that_does_not_end_is_a_failure() -> None:
    parts = itertools.chain([b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], itertools.repeat(b"x"))
    async with answering(parts, 0.05) as (url, _), sending("127.0.0.1", timeout_s=0.4) as sender:
        assert await send(sender, url) == (None, "no answer within 0.4 seconds")
    async with sending("127.0.0.1") as sender:
        assert await send(sender, url) == (None, "the connection was refused")


async def test_certificates_are_verified_for_the_name_and_not_for_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = write_pair(tmp_path, "one")  # for 127.0.0.1

    def resolve(_: str, port: int) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(sending_module, "resolve_name", resolve)
    answer = [b"HTTP/1.1 204 No Content\r\n\r\n"]
    async with answering(answer, tls=load_tls(certificate, key)) as (url, _):
        async with sending("127.0.0.1") as sender:
            unknown = await send(sender, url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with sending("127.0.0.1") as sender:
            trusted, foreign = await send(sender, url), await send(sender, url.replace("127.0.0.1", "door.example"))

    assert trusted == (204, None)
    for status, error in (unknown, foreign):
        assert (status, (error or "")[:34]) == (None, "the certificate was not accepted: ")


async def test_a_long_answer_is_not_read_to_its_end() -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    parts = itertools.chain([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], itertools.repeat(chunk))
    async with answering(parts) as (url, taken), sending("127.0.0.1") as sender:
        assert await send(sender, url) == (200, None)
        await asyncio.sleep(0.05)

    assert sum(taken) < 2**24


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("120", 120),
        ("999999999", 86_400),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999999", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
    ],
)
def test_the_wait_that_a_receiver_asks_for(value: str, wait_s: float | None) -> None:
    assert parse_retry_after(value) == wait_s


def test_a_receiver_may_name_a_time() -> None:
    wait_s = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))

    assert wait_s == pytest.approx(60, abs=2)
