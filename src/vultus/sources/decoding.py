"""Decoding of one source with FFmpeg: which formats and protocols are read, and frames as JPEG."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from contextlib import contextmanager
from functools import cache
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import urlsplit

import av
import av.error
import av.logging
import numpy as np
import simplejpeg
from av.codec import Codec
from av.codec.hwaccel import HWAccel
from av.stream import Discard, Disposition
from av.video.reformatter import Colorspace, VideoReformatter

from vultus.domain.source_addresses import AllowedSources, SourceAddress, SourceKind
from vultus.domain.sources import SourceProblem
from vultus.sources.connections import SLOW_S, Patience, SourceError, build_opener, describe_failure, open_http
from vultus.sources.rtsp import RtspRelay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.plane import VideoPlane
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from vultus.sources.connections import HttpBody

FILE_FORMATS = "mov,matroska,mpegts,mpeg,avi,flv,h264,hevc,mjpeg,mpjpeg,ivf,ogg"
"""Formats that contain their video: no playlist, no script, nothing that names other files."""

PLAYLIST_FORMATS = "hls,mpegts,mov,aac,mp3,ac3,eac3,webvtt"
"""Playlists, and the formats of their segments: a script among these would be followed by FFmpeg's own connections."""

MAX_PIXELS = 8192 * 4608
"""Of a frame, more than 8K has: an empty one of the largest that a video can name fills the memory."""

MAX_STREAMS = 64
"""Of a video."""

PLAYLIST_TYPES = frozenset({"application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl"})
MULTIPART_TYPE = "multipart/x-mixed-replace"
MAX_BAD_PACKETS = 250
"""Packets that cannot be decoded, one after another, before a source counts as lost."""

JPEG_QUALITY = 88
KEYFRAMES: Final = "NONKEY"
EVERY_FRAME: Final = "DEFAULT"

