"""Video files: frames in order, at the pace that was asked for; what is no video; a process that dies."""

from __future__ import annotations

import asyncio
import io
import os
import queue
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.sources.conftest import OpenFeed, paint
from tests.videos import write_video
from vultus.domain.source_addresses import AllowedSources, SourceAddress
from vultus.domain.sources import SourceProblem
from vultus.sources.decoding import JpegEncoder, VideoReader
from vultus.sources.messages import FrameTaken, Notice, OpenSource, SourceLostNotice
from vultus.sources.pool import DecoderPool, SourceFeed, SourceOpening
from vultus.sources.process import SourceThread


async def collect_frames(feed: SourceFeed, count: int = 10_000) -> list[FrameTaken]:
    """Request frames until there are so many, or the source is finished."""
    frames = []
    for _ in range(count):
        feed.request_frame(0)
        notice = await asyncio.wait_for(feed.receive(), 20)
        if not isinstance(notice, FrameTaken):
            assert notice.problem is SourceProblem.FINISHED
            break
        frames.append(notice)
    return frames


async def receive_problem(feed: SourceFeed) -> SourceProblem:
    feed.request_frame(0)
    notice = await asyncio.wait_for(feed.receive(), 20)
    assert not isinstance(notice, FrameTaken)
    return notice.problem


def read_grey(frame: FrameTaken) -> float:
    with Image.open(io.BytesIO(frame.content)) as picture:
        return float(np.asarray(picture.convert("L")).mean())


async def test_frames_that_wait_come_in_order_at_the_interval_of_the_video(video: Path, open_feed: OpenFeed) -> None:
    frames = await collect_frames(open_feed(str(video), is_played=False, interval_s=0.2))

    assert [frame.position_s for frame in frames] == pytest.approx([0.2 * n for n in range(10)], abs=0.001)
    assert [read_grey(frame) for frame in frames] == pytest.approx([20 + 20 * n for n in range(10)], abs=3)
    assert frames[0].duration_s == pytest.approx(2.0, abs=0.1)


async def test_no_more_frames_come_than_are_received(video: Path, open_feed: OpenFeed) -> None:
    feed = open_feed(str(video), is_played=False, interval_s=0.04)

    for _ in range(5):
        feed.request_frame(0)
        assert isinstance(await asyncio.wait_for(feed.receive(), 20), FrameTaken)
        feed.request_frame(0)
        await asyncio.sleep(0.2)  # it has come, and nobody has received it

    assert feed._notices.qsize() == 1


async def test_a_played_file_drops_the_frames_that_nobody_asked_for(video: Path, open_feed: OpenFeed) -> None:
    feed = open_feed(str(video))

    (first,) = await collect_frames(feed, 1)
    await asyncio.sleep(1)
    (second,) = await collect_frames(feed, 1)

    assert 0.7 < second.position_s - first.position_s < 2


async def test_large_frames_are_scaled_down_and_say_what_they_were(tmp_path: Path, open_feed: OpenFeed) -> None:
    path = write_video(tmp_path / "large.mkv", [paint(1, width=1920, height=1080)])

    (frame,) = await collect_frames(open_feed(str(path), is_played=False, max_side_px=640))

    with Image.open(io.BytesIO(frame.content)) as picture:
        assert picture.size == (640, 360)
    assert (frame.width, frame.height) == (1920, 1080)


async def test_what_is_no_video_is_said_in_words_of_ours(tmp_path: Path, open_feed: OpenFeed) -> None:
    text = tmp_path / "video.mp4"
    text.write_bytes(b"not a video " * 1000)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{text}\n#EXT-X-ENDLIST\n")
    script = tmp_path / "script.ffconcat"
    script.write_text("ffconcat version 1.0\nfile video.mp4\n")

    for path in (text, playlist, script):
        assert await receive_problem(open_feed(str(path))) is SourceProblem.NO_VIDEO
    assert await receive_problem(open_feed(str(tmp_path / "none.mp4"))) is SourceProblem.UNREADABLE
    assert await receive_problem(open_feed(str(tmp_path))) is SourceProblem.UNREADABLE


async def test_a_link_out_of_the_allowed_folder_is_not_followed(
    video: Path, tmp_path: Path, open_feed: OpenFeed
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "link.mp4").symlink_to(video)
    (folder / "inside.mp4").write_bytes(video.read_bytes())

    assert await receive_problem(open_feed(str(folder / "link.mp4"), str(folder))) is SourceProblem.ADDRESS_NOT_ALLOWED
    assert await collect_frames(open_feed(str(folder / "inside.mp4"), str(folder)), 1)


async def test_a_process_that_dies_is_replaced_and_its_sources_come_back(
    video: Path, pool: DecoderPool, open_feed: OpenFeed
) -> None:
    feeds = [open_feed(str(video)) for _ in range(2)]
    await asyncio.gather(*(collect_frames(feed, 1) for feed in feeds))
    (pid,) = pool.pids

    os.kill(pid, signal.SIGKILL)

    assert [await receive_problem(feed) for feed in feeds] == [SourceProblem.DECODER_ENDED] * 2
    for feed in feeds:
        assert await collect_frames(feed, 1)
    assert pool.pids != [pid]


def test_a_defect_of_one_source_is_its_loss_alone(
    video: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    notices: queue.Queue[Notice] = queue.Queue()
    connection: Any = SimpleNamespace(send=notices.put)
    opening = OpenSource(1, str(video), (str(video.parent),), True, 0.2, 1280, 5.0, 2.0, None)

    def fail(*_: object) -> bytes:
        raise ZeroDivisionError(str(video))

    for owner, name in ((JpegEncoder, "encode_frame"), (VideoReader, "decode_frames")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, fail)
            source = SourceThread(opening, connection)
            source.request_frame(0)
            assert notices.get(timeout=20) == SourceLostNotice(1, SourceProblem.NO_VIDEO)
            source.close()

    written = capfd.readouterr().err
    assert "ZeroDivisionError in" in written
    assert str(video) not in written


async def test_processes_are_added_as_they_fill_and_end_with_their_sources(video: Path) -> None:
    pool = DecoderPool(sources_per_process=2)
    address = SourceAddress.from_text(str(video))
    feeds = [pool.open_feed(SourceOpening(address, AllowedSources.from_address(address))) for _ in range(3)]
    for feed in feeds:
        await collect_frames(feed, 1)
    pids = pool.pids
    assert len(pids) == 2

    await pool.close()

    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_source_that_is_closed_while_its_process_starts_leaves_none(
    video: Path, pool: DecoderPool, open_feed: OpenFeed
) -> None:
    feed = open_feed(str(video))
    process = feed._process
    await asyncio.sleep(0)  # the process is being started
    assert process._writer is None

    feed.close()

    assert process._task is not None
    ended, _ = await asyncio.wait({process._task}, timeout=10)
    assert ended
    assert pool.pids == []
