"""A small RTSP server (RFC 2326): one H.264 video over interleaved RTP (RFC 6184), again and again; Basic passwords."""

from __future__ import annotations

import base64
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from vultus.domain import Pixels

MAX_PAYLOAD = 1400


def encode_access_units(pictures: list[Pixels]) -> list[list[bytes]]:
    """Return the NAL units of each picture."""
    codec: Any = av.CodecContext.create("libx264", "w")
    codec.height, codec.width = pictures[0].shape[:2]
    codec.pix_fmt, codec.time_base = "yuv420p", Fraction(1, 25)
    codec.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "keyint=10:repeat-headers=1"}
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
    for number, frame in enumerate(frames):
        frame.pts = number
    packets = [packet for frame in [*frames, None] for packet in codec.encode(frame)]
    return [
        [unit.rstrip(b"\0") for unit in bytes(packet).replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
        for packet in packets
    ]


def packetize(units: list[bytes], timestamp: int, numbers: Iterator[int]) -> Iterator[bytes]:
    """Yield the RTP packets of a picture, large units in fragments (FU-A)."""
    for unit_at, unit in enumerate(units):
        pieces = [unit]
        if len(unit) > MAX_PAYLOAD:
            body = [unit[1 + begin : 1 + begin + MAX_PAYLOAD] for begin in range(0, len(unit) - 1, MAX_PAYLOAD)]
            pieces = [
                bytes([unit[0] & 0xE0 | 28, (number == 0) << 7 | (number == len(body) - 1) << 6 | unit[0] & 0x1F])
                + part
                for number, part in enumerate(body)
            ]
        for number, piece in enumerate(pieces):
            is_last = unit_at == len(units) - 1 and number == len(pieces) - 1
            head = struct.pack(">BBHII", 0x80, is_last << 7 | 96, next(numbers) & 0xFFFF, timestamp & 0xFFFFFFFF, 1)
            yield head + piece


class RtspServer:
    """Serves pictures on 127.0.0.1.

    Args:
        pictures: Of one size.
        password: `user:password` that it requires.
        raw: What it answers OPTIONS with, as it is.
        tls: Its certificate; None for no encryption.

    Attributes:
        connections: How many were opened.
    """

    def __init__(
        self,
        pictures: list[Pixels],
        *,
        password: str | None = None,
        raw: bytes | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.connections = 0
        self._raw = raw
        self._tls = tls
        self._units = encode_access_units(pictures)
        self._password = password
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._answer_requests(connection)

    def _answer_requests(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                method, url = line.decode().split()[:2]
                fields = {}
                while (field := stream.readline().decode().strip()) != "":
                    name, _, value = field.partition(":")
                    fields[name.lower()] = value.strip()
                answer = self._raw if method == "OPTIONS" else None
                connection.sendall(answer or self._answer(method, url, fields))
                if method == "PLAY":
                    self._play(connection)

    def _answer(self, method: str, url: str, fields: dict[str, str]) -> bytes:
        lines, body = ["RTSP/1.0 200 OK"], ""
        wanted = self._password and "Basic " + base64.b64encode(self._password.encode()).decode()
        if method == "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif wanted and fields.get("authorization") != wanted:
            lines = ["RTSP/1.0 401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"']
        elif method == "DESCRIBE":
            body = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
                "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
            )
            lines += ["Content-Type: application/sdp", f"Content-Base: {url}/", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            lines += ["Session: 1", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1"]
        else:
            lines.append("Session: 1")
        return "\r\n".join([*lines, f"CSeq: {fields.get('cseq')}", "", body]).encode()

    def _play(self, connection: socket.socket) -> None:
        numbers = iter(range(10**9))
        for picture in range(10**9):
            for packet in packetize(self._units[picture % len(self._units)], picture * 3600, numbers):
                connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
            time.sleep(0.04)
