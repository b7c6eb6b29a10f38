"""TLS by certificate files, WebSockets, and what proxies say."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.server.sockets import GET, Line, running, wait_until
from websockets.asyncio.client import connect

from vultus import main
from vultus.errors import SetupError
from vultus.server import handshakes, protocol, serving
from vultus.server.proxies import ForwardedMiddleware, TrustedProxies
from vultus.server.serving import format_address, is_loopback, load_tls, open_tls
from vultus.settings import ServerSettings


def write_pair(folder: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return paths


async def test_a_certificate_makes_the_port_speak_tls_alone(tmp_path: Path) -> None:
    certificate, key = write_pair(tmp_path, "one")
    tls = open_tls(ServerSettings(tls_certificate=certificate, tls_key=key))
    async with running(tls=tls) as server:
        line = await server.connect(ssl=ssl.create_default_context(cafile=certificate))
        line.writer.write(GET)
        answer = await line.read_response()
        plain = await server.exchange(GET, 2)

    assert answer == (200, b"GET ")
    assert server.app.scopes[0]["scheme"] == "https"
    assert plain in {b"", b"(reset)"}


async def test_a_silent_handshake_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "HEAD_TIMEOUT_S", 0.5)
    async with running(tls=load_tls(*write_pair(tmp_path, "one"))) as server:
        assert await server.exchange(b"", 3) in {b"", b"(reset)"}


async def test_handshakes_are_connections_and_make_room(tmp_path: Path) -> None:
    """Unbounded, 8,000 of them took 800 MB."""
    certificate, key = write_pair(tmp_path, "one")
    async with running(tls=load_tls(certificate, key), connections=10) as server:
        stalled = [await server.connect() for _ in range(30)]
        await wait_until(lambda: sum(line.reader.at_eof() for line in stalled) >= 20)
        line = await server.connect(ssl=ssl.create_default_context(cafile=certificate))
        line.writer.write(GET)
        answer = await line.read_response()
        counted = len(server.registry)

    assert answer == (200, b"GET ")
    assert counted <= 11
    assert not len(server.registry)


def test_every_mistake_with_tls_files_has_a_sentence(tmp_path: Path) -> None:
    one, two = write_pair(tmp_path, "one"), write_pair(tmp_path, "two")
    locked = write_pair(tmp_path, "locked", b"secret")
    text = tmp_path / "text"
    text.write_text("nothing")
    odd = tmp_path / "odd"
    odd.write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    tried = {
        (tmp_path / "none", one[1]): r"none cannot be read: No such file.*TLS_CERTIFICATE",
        (one[0], tmp_path / "none"): r"none cannot be read: No such file.*TLS_KEY",
        (tmp_path, one[1]): r"cannot be read: Is a directory",
        (text, one[1]): r"text is no PEM file",
        (one[0], two[1]): r"two.key is not the private key of .*one.pem",
        locked: r"locked.key is encrypted",
        (odd, one[1]): r"are not a certificate and its private key",
        (one[1], one[0]): r"are not a certificate and its private key",
    }

    for pair, sentence in tried.items():
        with pytest.raises(SetupError, match=sentence):
            load_tls(*pair)


async def test_tls_sent_to_a_plain_port_is_explained() -> None:
    async with running() as server:
        assert b"use http://" in await server.exchange(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")


async def test_a_websocket_is_served_and_counted_until_it_ends() -> None:
    async with running() as server:
        async with connect(f"ws://127.0.0.1:{server.port}/live") as client:
            await client.send("hello")
            echoed, counted = await client.recv(), len(server.registry)
        for _ in range(50):
            await asyncio.sleep(0.02)
            if not len(server.registry):
                break

        assert (echoed, counted, len(server.registry)) == ("hello", 1, 0)
        assert server.app.scopes[0]["type"] == "websocket"


async def test_a_websocket_that_does_not_answer_pings_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PING_INTERVAL_S", 0.3)
    async with running() as server:
        line = await server.connect()
        line.writer.write(
            b"GET /live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        received = await line.read_all()

    assert received.startswith(b"HTTP/1.1 101")
    assert not received.endswith(b"(open)")


async def test_a_websocket_may_begin_after_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "KEEP_ALIVE_S", 0.3)
    async with running() as server:
        line: Line = await server.connect()
        line.writer.write(GET)
        await line.read_response()
        line.writer.write(
            b"GET /live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = await line.reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(1.5)

        assert head.startswith(b"HTTP/1.1 101")
        assert not line.reader.at_eof()


PROXY_HEADERS = [
    (b"x-forwarded-for", b"203.0.113.9"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-prefix", b"/faces/"),
]


async def forward(
    address: str, headers: list[tuple[bytes, bytes]], networks: tuple[str, ...] = ("10.0.0.0/24",)
) -> Any:
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope)

    scope = {"type": "http", "client": (address, 5), "scheme": "http", "root_path": "", "path": "/docs"}
    await ForwardedMiddleware(app, ["10.0.0.0/24"])({**scope, "headers": headers}, None, None)
    return seen[0]["client"][0], seen[0]["scheme"], seen[0]["root_path"], seen[0]["path"]


async def test_forwarded_headers_count_only_from_named_proxies() -> None:
    believed = ("203.0.113.9", "https", "/faces", "/faces/docs")

    assert await forward("10.0.0.7", PROXY_HEADERS) == believed
    assert await forward("::ffff:10.0.0.7", PROXY_HEADERS) == believed
    assert await forward("10.0.1.7", PROXY_HEADERS) == ("10.0.1.7", "http", "", "/docs")
    assert (await forward("10.0.0.7", [(b"x-forwarded-for", b'fe80::1%any "words"')]))[0] == "fe80::1"


@pytest.mark.parametrize("prefix", [b"//evil.test", b"faces", b"/a b", b"/<x>", b"/../..", b"\xff"])
async def test_a_prefix_that_is_no_path_is_ignored(prefix: bytes) -> None:
    _, _, root, path = await forward("10.0.0.7", [(b"x-forwarded-prefix", prefix)])

    assert (root, path) == ("", "/docs")


def test_addresses_of_proxies_are_compared_as_networks() -> None:
    proxies = TrustedProxies(["10.0.0.5", "2001:db8::/32"])

    assert [one in proxies for one in ("10.0.0.5", "2001:db8::9", "10.0.0.6", "a name", "")] == [True, True] + [
        False
    ] * 3


def test_addresses_are_written_as_urls() -> None:
    with serving.bind_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert format_address(listener, tls=True) == f"https://127.0.0.1:{port}"
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "faces.test")] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("host", ["[::1]", "http://127.0.0.1", "127.0.0.1:8000", "host.invalid", "192.0.2.1"])
def test_a_host_that_is_none_of_this_machine_is_not_called_a_taken_port(host: str) -> None:
    with pytest.raises(SetupError, match="is an address of this machine") as refused:
        serving.bind_socket(host, 0)

    assert "uses the port" not in refused.value.detail


def test_a_taken_port_is_named_with_its_setting() -> None:
    with serving.bind_socket("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(SetupError, match=f"port {port}: .+ Stop what uses the port, or set VULTUS_X"):
            serving.bind_socket("127.0.0.1", port, "VULTUS_X")


@pytest.mark.parametrize(
    ("settings", "is_warned"),
    [
        (ServerSettings(host="0.0.0.0"), True),
        (ServerSettings(host="127.0.0.1"), False),
        (ServerSettings(host="0.0.0.0", trusted_proxies="10.0.0.5"), False),
        (ServerSettings(host="0.0.0.0", tls_certificate="a.pem", tls_key="b.pem"), False),
    ],
)
def test_plain_http_beyond_this_machine_is_warned_of(
    settings: ServerSettings, is_warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    main._warn_of_plain_text(settings)

    assert ("VULTUS_SERVER__TLS_CERTIFICATE" in caplog.text) == is_warned
