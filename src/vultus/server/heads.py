"""The head of a request, collected whole before the parser sees it.

httptools has no limit for a head, and copies a long header anew for every part of it that arrives.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_HEAD_BYTES = 32 * 2**10
"""Longest request line and headers; and longest part of a body, trailers for example, that carries nothing."""

_FIRST_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")

_UPGRADE = re.compile(rb"(?<=\n)upgrade[ \t]*:([^\n]*)\n(?:[ \t][^\n]*\n)*", re.IGNORECASE)

_HOST = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)


class HeadTooLongError(Exception):
    """A head is longer than `MAX_HEAD_BYTES`."""


class HeadBuffer:
    """What has arrived of a head.

    An offer to upgrade a GET to a WebSocket is kept; any other is taken out, for RFC 9110 lets a server ignore it:
    Java's client offers h2c with its requests, and httptools would take the body for the other protocol's.
    """

    __slots__ = ("_received",)

    def __init__(self) -> None:
        self._received = bytearray()

    def __len__(self) -> int:
        """Return the number of bytes that wait for the rest of their head."""
        return len(self._received)

    def add(self, data: bytes) -> bytes | None:
        """Return everything received once it begins with a whole head, or cannot become one; else None.

        Raises:
            HeadTooLongError: It is, or will be.
        """
        begun = len(self._received)
        if not begun and data[0] not in _FIRST_BYTES:
            return data  # the parser says what is wrong, without waiting for an end that may never come
        if begun:
            self._received += data
        end = _find_end(self._received or data, max(0, begun - 3))
        if end < 0 and not begun:
            self._received += data
        if max(end, len(self._received) if end < 0 else 0) > MAX_HEAD_BYTES:
            raise HeadTooLongError
        if end < 0:
            return None
        if begun:
            data = bytes(self._received)
            self._received.clear()
        if (offer := _UPGRADE.search(data, 0, end)) and not (
            data.startswith(b"GET ") and offer[1].strip().lower() == b"websocket"
        ):
            return _UPGRADE.sub(b"", data[:end]) + data[end:]
        return data


def find_fault(version: str, headers: Sequence[tuple[bytes, bytes]], *, upgrades: bool) -> str | None:
    """Return what is wrong with a head that the parser takes, as a sentence; None if nothing is.

    Args:
        version: Of HTTP.
        headers: With names in lower case.
        upgrades: Whether it begins a WebSocket.
    """
    values = dict(headers)
    hosts = sum(name == b"host" for name, _ in headers)
    if version not in ("1.0", "1.1"):
        return f"HTTP/{version} is not spoken here: send HTTP/1.1."
    if hosts > 1 or (not hosts and version == "1.1"):
        return f"The request has {'more than one' if hosts else 'no'} Host header: send exactly one."
    if not _HOST.fullmatch(values.get(b"host", b"")):
        return "The Host header is no name or address of a host, with or without a port."
    if values.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        return "The body's Transfer-Encoding is not chunked alone: compressed bodies are not read, send it as it is."
    if upgrades and _has_body(values):
        return "A WebSocket's handshake has no body: send neither Content-Length nor Transfer-Encoding."
    return None


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Return path and query of a request's target, an address in the absolute form that proxies are sent or a part.

    Raises:
        ValueError: It is no address.
    """
    if target.startswith(b"/") or target == b"*":
        path, _, query = target.partition(b"#")[0].partition(b"?")
        return path, query
    try:
        address = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError as error:
        raise ValueError(str(error)) from None
    return address.path or b"/", address.query or b""


def expects_continue(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Return whether the caller waits for `100 Continue` before it sends the body."""
    return any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers)


def is_websocket(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Return whether an upgrade is to a WebSocket."""
    return any(name == b"upgrade" and value.strip().lower() == b"websocket" for name, value in headers)


def _has_body(values: Mapping[bytes, bytes]) -> bool:
    return b"transfer-encoding" in values or values.get(b"content-length", b"0") != b"0"


def _find_end(data: bytes | bytearray, start: int) -> int:
    """Return where the first empty line ends, or -1; the parser judges lines that end without a carriage return."""
    end = data.find(b"\n\r\n", start)
    if end >= 0:
        return end + 3
    end = data.find(b"\n\n", start)
    return end + 2 if end >= 0 else -1
