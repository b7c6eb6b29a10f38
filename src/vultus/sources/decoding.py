"""Decoding of one source with FFmpeg: which formats and protocols are read, and frames as JPEG."""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Self

import av
import av.error
import av.logging
import numpy as np
import simplejpeg
from av.codec.hwaccel import HWAccel
from av.video.reformatter import Colorspace, VideoReformatter

from vultus.domain.source_addresses import AllowedSources, SourceAddress, SourceKind
from vultus.domain.sources import SourceProblem
from vultus.sources.connections import RtspRelay, SourceError, build_opener, describe_failure, open_http

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.plane import VideoPlane
    from numpy.typing import NDArray

    from vultus.sources.connections import HttpBody

FILE_FORMATS = "mov,matroska,mpegts,mpeg,avi,flv,h264,hevc,mjpeg,mpjpeg,ivf,ogg"
"""Formats that contain their video: no playlist, no script, nothing that names other files."""

PLAYLIST_TYPES = frozenset({"application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl"})
MULTIPART_TYPE = "multipart/x-mixed-replace"
MAX_BAD_PACKETS = 250
"""Packets that cannot be decoded, one after another, before a source counts as lost."""

JPEG_QUALITY = 88
KEYFRAMES: Final = "NONKEY"
EVERY_FRAME: Final = "DEFAULT"

av.logging.set_level(None)  # FFmpeg's messages contain addresses, passwords among them


