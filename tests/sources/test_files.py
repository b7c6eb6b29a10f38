"""Video files: frames in order, at the pace that was asked for; what is no video; a process that dies."""

from __future__ import annotations

import asyncio
import io
import os
import queue
import signal
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from tests.sources.conftest import OpenFeed, paint
from tests.videos import write_video
from vultus.domain.source_addresses import AllowedSources, SourceAddress
from vultus.domain.sources import SourceProblem
from vultus.sources import decoding, process
from vultus.sources.connections import SourceError
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


async def wait_for_frame(feed: SourceFeed) -> None:
    async with asyncio.timeout(20):
        feed.request_frame(0)
        while not isinstance(await feed.receive(), FrameTaken):
            pass


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

    assert len(feed._notices) == 1


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


@pytest.mark.parametrize(
    ("turn", "dark"), [((0, 1, -1, 0), "top"), ((-1, 0, 0, -1), "right"), ((0, -1, 1, 0), "bottom")]
)
async def test_a_video_that_was_taken_sideways_is_turned_upright(
    turn: tuple[int, ...], dark: str, tmp_path: Path, open_feed: OpenFeed
) -> None:
    picture = paint(50)
    picture[:, :160] = 0  # its left half is dark
    content = write_video(tmp_path / "video.mp4", [picture] * 5).read_bytes()
    matrix = content.index(struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), content.index(b"tkhd"))
    a, b, c, d = (value << 16 for value in turn)
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(content[:matrix] + turned + content[matrix + 36 :])

    (frame, *_) = await collect_frames(open_feed(str(path), is_played=False))

    with Image.open(io.BytesIO(frame.content)) as opened:
        pixels = np.asarray(opened.convert("L"), np.float32)
    halves = {"top": pixels[: len(pixels) // 2], "bottom": pixels[len(pixels) // 2 :]}
    halves |= {"left": pixels[:, : pixels.shape[1] // 2], "right": pixels[:, pixels.shape[1] // 2 :]}
    assert min(halves, key=lambda name: halves[name].mean()) == dark


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


async def test_an_empty_file_and_one_without_a_frame_are_no_videos(tmp_path: Path, open_feed: OpenFeed) -> None:
    (tmp_path / "empty.mp4").touch()
    written = write_video(tmp_path / "video.mkv", [paint(number) for number in range(50)])
    content = bytearray(written.read_bytes())
    for at in range(1000, len(content) - 200, 7):
        content[at] ^= 0xFF
    (tmp_path / "damaged.mkv").write_bytes(content)

    for name in ("empty.mp4", "damaged.mkv"):
        problem = await receive_problem(open_feed(str(tmp_path / name), is_played=False))
        assert problem is SourceProblem.NO_VIDEO, name


def write_cover(path: Path, pictures: int) -> Path:
    """A piece of music with a grey cover, or a video with one."""
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "rgb24"
        cover.disposition = Disposition.attached_pic
        sound: Any = container.add_stream("aac", rate=44100)
        video: Any = container.add_stream("libx264", rate=25) if pictures else None
        if video:
            video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        container.mux(cover.encode(av.VideoFrame.from_ndarray(paint(10, width=64, height=64), format="rgb24")))
        for number in range(pictures):
            container.mux(video.encode(av.VideoFrame.from_ndarray(paint(number), format="rgb24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        silence.rate = 44100
        container.mux(sound.encode(silence))
        for stream in (cover, sound, video):
            if stream:
                container.mux(stream.encode())
    return path


async def test_a_cover_is_no_video(tmp_path: Path, open_feed: OpenFeed) -> None:
    music = write_cover(tmp_path / "music.mp4", 0)
    film = write_cover(tmp_path / "film.mp4", 10)

    assert await receive_problem(open_feed(str(music), is_played=False)) is SourceProblem.NO_VIDEO
    (frame, *others) = await collect_frames(open_feed(str(film), is_played=False, interval_s=0.04))

    assert (frame.width, frame.height, len(others)) == (320, 240, 9)


def test_a_video_of_too_many_pixels_is_none(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 320 * 240 - 1)
    address = SourceAddress.from_text(str(video))

    reader = VideoReader(address, AllowedSources.from_address(address), open_timeout_s=5, read_timeout_s=5)
    with reader, pytest.raises(SourceError) as raised:
        list(reader.decode_frames())

    assert raised.value.problem is SourceProblem.NO_VIDEO


async def test_the_processor_decodes_where_there_is_no_device(video: Path, open_feed: OpenFeed) -> None:
    assert await collect_frames(open_feed(str(video), hardware="cuda"), 1)


def test_pauses_grow_however_long_an_attempt_takes(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notices: queue.Queue[Notice] = queue.Queue()
    connection: Any = SimpleNamespace(send=notices.put)

    def fail(*_: object, **__: object) -> None:
        time.sleep(0.03)
        raise SourceError(SourceProblem.TIMEOUT)

    monkeypatch.setattr(process, "VideoReader", fail)
    for name, value in {"FIRST_DELAY_S": 0.01, "STEADY_S": 0.02}.items():
        monkeypatch.setattr(process, name, value)

    source = SourceThread(OpenSource(1, str(video), True, 0.2, 1280, 5.0, 2.0), AllowedSources(), connection)
    time.sleep(1.5)
    source.close()

    assert 2 <= notices.qsize() <= 12


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


async def test_sources_of_a_process_that_ends_are_divided_until_the_one_at_fault_is_alone(
    video: Path, pool: DecoderPool, open_feed: OpenFeed
) -> None:
    feeds = [open_feed(str(video)) for _ in range(4)]
    for alone in (2, 1):
        await asyncio.gather(*map(wait_for_frame, feeds))
        others = {feed: feed.pid for feed in feeds if feed.process is not feeds[0].process}

        os.kill(feeds[0].pid, signal.SIGKILL)

        assert await receive_problem(feeds[0]) is SourceProblem.DECODER_ENDED
        assert len(feeds[0].process.feeds) == alone
        assert {feed: feed.pid for feed in others} == others
    later = open_feed(str(video))

    assert len(feeds[0].process.feeds) == 1
    await asyncio.gather(*map(wait_for_frame, [*feeds, later]))


async def test_what_a_decoder_sends_without_being_asked_is_not_kept(video: Path, open_feed: OpenFeed) -> None:
    feed = open_feed(str(video))
    frame = FrameTaken(1, b"jpeg", 0.0, 0.0, 320, 240, 1)

    for problem in (SourceProblem.CLOSED, SourceProblem.REFUSED) * 100:
        feed.handle_notice(frame)
        feed.handle_notice(SourceLostNotice(1, problem))

    assert len(feed._notices) == 1
    assert await receive_problem(feed) is SourceProblem.REFUSED


def test_a_defect_of_one_source_is_its_loss_alone(
    video: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    notices: queue.Queue[Notice] = queue.Queue()
    connection: Any = SimpleNamespace(send=notices.put)
    opening = OpenSource(1, str(video), True, 0.2, 1280, 5.0, 2.0, None)

    def fail(*_: object) -> bytes:
        raise ZeroDivisionError(str(video))

    for owner, name in ((JpegEncoder, "encode_frame"), (VideoReader, "decode_frames")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, fail)
            source = SourceThread(opening, AllowedSources((str(video.parent),)), connection)
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
    await asyncio.sleep(0)  # the process is being started
    assert feed.process._writer is None

    feed.close()

    assert feed.process._task is not None
    ended, _ = await asyncio.wait({feed.process._task}, timeout=10)
    assert ended
    assert pool.pids == []
