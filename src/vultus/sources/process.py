"""A process that decodes sources: a thread each, and the newest frame of each for whoever asks.

Started as `python -m vultus.sources.process`, with a socket as standard input. It ends when that is closed.
"""

from __future__ import annotations

import os
import random
import resource
import socket
import sys
import threading
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn

import msgspec

from vultus.domain.source_addresses import AllowedSources, SourceAddress, SourceKind
from vultus.domain.sources import SourceProblem
from vultus.sources.connections import SourceError
from vultus.sources.decoding import JpegEncoder, VideoReader
from vultus.sources.messages import (
    LENGTH_HEADER,
    MAX_MESSAGE_BYTES,
    CloseSource,
    Command,
    FrameTaken,
    Notice,
    OpenSource,
    Permit,
    Ping,
    Pong,
    RequestFrame,
    SourceLostNotice,
    decode_command,
    encode_message,
)
from vultus.utils.confinement import confine_process
from vultus.utils.processes import name_process
from vultus.utils.sandbox import restrict_calls, restrict_files

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

FIRST_DELAY_S, MAX_DELAY_S = 1.0, 30.0
"""Pauses before a source is opened again: doubled up to the longest, each ± a quarter."""

STEADY_S = 2.0
"""After a source has sent frames for so long, the first pause is short again."""

MAX_GAP_S = 5.0
"""A jump in the times of a video, beyond which it is not waited for."""

DECODING_BYTES = 2 * 2**30

MAX_DESCRIPTORS = 512

SYSTEM_PATHS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/nix", "/gnu", "/proc", "/sys")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/dri")


