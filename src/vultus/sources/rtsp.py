"""RTSP: FFmpeg speaks it, to a relay that answers for where the connection leads, and for what comes back."""

from __future__ import annotations

import re
import select
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from vultus.domain.sources import SourceProblem
from vultus.sources.connections import CHUNK_BYTES, SourceError, connect_allowed, describe_failure

if TYPE_CHECKING:
    from vultus.domain.source_addresses import AllowedSources, SourceAddress
    from vultus.sources.connections import Patience

MAX_HEAD_BYTES, MAX_BODY_BYTES = 64 * 1024, 2**20
INTERLEAVED = b"$"[0]
MIN_PACKET_BYTES = 8
"""Of RTP and RTCP. FFmpeg takes shorter ones for the beginning of an answer."""

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_LINE_BREAK = re.compile(r"\r?\n")
_STATUS_LINE = re.compile(r"RTSP/[0-9.]+[ \t]+([0-9]{3})(?:[ \t]+([ -~]*))?")
_REQUEST_LINE = re.compile(r"([A-Z_]+)[ \t]+([!-~]+)[ \t]+RTSP/[0-9.]+")
_FIELD = re.compile(r"([A-Za-z0-9-]+)[ \t]*:[ \t]*([\t -~\xa0-\xff]*)")
_LENGTH = re.compile(r"[0-9]{1,8}")


class RtspRelay:
    """Passes on one RTSP connection between FFmpeg, on the loopback, and a camera.

    FFmpeg would follow a redirect to any host; an answer that redirects ends the connection.

    Attributes:
        port: On 127.0.0.1, for one connection.
        problem: Why it ended, if that is known.

    Args:
        address: The camera's.
        allowed: What may be connected to.
        patience: How long is waited until it answers.

    Raises:
        SourceError: It cannot be connected to.
    """

    def __init__(self, address: SourceAddress, allowed: AllowedSources, patience: Patience) -> None:
        self.problem: SourceProblem | None = None
        self._client: socket.socket | None = None
        self._timeout_s = patience.open_timeout_s
        self._camera = connect_allowed(address.host, address.port, allowed, patience)
        try:
            if address.is_encrypted:
                self._camera = ssl.create_default_context().wrap_socket(self._camera, server_hostname=address.host)
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        except OSError as error:
            self._camera.close()
            raise SourceError(describe_failure(error)) from None
        self._listener.settimeout(self._timeout_s)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._run, name="rtsp-relay", daemon=True).start()

    def _run(self) -> None:
        try:
            self._client, _ = self._listener.accept()
            self._pass_on(self._client)
        except SourceError as error:
            self.problem = error.problem
        except (OSError, ValueError):
            pass
        for one in (self._client, self._camera, self._listener):  # until now nobody else could take its port
            if one is not None:
                one.close()

    def _pass_on(self, client: socket.socket) -> None:
        """Pass on what comes until either end closes; by one thread, for TLS is not for two."""
        camera, answers = self._camera, RtspAnswers()
        poll = select.poll()
        for one in (camera, client):
            poll.register(one, select.POLLIN)
        while True:
            is_decrypted = isinstance(camera, ssl.SSLSocket) and camera.pending()
            ready = {number for number, _ in poll.poll(0 if is_decrypted else None)}
            if is_decrypted or camera.fileno() in ready:
                camera.setblocking(False)
                try:
                    data = camera.recv(CHUNK_BYTES)
                except (BlockingIOError, ssl.SSLWantReadError):  # of TLS, but not a whole record
                    continue
                if not data:
                    return
                client.sendall(answers.rewrite(data))
            if client.fileno() in ready:
                request = client.recv(CHUNK_BYTES)
                if not request:
                    return
                camera.settimeout(self._timeout_s)
                camera.sendall(request)

    def close(self) -> None:
        """End the connection."""
        for one in (self._listener, self._camera, self._client):
            if one is not None:
                with suppress(OSError):
                    socket.socket.shutdown(one, socket.SHUT_RDWR)  # TLS's own would let another thread read on


class RtspAnswers:
    """Reads what a camera sends over RTSP, answers and between them packets (RFC 2326, 10.12), and writes it anew.

    FFmpeg is a lenient reader. What it gets has no line that it could take for another status or another length than
    was read here, and no address to go to.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def rewrite(self, data: bytes) -> bytes:
        """Return the packets and answers that have come wholly with this data.

        Raises:
            SourceError: An answer redirects, or is none.
        """
        self._buffer += data
        written, at = bytearray(), 0
        while message := _read_message(self._buffer, at):
            at, content = message
            written += content
        del self._buffer[:at]
        return bytes(written)


def _read_message(buffer: bytearray, at: int) -> tuple[int, bytes] | None:
    """Return where a message ends, and what is passed on of it; None if it has not come wholly."""
    if at + 4 > len(buffer):
        return None
    if buffer[at] == INTERLEAVED:
        length = int.from_bytes(buffer[at + 2 : at + 4], "big")
        end = at + 4 + length
        content = b"" if length < MIN_PACKET_BYTES else bytes(buffer[at:end])
    elif buffer[at] in b"\r\n":  # between answers
        return at + 1, b""
    else:
        blank = _BLANK_LINE.search(buffer, at, at + MAX_HEAD_BYTES)
        if blank is None:
            if len(buffer) - at > MAX_HEAD_BYTES:
                raise SourceError(SourceProblem.NO_VIDEO)
            return None
        head, length = _rewrite_head(buffer[at : blank.start()].decode("latin-1"))
        end = blank.end() + length
        content = head + bytes(buffer[blank.end() : end])
    return (end, content) if end <= len(buffer) else None


def _rewrite_head(head: str) -> tuple[bytes, int]:
    """Return the head of an answer, or of a request by the camera, and the length of its body.

    Raises:
        SourceError: It redirects, or is neither.
    """
    first, *rest = _LINE_BREAK.split(head)
    if status := _STATUS_LINE.fullmatch(first):
        if status[1].startswith("3"):
            raise SourceError(SourceProblem.REDIRECTED)
        lines = [f"RTSP/1.0 {status[1]} {status[2] or ''}"]
    elif request := _REQUEST_LINE.fullmatch(first):
        lines = [f"{request[1]} {request[2]} RTSP/1.0"]
    else:
        raise SourceError(SourceProblem.NO_VIDEO)
    lengths = set()
    for field in filter(None, map(_FIELD.fullmatch, rest)):
        match field[1].lower():
            case "content-length":
                lengths.add(field[2].strip(" \t"))
            case "location":
                pass
            case _:
                lines.append(f"{field[1]}: {field[2]}")
    if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        raise SourceError(SourceProblem.NO_VIDEO)
    length = int(lengths.pop()) if lengths else 0
    if length > MAX_BODY_BYTES:
        raise SourceError(SourceProblem.NO_VIDEO)
    if length:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1"), length
