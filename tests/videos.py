"""Videos, written by PyAV while a test runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import av
from av.video.stream import VideoStream

from tests.clips import Clip
from vultus.domain import Pixels


def write_video(
    path: Path, pictures: Iterable[Pixels], *, fps: int = 25, codec: str = "libx264", gop: int = 25
) -> Path:
    """Write pictures of one size as a video; its container follows the name.

    Args:
        path: Where.
        pictures: (height, width, 3), RGB.
        fps: Pictures a second.
        codec: As FFmpeg names it.
        gop: Pictures from one key frame to the next.
    """
    with av.open(str(path), "w") as container:
        stream: VideoStream | None = None
        for picture in pictures:
            if stream is None:
                options = {"preset": "ultrafast"} if codec == "libx264" else {}
                stream = cast("VideoStream", container.add_stream(codec, rate=fps, options=options))
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p" if codec != "mjpeg" else "yuvj420p"
                stream.gop_size = gop
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())
    return path


def write_clip(path: Path, clip: Clip, *, fps: int = 25) -> Path:
    """Write a drawn clip as a video."""
    return write_video(path, (clip.draw(number / fps) for number in range(round(clip.seconds * fps))), fps=fps)
