"""What does a camera of 1080p H.264 cost at 5 processed frames a second, and how many do the cores carry?

A drawn clip of two people stands for the cameras: each source plays it in real time, as the server would watch it, and
its newest frame is requested five times a second. Processor time is what the decoding processes used; the stages of a
frame are measured by themselves, on one thread.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import psutil
from tests.clips import ASTRONAUT, Clip, Walker, swing

from benchmarks.record import Measurement, compute_percentiles, render_table
from vultus.domain import Want
from vultus.domain.source_addresses import AllowedSources, SourceAddress
from vultus.models.pipeline import FacePipeline
from vultus.models.runtime import limit_threads
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings
from vultus.sources.decoding import KEYFRAMES, JpegEncoder
from vultus.sources.messages import FrameTaken
from vultus.sources.pool import DecoderPool, SourceOpening

SECONDS = 12.0
"""Of every number of sources, after two of warm-up."""

COUNTS = (1, 4, 8, 20)
VIDEO_FPS, FPS, KEYFRAME_S = 25, 5, 2
WIDTH, HEIGHT, BIT_RATE = 1920, 1080, 4_000_000
MAX_SIDE_PX = 1280
WARM_UP_S = 2.0
DRAWN_S = 4.0


def measure(seconds: float = SECONDS) -> list[Measurement]:
    """Return one line per stage of a frame, and one per number of sources."""
    limit_threads()
    with tempfile.TemporaryDirectory() as folder:
        print("sources: drawing the clip", flush=True)
        path = _write_video(Path(folder) / "camera.mp4", seconds + WARM_UP_S + 4)
        print("sources: stages", flush=True)
        lines = [*_measure_decoding(path), *_measure_frame(path)]
        for count in COUNTS:
            print(f"sources: {count}", flush=True)
            lines.append(asyncio.run(_measure_sources(path, count, seconds)))
    return [line | {"seconds": seconds} for line in lines]


def _write_video(path: Path, seconds: float) -> Path:
    """Write a clip as a camera would encode it: no B-frames, a key frame every two seconds."""
    walkers = (
        Walker(7, swing((700, 500), (400, 20), DRAWN_S), 200),
        Walker(ASTRONAUT, swing((1200, 560), (400, 20), DRAWN_S, 1.0), 220),
    )
    clip = Clip(walkers, DRAWN_S, WIDTH, HEIGHT)
    pictures = [clip.draw(number / VIDEO_FPS) for number in range(round(DRAWN_S * VIDEO_FPS))]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            "libx264", rate=VIDEO_FPS, options={"preset": "veryfast", "tune": "zerolatency"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate, stream.gop_size = BIT_RATE, KEYFRAME_S * VIDEO_FPS
        for picture in islice(cycle(pictures), round(seconds * VIDEO_FPS)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def _measure_decoding(path: Path) -> list[Measurement]:
    """Return what a second of video costs to decode: all of it, and its key frames alone."""
    lines = []
    for name, skip in (("decode 25 frames", "DEFAULT"), ("decode key frames alone", KEYFRAMES)):
        with av.open(str(path)) as container:
            stream: Any = container.streams.video[0]
            stream.codec_context.thread_count, stream.codec_context.skip_frame = 1, skip
            seconds = float(stream.duration * stream.time_base)
            started = time.thread_time()
            for _ in container.decode(stream):
                pass
            lines.append({"stage": name, "ms_per_s": (time.thread_time() - started) * 1e3 / seconds})
    return lines


def _measure_frame(path: Path) -> list[Measurement]:
    """Return what five frames cost to scale and encode, and to analyse."""
    encoder = JpegEncoder(MAX_SIDE_PX)
    with av.open(str(path)) as container:
        frames = list(islice(container.decode(video=0), 20))
    content, encode_ms = _time_calls(encoder.encode_frame, frames)
    pipeline = FacePipeline.load(InferenceSettings(), PhotoSettings(), WeightsStore(), pack="builtin")
    found, embed_ms = _time_calls(lambda frame: pipeline.analyze_photo(frame, Want(turned=False)), content)
    known = Want(turned=False, known_boxes=tuple(face.face.box for one in found for face in one.faces))
    _, known_ms = _time_calls(lambda frame: pipeline.analyze_photo(frame, known), content)
    _, empty_ms = _time_calls(
        lambda frame: pipeline.analyze_photo(frame, Want(turned=False)), [_draw_empty(encoder)] * len(content)
    )
    stages = {
        "scale and encode 5 frames": encode_ms,
        "analyse 5 frames, nobody there": empty_ms,
        "analyse 5 frames, two known faces": known_ms,
        "analyse 5 frames, two new faces": embed_ms,
    }
    size = sum(map(len, content)) // len(content)
    return [{"stage": name, "ms_per_s": FPS * ms, "frame_bytes": size} for name, ms in stages.items()]


def _draw_empty(encoder: JpegEncoder) -> bytes:
    """Return a frame without a face."""
    frame = av.VideoFrame.from_ndarray(Clip((), 1, WIDTH, HEIGHT).draw(0), format="rgb24")
    frame.pts, frame.time_base = 0, Fraction(1, VIDEO_FPS)
    return encoder.encode_frame(frame.reformat(format="yuv420p"))


def _time_calls(call: Any, values: list[Any]) -> tuple[list[Any], float]:
    """Return what calls return, and the milliseconds of processor time of one, the first not counted."""
    first = call(values[0])
    started = time.thread_time()
    rest = [call(value) for value in values[1:]]
    return [first, *rest], (time.thread_time() - started) * 1e3 / len(rest)


async def _measure_sources(path: Path, count: int, seconds: float) -> Measurement:
    pool = DecoderPool()
    address = SourceAddress.from_text(str(path))
    opening = SourceOpening(address, AllowedSources((str(path.parent),)), max_side_px=MAX_SIDE_PX)
    ages: list[list[float]] = [[] for _ in range(count)]
    try:
        tasks = [asyncio.create_task(_watch(pool, opening, own)) for own in ages]
        await asyncio.sleep(WARM_UP_S)
        for own in ages:
            own.clear()
        before, started = _read_processor_s(pool), time.monotonic()
        await asyncio.sleep(seconds)
        took, used = time.monotonic() - started, _read_processor_s(pool) - before
        frames = [len(own) for own in ages]
        memory = sum(psutil.Process(pid).memory_full_info().pss for pid in pool.pids) / 2**20
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await pool.close()
    return {
        "sources": count,
        "fps_mean": sum(frames) / count / took,
        "fps_least": min(frames) / took,
        "cores": used / took,
        "cores_per_source": used / took / count,
        "memory_mib": memory,
        **compute_percentiles([1e3 * age for own in ages for age in own] or [0.0]),
    }


async def _watch(pool: DecoderPool, opening: SourceOpening, ages: list[float]) -> None:
    """Request frames as the server does, and note how old each is when it comes."""
    feed = pool.open_feed(opening)
    try:
        while True:
            started = time.monotonic()
            feed.request_frame(1 / FPS)
            notice = await feed.receive()
            if not isinstance(notice, FrameTaken):
                return
            ages.append(time.time() - notice.taken_at)
            await asyncio.sleep(max(0.0, started + 1 / FPS - time.monotonic()))
    finally:
        feed.close()


def _read_processor_s(pool: DecoderPool) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pool.pids]
    return float(sum(one.user + one.system for one in times))


def render(lines: list[Measurement]) -> str:
    """Return the tables: where the time of one source goes, and what several take."""
    stages = [line for line in lines if "stage" in line]
    cost = {line["stage"]: line["ms_per_s"] for line in stages}
    rows = [(name, f"{ms:.0f}", f"{ms / 10:.1f}%") for name, ms in cost.items()]
    measured = [
        (
            line["sources"],
            f"{line['fps_mean']:.2f}",
            f"{line['fps_least']:.2f}",
            f"{line['cores']:.2f}",
            f"{line['cores_per_source'] * 1e3:.0f}",
            f"{line['p50_ms']:.0f}",
            f"{line['p95_ms']:.0f}",
            f"{line['memory_mib']:.0f}",
        )
        for line in lines
        if "sources" in line
    ]
    columns = ("sources", "frames/s each", "least", "cores", "ms per source and second", "p50 ms old", "p95", "MiB")
    source = cost["decode 25 frames"] + cost["scale and encode 5 frames"]
    sums = {
        name: source + cost[f"analyse 5 frames, {name}"]
        for name in ("nobody there", "two known faces", "two new faces")
    }
    carried = ", ".join(f"{2000 / ms:.0f} with {name}" for name, ms in sums.items())
    return (
        f"One source, milliseconds of one core for each second of {WIDTH}×{HEIGHT} H.264 at {VIDEO_FPS} frames a "
        f"second, {FPS} of them processed at {MAX_SIDE_PX} px ({stages[-1]['frame_bytes']:,} bytes each):\n\n"
        f"{render_table(('stage', 'ms per second', 'of a core'), rows)}\n\n"
        f"So two cores that do nothing else carry {carried}.\n\n"
        f"Decoding alone, several sources in real time:\n\n{render_table(columns, measured)}"
    )
