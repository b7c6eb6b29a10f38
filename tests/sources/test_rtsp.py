"""Cameras over RTSP, through the relay: video, passwords, and no way to anybody else."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sources.conftest import OpenFeed, paint
from tests.sources.rtsp_server import RtspServer
from tests.sources.test_files import collect_frames, receive_problem
from vultus.domain.sources import SourceProblem
from vultus.sources.connections import SourceError
from vultus.sources.messages import FrameTaken
from vultus.sources.rtsp import RtspAnswers

PICTURES = [paint(number) for number in range(20)]
ANSWER = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 5\r\n\r\n$body"
PACKET = b"$\x00\x00\x0a\r\n\r\nabcdef"


@pytest.fixture
def serve_rtsp() -> Iterator[Callable[..., RtspServer]]:
    servers: list[RtspServer] = []

    def start(**options: Any) -> RtspServer:
        servers.append(RtspServer(PICTURES, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


async def test_a_camera_is_watched(serve_rtsp: Callable[..., RtspServer], open_feed: OpenFeed) -> None:
    server = serve_rtsp(password="admin:p@ss:wörd")

    frames = await collect_frames(open_feed(f"rtsp://admin:p%40ss%3Aw%C3%B6rd@127.0.0.1:{server.port}/live"), 5)

    assert [(frame.width, frame.height) for frame in frames] == [(320, 240)] * 5


async def test_frames_between_key_frames_are_not_decoded_while_few_are_needed(
    serve_rtsp: Callable[..., RtspServer], open_feed: OpenFeed
) -> None:
    feed = open_feed(f"rtsp://127.0.0.1:{serve_rtsp().port}/live")  # a key frame every 0.4 s

    async def count_decoded(interval_s: float) -> int:
        """Return how many frames are decoded within 2 s."""
        counts = []
        for pause_s in (1.5, 2, 0):  # the first for the pace to change with a key frame
            feed.request_frame(interval_s)
            notice = await asyncio.wait_for(feed.receive(), 20)
            assert isinstance(notice, FrameTaken)
            counts.append(notice.frames)
            await asyncio.sleep(pause_s)
        return counts[2] - counts[1]

    assert await count_decoded(0.2) > 20
    assert await count_decoded(1.0) < 12
    assert await count_decoded(0.2) > 20


async def test_a_password_is_in_no_argument_and_no_environment(
    serve_rtsp: Callable[..., RtspServer], open_feed: OpenFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VULTUS_DATABASE__URL", "postgresql://vultus:geheim@db/faces")
    server = serve_rtsp(password="admin:geheim")
    feed = open_feed(f"rtsp://admin:geheim@127.0.0.1:{server.port}/live")
    await collect_frames(feed, 1)

    process = Path(f"/proc/{feed.pid}")
    assert b"geheim" not in process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
    assert "NoNewPrivs:\t1" in process.joinpath("status").read_text()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 that nobody trusts yet, and what a server needs to use it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "camera")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(hours=1), now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    path, key_path = tmp_path / "camera.pem", tmp_path / "key.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return path, context


async def test_a_camera_is_watched_over_tls_if_its_certificate_is_trusted(
    certificate: tuple[Path, ssl.SSLContext],
    serve_rtsp: Callable[..., RtspServer],
    open_feed: OpenFeed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, context = certificate
    server = serve_rtsp(password="admin:geheim", tls=context)
    url = f"rtsps://admin:geheim@127.0.0.1:{server.port}/live"

    feed = open_feed(url)
    assert await receive_problem(feed) is SourceProblem.TLS
    feed.close()
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    frames = await collect_frames(open_feed(url), 20)

    assert len(frames) == 20


async def test_a_camera_without_tls_is_not_watched_as_one_with(
    serve_rtsp: Callable[..., RtspServer], open_feed: OpenFeed
) -> None:
    server = serve_rtsp()

    problem = await receive_problem(open_feed(f"rtsps://127.0.0.1:{server.port}/live", open_timeout_s=2.0))

    assert problem in {SourceProblem.TLS, SourceProblem.TIMEOUT}


async def test_a_wrong_password_is_said(serve_rtsp: Callable[..., RtspServer], open_feed: OpenFeed) -> None:
    server = serve_rtsp(password="admin:right")

    problem = await receive_problem(open_feed(f"rtsp://admin:wrong@127.0.0.1:{server.port}/live"))

    assert problem is SourceProblem.UNAUTHORIZED


@pytest.mark.parametrize(
    "answer",
    [
        "RTSP/1.0 302 Found\r\n{to}",
        "RTSP/1.0\t302 Found\r\n{to}",
        "RTSP/1.0  302 Found\r\n{to}",
        " RTSP/1.0 302 Found\r\n{to}",
        "RTSP/1.0 0302 Found\r\n{to}",
        "RTSP/1.0 +302 Found\r\n{to}",
        "RTSP/1.0 200 OK\nCSeq: 1\n\nRTSP/1.0 302 Found\nLocation: {url}\n\n{to}",  # without carriage returns
        "RTSP/1.0 200 OK\r\nCSeq: 1\r\n Content-Length: {length}\r\n\r\nRTSP/1.0 302 Found\r\n{to}",
        "RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length : {length}\r\n\r\nRTSP/1.0 302 Found\r\n{to}",
        "RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: \xa0{length}\r\n\r\nRTSP/1.0 302 Found\r\n{to}",
        "RTSP/1.0 200 OK\r\nCSeq: 1\r\n\0\r\nRTSP/1.0 302 Found\r\n{to}",
        "$\0\0\4RTSP/1.0 302 Found\r\n{to}",
    ],
)
async def test_no_answer_leads_to_another_host(
    answer: str, serve_rtsp: Callable[..., RtspServer], open_feed: OpenFeed
) -> None:
    other = serve_rtsp()
    url = f"rtsp://127.0.0.1:{other.port}/live"
    to = f"Location: {url}\r\n\r\n"
    length = len("RTSP/1.0 302 Found\r\n" + to)
    server = serve_rtsp(raw=answer.format(to=to, url=url, length=length).encode("latin-1"))

    feed = open_feed(f"rtsp://127.0.0.1:{server.port}/live", read_timeout_s=1.0)
    feed.request_frame(0)
    await asyncio.wait_for(feed.receive(), 20)  # of this camera, or why there is none

    assert (server.connections, other.connections) == (1, 0)


async def test_a_host_that_is_not_allowed_is_not_connected_to(
    serve_rtsp: Callable[..., RtspServer], open_feed: OpenFeed
) -> None:
    server = serve_rtsp()

    problem = await receive_problem(open_feed(f"rtsp://localhost:{server.port}/live", "10.0.0.0/8", "localhost"))

    assert problem is SourceProblem.ADDRESS_NOT_ALLOWED
    assert server.connections == 0


@given(st.lists(st.sampled_from([ANSWER, PACKET]), min_size=1, max_size=6), st.data())
def test_answers_and_packets_pass_whole_however_they_come(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(messages)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True) if begin < end]
    answers = RtspAnswers()

    assert b"".join(map(answers.rewrite, chunks)) == stream


def read_leniently(stream: bytes) -> Iterator[int]:
    """Yield the status of each answer as FFmpeg reads it (`ff_rtsp_read_reply`)."""
    at = 0
    while at < len(stream):
        status = length = lines = 0
        while at < len(stream):
            if stream[at : at + 1] == b"$":
                at += 4 + int.from_bytes(stream[at + 2 : at + 4], "big")
                continue
            end = stream.find(b"\n", at)
            line = stream[at : end if end >= 0 else len(stream)].replace(b"\r", b"").partition(b"\0")[0]
            at = end + 1 if end >= 0 else len(stream)
            if not line:
                break
            words = line.split()
            if not lines and words and words[0].startswith(b"RTSP/"):
                number = re.match(rb"[+-]?[0-9]+", words[1]) if len(words) > 1 else None
                status = int(number[0]) if number else 0
            elif line.lower().startswith(b"content-length:"):
                number = re.match(rb"[ \t\v\f\r]*[+-]?[0-9]+", line[15:])
                length = int(number[0]) if number else 0
            lines += 1
        at += max(0, length)
        yield status


LINES = [
    "RTSP/1.0 302 Found",
    "RTSP/1.0\t302 Found",
    "RTSP/1.0  302 Found",
    "CSeq: 1",
    "Location: rtsp://a/",
    "",
    "\0",
    "$\0\0\4",
]
LINES += ["Content-Length: 20", " Content-Length: 20", "Content-Length : 20", "Content-Length: \xa020"]


@settings(max_examples=1000)
@given(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(["\r\n", "\n"])), max_size=8))
def test_no_reader_finds_a_redirect_in_what_is_passed_on(lines: list[tuple[str, str]]) -> None:
    answer = "RTSP/1.0 200 OK\r\n" + "".join(line + end for line, end in lines) + "\r\n\r\n"

    passed = b""
    with suppress(SourceError):
        passed = RtspAnswers().rewrite(answer.encode("latin-1"))

    assert all(not 300 <= status < 400 for status in read_leniently(passed))


@pytest.mark.parametrize(
    "answer",
    [
        b"RTSP/1.0 302 Found\r\nLocation: rtsp://10.0.0.1/\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_a_redirect_or_what_is_no_answer_ends_the_connection(answer: bytes) -> None:
    answers = RtspAnswers()
    assert answers.rewrite(PACKET) == PACKET

    with pytest.raises(SourceError):
        answers.rewrite(answer)