log = logging.getLogger(__name__)

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
        self._patience = Patience(open_timeout_s, read_timeout_s)
        self._hardware = HWAccel(hardware) if hardware and _can_decode_on(hardware) else None
        self._relay: RtspRelay | None = None
        self._opened: list[HttpBody | IO[bytes]] = []
        self._container: InputContainer | None = None
        self._last_keyframe_at: float | None = None
        self.keyframe_interval_s = 0.0
        self.comes_in_bursts = address.kind is SourceKind.FILE
        self._wanted_skip: Literal["NONKEY", "DEFAULT"] = EVERY_FRAME
        try:
            with self._translate_errors():
                self._container = self._open_container()
                self._stream = _choose_stream(self._container)
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
                path = self._resolve_path()
                self._open_path(path, stat.S_ISCHR).close()
                return self._open(path, "v4l2", {"format_whitelist": "video4linux2,v4l2"})
            case SourceKind.FILE:
                file = self._open_path(self._resolve_path(), stat.S_ISREG)
                self._opened.append(file)
                return self._open(file, None, {"format_whitelist": FILE_FORMATS})

    def _open(self, source: Any, form: str | None, options: dict[str, str], **more: Any) -> InputContainer:
        opened: InputContainer = av.open(
            source,
            format=form,
            options={
                "protocol_whitelist": "",
                "max_streams": str(MAX_STREAMS),
                "max_pixels": str(MAX_PIXELS),  # for the decoders that look into what the streams are
                **options,
            },
            timeout=(self._patience.open_timeout_s, self._patience.read_timeout_s),
            hwaccel=self._hardware,
            **more,
        )
        return opened

    def _resolve_path(self) -> str:
        """Return what the path of a file or device leads to.

        Raises:
            SourceError: It leads nowhere, or to something that is not allowed.
        """
        try:
            path = os.path.realpath(self._address.location, strict=True)
        except OSError:
            raise SourceError(SourceProblem.UNREADABLE) from None
        if not self._allowed.permits_path(path):
            raise SourceError(SourceProblem.ADDRESS_NOT_ALLOWED)
        return path

    def _open_path(self, path: str, is_kind: Callable[[int], bool]) -> IO[bytes]:
        """Open what is at a path without links.

        Args:
            path: Where.
            is_kind: Tells of a mode whether it is of what is expected.

        Raises:
            SourceError: It is something else, or cannot be read.
        """
        try:
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0)
        except OSError:
            raise SourceError(SourceProblem.UNREADABLE) from None
        if not is_kind(os.fstat(file.fileno()).st_mode):
            file.close()
            raise SourceError(SourceProblem.UNREADABLE)
        return file

    def _open_rtsp(self) -> InputContainer:
        self._relay = RtspRelay(self._address, self._allowed, self._patience)
        user = f"{self._address.userinfo}@" if self._address.userinfo else ""
        url = urlsplit(self._address.location)
        url = url._replace(scheme="rtsp", netloc=f"{user}127.0.0.1:{self._relay.port}", path=url.path or "/")
        options = {
            "rtsp_transport": "tcp",
            "protocol_whitelist": "rtsp,tcp,rtp",
            "allowed_media_types": "video",
            "fflags": "nobuffer",
            "max_delay": "500000",
            "analyzeduration": "3000000",
        }
        return self._open(url.geturl(), "rtsp", options)

    def _open_http(self) -> InputContainer:
        opener = build_opener(self._address, self._allowed, self._patience)

        def open_part(url: str, _flags: int = 0, _options: object = None) -> HttpBody:
            if not url.startswith(("http://", "https://")):
                raise SourceError(SourceProblem.ADDRESS_NOT_ALLOWED)
            return open_http(opener, url)

        body = open_http(opener, self._address.location)
        self._opened.append(body)
        is_playlist = self._address.location.partition("?")[0].endswith((".m3u8", ".m3u"))
        if body.media_type in PLAYLIST_TYPES or is_playlist:
            body.close()
            self.comes_in_bursts = True
            # Without connections that FFmpeg would keep open by itself.
            options = {
                "http_persistent": "0",
                "http_multiple": "0",
                "protocol_whitelist": "http,https",
                "format_whitelist": PLAYLIST_FORMATS,
            }
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
            if self._address.kind is SourceKind.FILE and problem is not SourceProblem.UNREADABLE:
                problem = SourceProblem.NO_VIDEO  # it has no host that could be at fault
            raise SourceError(problem) from None

    def decode_frames(self) -> Iterator[VideoFrame]:
        """Yield every frame, as it comes.

        Raises:
            SourceError: The source ended: a camera closed the connection, a file is finished.
        """
        container = self._container
        if container is None:
            return
        is_file = self._address.kind is SourceKind.FILE
        bad, last_at, is_seen = 0, time.monotonic(), False
        packets = container.demux(self._stream)
        while True:
            with self._translate_errors():
                self._patience.renew()
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
                    if bad > MAX_BAD_PACKETS and not is_file:
                        raise
            if frames:
                yield from frames
                last_at, is_seen = time.monotonic(), True
            elif time.monotonic() - last_at > max(SLOW_S, 3 * self.keyframe_interval_s):
                raise SourceError(SourceProblem.NO_VIDEO)
        if is_file:
            raise SourceError(SourceProblem.FINISHED if is_seen else SourceProblem.NO_VIDEO)
        raise SourceError(SourceProblem.CLOSED)

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


@cache
def _can_decode_on(hardware: str) -> bool:
    """Return whether this machine has a device of a kind; if not, the log says so."""
    try:
        HWAccel(hardware).create(Codec("h264", "r"))
    except (NotImplementedError, OSError, av.error.FFmpegError) as error:
        log.warning("No device decodes video by %s (%s); the processor does.", hardware, type(error).__name__)
        return False
    return True


def _choose_stream(container: InputContainer) -> VideoStream:
    """Return the video of a container, and let its other streams be skipped.

    Raises:
        SourceError: It has none: the cover of a piece of music is none.
    """
    videos = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not videos:
        raise SourceError(SourceProblem.NO_VIDEO)
    best = container.streams.best("video")
    chosen = next((one for one in videos if one is best), videos[0])
    for one in container.streams:
        if one is not chosen:
            one.discard = Discard.all
    context = chosen.codec_context
    context.thread_count = 1  # there are other sources, and threads would delay frames
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return chosen


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