class VideoReader:
    """An open source.

    Attributes:
        comes_in_bursts: Whether frames come faster than they were taken, as from files and the segments of a playlist.
        keyframe_interval_s: Time between the last two key frames; 0 until it is known.

    Args:
        address: Where it is.
        allowed: What may be opened.
        open_timeout_s: Longest time until it has answered.
        read_timeout_s: Longest time without data.
        hardware: Kind of device that decodes; None for the CPU. Where it cannot, the CPU does.

    Raises:
        SourceError: It cannot be opened.
    """

    def __init__(
        self,
        address: SourceAddress,
        allowed: AllowedSources,
        *,
        open_timeout_s: float,
        read_timeout_s: float,
        hardware: str | None = None,
    ) -> None:
        self._address = address
        self._allowed = allowed
        self._open_timeout_s = open_timeout_s
        self._read_timeout_s = read_timeout_s
        self._hardware = HWAccel(hardware, allow_software_fallback=True) if hardware else None
        self._relay: RtspRelay | None = None
        self._opened: list[HttpBody | IO[bytes]] = []
        self._container: InputContainer | None = None
        self._started_at = time.monotonic()
        self._last_keyframe_at: float | None = None
        self.keyframe_interval_s = 0.0
        self.comes_in_bursts = address.kind is SourceKind.FILE
        self._wanted_skip: Literal["NONKEY", "DEFAULT"] = EVERY_FRAME
        try:
            with self._translate_errors():
                self._container = self._open_container()
                if not self._container.streams.video:
                    raise SourceError(SourceProblem.NO_VIDEO)
                self._stream = self._container.streams.video[0]
                self._stream.codec_context.thread_count = 1  # there are other sources, and threads would delay frames
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def duration_s(self) -> float | None:
        """Length of the video; None for a camera."""
        duration = self._container.duration if self._container else None
        return duration / av.time_base if duration and self._address.kind is SourceKind.FILE else None

    def _open_container(self) -> InputContainer:
        match self._address.kind:
            case SourceKind.RTSP:
                return self._open_rtsp()
            case SourceKind.HTTP:
                return self._open_http()
            case SourceKind.DEVICE:
                self._open_path(is_device=True).close()
                options = {"format_whitelist": "video4linux2,v4l2", "protocol_whitelist": ""}
                return self._open(self._address.location, "v4l2", options)
            case SourceKind.FILE:
                file = self._open_path(is_device=False)
                self._opened.append(file)
                return self._open(file, None, {"format_whitelist": FILE_FORMATS})

    def _open(self, source: Any, form: str | None, options: dict[str, str], **more: Any) -> InputContainer:
        opened: InputContainer = av.open(
            source,
            format=form,
            options={"protocol_whitelist": "", **options},
            timeout=(self._open_timeout_s, self._read_timeout_s),
            hwaccel=self._hardware,
            **more,
        )
        return opened

    def _open_path(self, *, is_device: bool) -> IO[bytes]:
        """Open a file, or check a device, by what its path leads to.

        Raises:
            SourceError: It is none, cannot be read, or its path leads to something that is not allowed.
        """
        try:
            path = os.path.realpath(self._address.location, strict=True)
            if not self._allowed.permits_path(path):
                raise SourceError(SourceProblem.ADDRESS_NOT_ALLOWED)
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0)
        except OSError:
            raise SourceError(SourceProblem.UNREADABLE) from None
        kind = stat.S_ISCHR if is_device else stat.S_ISREG
        if not kind(os.fstat(file.fileno()).st_mode):
            file.close()
            raise SourceError(SourceProblem.UNREADABLE)
        return file

    def _open_rtsp(self) -> InputContainer:
        self._relay = RtspRelay(self._address, self._allowed, open_timeout_s=self._open_timeout_s)
        path = self._address.location.partition("://")[2].partition("/")[2]
        user = f"{self._address.userinfo}@" if self._address.userinfo else ""
        options = {
            "rtsp_transport": "tcp",
            "protocol_whitelist": "rtsp,tcp,rtp",
            "allowed_media_types": "video",
            "fflags": "nobuffer",
            "max_delay": "500000",
            "analyzeduration": "3000000",
        }
        return self._open(f"rtsp://{user}127.0.0.1:{self._relay.port}/{path}", "rtsp", options)

    def _open_http(self) -> InputContainer:
        opener = build_opener(self._address, self._allowed, self._read_timeout_s)

        def open_part(url: str, _flags: int = 0, _options: object = None) -> HttpBody:
            if not url.startswith(("http://", "https://")):
                raise SourceError(SourceProblem.ADDRESS_NOT_ALLOWED)
            return open_http(opener, url, self._read_timeout_s)

        body = open_http(opener, self._address.location, self._open_timeout_s)
        self._opened.append(body)
        is_playlist = self._address.location.partition("?")[0].endswith((".m3u8", ".m3u"))
        if body.media_type in PLAYLIST_TYPES or is_playlist:
            body.close()
            self.comes_in_bursts = True
            # Without connections that FFmpeg would keep open by itself.
            options = {"http_persistent": "0", "http_multiple": "0", "protocol_whitelist": "http,https"}
            return self._open(self._address.location, "hls", options, io_open=open_part)
        form = "mpjpeg" if body.media_type == MULTIPART_TYPE else None
        return self._open(body, form, {"format_whitelist": FILE_FORMATS})

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise what FFmpeg raises without its text, which has the address."""
        try:
            yield
        except SourceError:
            raise
        except Exception as error:  # noqa: BLE001  whatever FFmpeg raises
            problem = self._relay.problem if self._relay and self._relay.problem else _find_problem(error)
            raise SourceError(problem) from None

    def decode_frames(self) -> Iterator[VideoFrame]:
        """Yield every frame, as it comes.

        Raises:
            SourceError: The source ended: a camera closed the connection, a file is finished.
        """
        container = self._container
        if container is None:
            return
        bad = 0
        packets = container.demux(self._stream)
        while True:
            with self._translate_errors():
                packet = next(packets, None)
                if packet is None:
                    break
                if packet.is_keyframe:
                    self._note_keyframe()
                try:
                    frames = packet.decode()
                    bad = 0
                except av.error.InvalidDataError:
                    frames, bad = [], bad + 1
                    if bad > MAX_BAD_PACKETS:
                        raise
            yield from frames
        is_file = self._address.kind is SourceKind.FILE
        raise SourceError(SourceProblem.FINISHED if is_file else SourceProblem.CLOSED)

    def set_pace(self, interval_s: float) -> None:
        """Set how often a frame is needed: if key frames come as often, the others are not decoded."""
        is_enough = 0 < self.keyframe_interval_s <= interval_s * 1.05
        self._wanted_skip = KEYFRAMES if is_enough else EVERY_FRAME

    def _note_keyframe(self) -> None:
        now = time.monotonic()
        if self._last_keyframe_at is not None:
            self.keyframe_interval_s = now - self._last_keyframe_at
        self._last_keyframe_at = now
        # Only here: a frame between cannot be decoded without those before it.
        if self._stream.codec_context.skip_frame != self._wanted_skip:
            self._stream.codec_context.skip_frame = self._wanted_skip

    def close(self) -> None:
        """Close whatever is open."""
        if self._relay is not None:
            self._relay.close()
        if self._container is not None:
            self._container.close()
        for one in self._opened:
            one.close()


def _find_problem(error: Exception) -> SourceProblem:
    """Return why FFmpeg failed."""
    by_kind: dict[type[BaseException], SourceProblem] = {
        av.error.HTTPUnauthorizedError: SourceProblem.UNAUTHORIZED,
        av.error.HTTPForbiddenError: SourceProblem.UNAUTHORIZED,
        av.error.HTTPNotFoundError: SourceProblem.NOT_FOUND,
        av.error.HTTPClientError: SourceProblem.NOT_FOUND,
        av.error.ExitError: SourceProblem.TIMEOUT,
        av.error.TimeoutError: SourceProblem.TIMEOUT,
        av.error.EOFError: SourceProblem.CLOSED,
        av.error.InvalidDataError: SourceProblem.NO_VIDEO,
        av.error.FileNotFoundError: SourceProblem.UNREADABLE,
    }
    for kind, problem in by_kind.items():
        if isinstance(error, kind):
            return problem
    if isinstance(error, OSError) and error.errno in {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EBUSY}:
        return SourceProblem.UNREADABLE
    if isinstance(error, av.error.FFmpegError) and not isinstance(error, OSError):
        return SourceProblem.NO_VIDEO
    return describe_failure(error)


class JpegEncoder:
    """Scales frames down and encodes them.

    Args:
        max_side_px: Longer side of the pictures, at most.
    """

    def __init__(self, max_side_px: int) -> None:
        self._max_side_px = max_side_px
        self._reformatter = VideoReformatter()

    def encode_frame(self, frame: VideoFrame) -> bytes:
        """Return a frame as JPEG, upright, its longer side at most `max_side_px`."""
        scale = min(1.0, self._max_side_px / max(frame.width, frame.height))
        width, height = (max(2, round(side * scale / 2) * 2) for side in (frame.width, frame.height))
        small = self._reformatter.reformat(
            frame, width, height, "yuvj420p", dst_colorspace=Colorspace.ITU601, interpolation="AREA"
        )
        turns = round(frame.rotation / 90) % 4
        planes = [np.ascontiguousarray(np.rot90(_view_plane(plane), turns)) for plane in small.planes]
        return bytes(simplejpeg.encode_jpeg_yuv_planes(*planes, quality=JPEG_QUALITY))


def _view_plane(plane: VideoPlane) -> NDArray[np.uint8]:
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]