class Connection:
    """The socket to the server."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._stream = connection.makefile("rb")
        self._lock = threading.Lock()

    def send(self, notice: Notice) -> None:
        """Send a notice; end the process if nobody receives it."""
        message = encode_message(notice)
        try:
            with self._lock:
                self._socket.sendall(message)
        except OSError:
            end_process(0)

    def receive(self) -> Command | None:
        """Return the next command; None at the end."""
        head = self._stream.read(LENGTH_HEADER.size)
        if len(head) < LENGTH_HEADER.size:
            return None
        (length,) = LENGTH_HEADER.unpack(head)
        command: Command = decode_command(self._stream.read(min(length, MAX_MESSAGE_BYTES)))
        return command


class PlayClock:
    """Plays a video at the pace at which it was taken."""

    def __init__(self) -> None:
        self._begun_at: float | None = None

    def sleep_until(self, position_s: float, closed: threading.Event) -> None:
        """Sleep until a frame is due; where the clock and the video are far apart, it begins anew."""
        now = time.monotonic()
        if self._begun_at is None or abs(self._begun_at + position_s - now) > MAX_GAP_S:
            self._begun_at = now - position_s
        closed.wait(max(0.0, self._begun_at + position_s - now))


class SourceThread:
    """Opens one source, decodes it, and opens it again when it is lost."""

    def __init__(self, opening: OpenSource, allowed: AllowedSources, connection: Connection) -> None:
        self._opening = opening
        self._allowed = allowed
        self._connection = connection
        self._address = SourceAddress.from_text(opening.address)
        self._encoder = JpegEncoder(opening.max_side_px)
        self._changed = threading.Condition()
        self._is_requested = False
        self._is_unencodable = False
        self._interval_s = 0.0
        self._seen_at: float | None = None
        self._newest: tuple[VideoFrame, FrameTaken] | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._run, name=f"source-{opening.number}", daemon=True).start()

    def request_frame(self, interval_s: float) -> None:
        """Let the newest frame be sent, or the next one if it was sent already."""
        with self._changed:
            self._is_requested = True
            self._interval_s = interval_s
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread, at the latest after its timeouts."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()

    def _run(self) -> None:
        threading.Thread(target=self._send_requested, name=f"frames-{self._opening.number}", daemon=True).start()
        delay_s = FIRST_DELAY_S
        while not self._closed.is_set():
            self._seen_at = None
            problem = self._decode_until_lost()
            if self._closed.is_set():
                break
            with self._changed:
                self._newest = None
            self._connection.send(SourceLostNotice(self._opening.number, problem))
            if problem is SourceProblem.FINISHED:
                break
            if self._seen_at is not None and time.monotonic() - self._seen_at > STEADY_S:
                delay_s = FIRST_DELAY_S
            with self._changed:
                self._changed.wait_for(lambda: self._closed.is_set(), delay_s * random.uniform(0.75, 1.25))  # noqa: S311
            delay_s = min(2 * delay_s, MAX_DELAY_S)
        self.close()

    def _decode_until_lost(self) -> SourceProblem:
        opening = self._opening
        try:
            with VideoReader(
                self._address,
                self._allowed,
                open_timeout_s=opening.open_timeout_s,
                read_timeout_s=opening.read_timeout_s,
                hardware=opening.hardware,
            ) as reader:
                self._decode_frames(reader)
        except SourceError as error:
            if error.problem is SourceProblem.FINISHED and self._waits:
                with self._changed:  # its last frame is sent before its end is told
                    self._changed.wait_for(lambda: self._newest is None or self._closed.is_set())
            return error.problem
        except Exception as error:  # noqa: BLE001  the other sources of this process go on
            _report_defect(error)
            return SourceProblem.NO_VIDEO
        return SourceProblem.CLOSED

    def _decode_frames(self, reader: VideoReader) -> None:
        opening, waits = self._opening, self._waits
        clock = PlayClock() if reader.comes_in_bursts and not waits else None
        next_s, first_s = 0.0, None
        for frames, frame in enumerate(reader.decode_frames(), 1):
            position_s: float = frames / 25 if frame.pts is None else frame.time
            first_s = position_s if first_s is None else first_s
            position_s -= first_s
            self._seen_at = self._seen_at or time.monotonic()
            if clock is not None:
                clock.sleep_until(position_s, self._closed)
            if self._closed.is_set():
                return
            if waits and position_s + 1e-3 < next_s:
                continue
            next_s = position_s + opening.interval_s
            size = (frame.width, frame.height)
            taken = FrameTaken(opening.number, b"", position_s, time.time(), *size, frames, reader.duration_s)
            self._offer_frame(frame, taken)
            if clock is None and not waits:
                reader.set_pace(self._interval_s)

    @property
    def _waits(self) -> bool:
        """Whether frames wait until they are asked for, and none is dropped."""
        return self._address.kind is SourceKind.FILE and not self._opening.is_played

    def _offer_frame(self, frame: VideoFrame, taken: FrameTaken) -> None:
        """Put a frame into the slot: in place of one that nobody asked for, or after it was sent."""
        with self._changed:
            if self._waits:
                self._changed.wait_for(lambda: self._newest is None or self._closed.is_set())
            if self._is_unencodable:
                self._is_unencodable = False
                raise SourceError(SourceProblem.NO_VIDEO)
            self._newest = frame, taken
            self._changed.notify_all()

    def _send_requested(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed.is_set() or (self._is_requested and self._newest is not None)
                )
                if self._closed.is_set() or self._newest is None:
                    return
                newest, self._is_requested = self._newest, False
            frame, taken = newest
            try:
                content = self._encoder.encode_frame(frame)
            except Exception as error:  # noqa: BLE001  whatever the frame is
                _report_defect(error)
                with self._changed:  # the request is still to be answered, the next frame ends the source
                    self._is_unencodable = self._is_requested = True
            else:
                self._connection.send(msgspec.structs.replace(taken, content=content))
            with self._changed:
                if self._newest is newest:
                    self._newest = None
                    self._changed.notify_all()
            del frame, newest


def shut_in(allowed: AllowedSources, writable: tuple[str, ...]) -> None:
    """Leave to this process the Internet, its program, and the files that it may open.

    Not the folder with the key file, nor the socket of the database, which the service's user can reach.
    """
    paths = [one for one in allowed.entries if one.startswith("/")]
    graphics = map(str, Path("/dev").glob("nvidia*"))
    devices = ["/dev"] if any(PurePosixPath(one).is_relative_to("/dev") for one in paths) else []
    linked = [os.path.realpath(one) for one in ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")]
    named = [os.environ[one] for one in ("SSL_CERT_FILE", "SSL_CERT_DIR") if one in os.environ]
    program = [one for one in {sys.prefix, sys.base_prefix, *sys.path} if one and Path(one).exists()]
    restrict_files([*SYSTEM_PATHS, *linked, *named, *program, *paths], [*DEVICES, *graphics, *devices, *writable])
    restrict_calls()


def run_decoder(connection: Connection) -> None:
    """Obey commands until the server closes the socket."""
    permit = connection.receive()
    if not isinstance(permit, Permit):
        return
    allowed = AllowedSources(permit.allowed)
    shut_in(allowed, permit.writable)
    sources: dict[int, SourceThread] = {}
    while (command := connection.receive()) is not None:
        match command:
            case OpenSource():
                sources[command.number] = SourceThread(command, allowed, connection)
            case RequestFrame() if command.number in sources:
                sources[command.number].request_frame(command.interval_s)
            case CloseSource() if command.number in sources:
                sources.pop(command.number).close()
            case Ping():
                connection.send(Pong())
            case _:
                pass


def end_process(status: int) -> NoReturn:
    """End at once: threads may be waiting for cameras."""
    os._exit(status)


def _report_defect(error: BaseException) -> None:
    """Write where a defect is, without its text, which may have an address."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
    sys.stderr.write(f"decoding of sources failed: {type(error).__name__} in {place}\n")
    sys.stderr.flush()


def _end_for_defect(arguments: threading.ExceptHookArgs) -> NoReturn:
    """Report a defect, and end: the server starts another process."""
    if arguments.exc_value is not None:
        _report_defect(arguments.exc_value)
    end_process(1)


def main() -> NoReturn:
    """Run a process that decodes."""
    name_process("vultus-decoder")
    threading.excepthook = _end_for_defect
    confine_process(decoding_bytes=DECODING_BYTES)
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if limit == resource.RLIM_INFINITY else min(MAX_DESCRIPTORS, limit)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    connection = Connection(socket.socket(fileno=0))
    try:
        run_decoder(connection)
    except BaseException as error:  # noqa: BLE001  the process ends
        _report_defect(error)
        end_process(1)
    end_process(0)


if __name__ == "__main__":
    main()
