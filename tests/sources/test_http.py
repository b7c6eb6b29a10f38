"""Cameras over HTTP: MJPEG and HLS, passwords, and where redirects and playlists may lead."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faces import encoded
from tests.sources.cameras import Camera, write_playlist
from tests.sources.conftest import OpenFeed, paint
from tests.sources.test_files import collect_frames, receive_problem
from vultus.domain.source_addresses import AllowedSources, SourceAddress
from vultus.domain.sources import SourceProblem
from vultus.sources import connections
from vultus.sources.connections import SourceError
from vultus.sources.decoding import VideoReader

HERE = "127.0.0.1"


@pytest.fixture
def camera() -> Iterator[Camera]:
    made = Camera([encoded(paint(number)) for number in range(10)])
    made.start()
    yield made
    made.stop()


@pytest.fixture
def other() -> Iterator[Camera]:
    """A host that nobody allowed."""
    made = Camera([encoded(paint(1))])
    made.start()
    yield made
    made.stop()


async def test_motion_jpeg_is_watched_again_after_a_loss(camera: Camera, open_feed: OpenFeed) -> None:
    feed = open_feed(camera.url("/mjpeg"), HERE)
    assert len(await collect_frames(feed, 3)) == 3

    camera.stop()
    assert await receive_problem(feed) is SourceProblem.CLOSED
    camera.start()

    assert len(await collect_frames(feed, 3)) == 3


async def test_a_playlist_is_watched(camera: Camera, video: Path, tmp_path: Path, open_feed: OpenFeed) -> None:
    (tmp_path / "hls").mkdir()
    camera.files |= write_playlist(tmp_path / "hls", video)

    frames = await collect_frames(open_feed(camera.url("/list.m3u8"), HERE), 5)

    assert len(frames) == 5


async def test_a_password_opens_the_camera_and_a_wrong_one_is_said(camera: Camera, open_feed: OpenFeed) -> None:
    camera.password = "admin:p@ss w:rd"

    assert await collect_frames(open_feed(camera.url("/mjpeg", "admin:p%40ss%20w%3Ard@"), HERE), 1)
    for user in ("", "admin:wrong@"):
        assert await receive_problem(open_feed(camera.url("/mjpeg", user), HERE)) is SourceProblem.UNAUTHORIZED


async def test_a_password_opens_the_segments_of_a_playlist(
    camera: Camera, video: Path, tmp_path: Path, open_feed: OpenFeed
) -> None:
    (tmp_path / "hls").mkdir()
    files = write_playlist(tmp_path / "hls", video)
    camera.files |= {path.replace("/list.m3u8", "/live/list.m3u8"): body for path, body in files.items()}
    camera.files["/live/list.m3u8"] = files["/list.m3u8"].replace(b"list0", b"/list0").replace(b"list1", b"/list1")
    camera.password = "admin:geheim"

    assert await collect_frames(open_feed(camera.url("/live/list.m3u8", "admin:geheim@"), HERE), 1)


async def test_a_camera_that_sends_nothing_more_is_lost_after_the_read_timeout(
    camera: Camera, open_feed: OpenFeed
) -> None:
    camera.fps = 1 / 60

    feed = open_feed(camera.url("/mjpeg"), HERE, open_timeout_s=30.0, read_timeout_s=1.0)

    await collect_frames(feed, 1)
    async with asyncio.timeout(15):
        assert await receive_problem(feed) is SourceProblem.TIMEOUT


@pytest.mark.parametrize("entry", ["10.0.0.0/8", "localhost", "camera.example.org"])
async def test_what_is_not_allowed_is_not_connected_to(entry: str, camera: Camera, open_feed: OpenFeed) -> None:
    url = camera.url("/mjpeg").replace(HERE, "localhost")  # a name alone allows no address of this machine

    assert await receive_problem(open_feed(url, entry)) is SourceProblem.ADDRESS_NOT_ALLOWED
    assert camera.requests == []


async def test_a_redirect_is_followed_to_allowed_addresses_alone(
    camera: Camera, other: Camera, open_feed: OpenFeed
) -> None:
    camera.files = {
        "/in": "/mjpeg",
        "/out": other.url("/mjpeg").replace(HERE, "127.0.0.2"),
        "/file": "file:///etc/passwd",
    }

    assert await collect_frames(open_feed(camera.url("/in"), HERE), 1)
    assert await receive_problem(open_feed(camera.url("/out"), HERE)) is SourceProblem.ADDRESS_NOT_ALLOWED
    assert await receive_problem(open_feed(camera.url("/file"), HERE)) is SourceProblem.REDIRECTED
    assert other.requests == []


@pytest.mark.parametrize(
    "segment",
    ["http://127.0.0.2:{port}/secret.ts", "file:///etc/passwd", "concat:/etc/passwd", "data:,x", "/etc/passwd"],
)
async def test_a_playlist_leads_nowhere_that_is_not_allowed(
    segment: str, camera: Camera, other: Camera, open_feed: OpenFeed
) -> None:
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{segment.format(port=other.port)}\n#EXT-X-ENDLIST\n"
    camera.files = {"/list.m3u8": playlist.encode()}

    problem = await receive_problem(open_feed(camera.url("/list.m3u8"), f"{HERE}/32"))

    assert problem in {SourceProblem.ADDRESS_NOT_ALLOWED, SourceProblem.NO_VIDEO, SourceProblem.NOT_FOUND}
    assert other.requests == []


async def test_a_script_in_a_playlist_is_not_followed(camera: Camera, other: Camera, open_feed: OpenFeed) -> None:
    there = other.url("/secret.ts").replace(HERE, "127.0.0.2")
    camera.files = {
        "/script.ts": f"ffconcat version 1.0\nfile {there}\n".encode(),
        "/description.ts": b"v=0\r\ns=x\r\nc=IN IP4 127.0.0.2\r\nm=video 5004 RTP/AVP 96\r\n",
        "/nested.ts": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{there}\n#EXT-X-ENDLIST\n".encode(),
    }

    for segment in list(camera.files):
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{segment}\n#EXT-X-ENDLIST\n"
        camera.files["/list.m3u8"] = playlist.encode()
        await receive_problem(open_feed(camera.url("/list.m3u8"), f"{HERE}/32"))
        assert segment in camera.requests

    assert other.requests == []


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[SourceAddress]:
    """Yield the address of a host that answers one connection, until it has ended."""

    def accept(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            answer(connection)

    with socket.create_server((HERE, 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        yield SourceAddress.from_text(f"http://{HERE}:{listener.getsockname()[1]}/mjpeg")
        thread.join()


@pytest.mark.parametrize("beginning", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\n\r\n", b""])
def test_a_host_that_drips_is_not_waited_for_longer(beginning: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SLOW_S", 0.5)
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(beginning)
        while not ended.wait(0.05):
            connection.sendall(b"x")

    with answering(drip) as address, pytest.raises(SourceError) as raised:
        try:
            VideoReader(address, AllowedSources((HERE,)), open_timeout_s=0.2, read_timeout_s=0.2)
        finally:
            ended.set()

    assert raised.value.problem is SourceProblem.TIMEOUT


def test_the_body_of_a_redirect_is_not_read() -> None:
    sent = []

    def redirect(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n")
        for _ in range(64):
            connection.sendall(b"x" * 2**20)
            sent.append(1)

    with answering(redirect) as address, pytest.raises(SourceError) as raised:
        VideoReader(address, AllowedSources((HERE,)), open_timeout_s=2, read_timeout_s=2)

    assert raised.value.problem is SourceProblem.ADDRESS_NOT_ALLOWED
    assert len(sent) < 64


def test_however_many_addresses_a_name_has_connecting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SLOW_S", 0.3)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{number}", 9)) for number in range(1, 200)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    tried = []

    def time_out(connection: socket.socket, address: object) -> None:
        tried.append(address)
        time.sleep(connection.gettimeout() or 0)
        raise TimeoutError

    monkeypatch.setattr(socket.socket, "connect", time_out)

    with pytest.raises(SourceError) as raised:
        connections.connect_allowed("camera", 80, AllowedSources(("127.0.0.0/8",)), connections.Patience(0.1, 0.1))

    assert raised.value.problem is SourceProblem.TIMEOUT
    assert len(tried) < 10
