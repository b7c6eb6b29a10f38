"""Cameras over RTSP, through the relay: video, passwords, and no way to anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sources.conftest import OpenFeed, paint
from tests.sources.rtsp_server import RtspServer
from tests.sources.test_files import collect_frames, receive_problem
from vultus.domain.sources import SourceProblem
from vultus.sources.connections import RtspAnswers, SourceError
from vultus.sources.messages import FrameTaken

PICTURES = [paint(number) for number in range(20)]
ANSWER = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 5\r\n\r\n$body"
PACKET = b"$\x00\x00\x06\r\n\r\nab"


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


async def test_a_wrong_password_is_said(serve_rtsp: Callable[..., RtspServer], open_feed: OpenFeed) -> None:
    server = serve_rtsp(password="admin:right")

    problem = await receive_problem(open_feed(f"rtsp://admin:wrong@127.0.0.1:{server.port}/live"))

    assert problem is SourceProblem.UNAUTHORIZED


async def test_a_redirect_is_refused(serve_rtsp: Callable[..., RtspServer], open_feed: OpenFeed) -> None:
    other = serve_rtsp()
    server = serve_rtsp(redirect=f"rtsp://127.0.0.1:{other.port}/live")

    problem = await receive_problem(open_feed(f"rtsp://127.0.0.1:{server.port}/live"))

    assert problem is SourceProblem.REDIRECTED
    assert other.connections == 0


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
    answers = RtspAnswers(lambda: chunks.pop(0) if chunks else b"")

    read = []
    while part := answers.read():
        read.append(part)

    assert b"".join(read) == stream


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
    chunks = [PACKET, answer]
    answers = RtspAnswers(lambda: chunks.pop(0) if chunks else b"")
    assert answers.read() == PACKET

    with pytest.raises(SourceError):
        answers.read()
