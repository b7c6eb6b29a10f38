"""Messages between the server and the processes that decode: typed, validated when decoded, and never executed.

Addresses with passwords go this way alone, never in arguments or the environment, which others can read.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import msgspec

from vultus.domain.sources import SourceProblem

LENGTH_HEADER = struct.Struct("<I")
"""Precedes every message: its length in bytes."""

MAX_MESSAGE_BYTES = 64 * 2**20


class Permit(msgspec.Struct, frozen=True, tag=True):
    """What the process may open, for good: the first message.

    Attributes:
        allowed: Entries of `AllowedSources`.
        writable: Folders in which it may make files.
    """

    allowed: tuple[str, ...]
    writable: tuple[str, ...] = ()


class OpenSource(msgspec.Struct, frozen=True, tag=True):
    """Open a source, and again whenever it is lost.

    Attributes:
        number: Of the source, in this process.
        address: With user and password.
        is_played: Whether a file is played in real time; otherwise its frames wait until they are asked for, and none
            is dropped.
        interval_s: Time of the video between two frames, where they wait.
        max_side_px: Longer side of the frames that are sent.
        open_timeout_s: Longest time until it has answered.
        read_timeout_s: Longest time without data.
        hardware: Kind of device that decodes, as FFmpeg names it; None for the CPU.
    """

    number: int
    address: str
    is_played: bool
    interval_s: float
    max_side_px: int
    open_timeout_s: float
    read_timeout_s: float
    hardware: str | None = None


class RequestFrame(msgspec.Struct, frozen=True, tag=True):
    """Send the newest frame, once there is one that was not sent.

    Attributes:
        interval_s: When about the next one will be requested; of what is not needed until then, less may be decoded.
    """

    number: int
    interval_s: float


class CloseSource(msgspec.Struct, frozen=True, tag=True):
    """Close a source."""

    number: int


class Ping(msgspec.Struct, frozen=True, tag=True):
    """Answer, to show that the process runs."""


class FrameTaken(msgspec.Struct, frozen=True, tag=True):
    """A frame.

    Attributes:
        content: JPEG.
        position_s: In the video, seconds from its beginning.
        taken_at: When it was decoded, seconds since 1970.
        width: Of the video, pixels; the JPEG may be smaller.
        height: Of the video, pixels.
        frames: Frames that the video had until now, since it was opened.
        duration_s: Of the video; None for a camera.
    """

    number: int
    content: bytes
    position_s: float
    taken_at: float
    width: int
    height: int
    frames: int
    duration_s: float | None = None


class SourceLostNotice(msgspec.Struct, frozen=True, tag=True):
    """A source could not be opened, or sends nothing any more; it is tried again unless it is finished."""

    number: int
    problem: SourceProblem


class Pong(msgspec.Struct, frozen=True, tag=True):
    """The process runs."""


Command: TypeAlias = Permit | OpenSource | RequestFrame | CloseSource | Ping
Notice: TypeAlias = FrameTaken | SourceLostNotice | Pong

_encoder = msgspec.msgpack.Encoder()
decode_command = msgspec.msgpack.Decoder(Command).decode
decode_notice = msgspec.msgpack.Decoder(Notice).decode


def encode_message(message: Command | Notice) -> bytes:
    """Return a message with its length."""
    encoded = _encoder.encode(message)
    return LENGTH_HEADER.pack(len(encoded)) + encoded
