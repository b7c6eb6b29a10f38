"""Connections to cameras: only to addresses that are allowed, checked after the name is resolved.

FFmpeg opens no connection beyond this machine itself. It reads HTTP through `open_http`; RTSP it speaks to a relay on
the loopback, which is connected to the camera. So no redirect, no segment of a playlist and no second resolution of a
name leads anywhere else.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import IO, TYPE_CHECKING, Any, cast
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from vultus.domain.sources import SourceProblem

if TYPE_CHECKING:
    from vultus.domain.source_addresses import AllowedSources, SourceAddress

CHUNK_BYTES = 64 * 1024
USER_AGENT = "vultus"

SLOW_S = 60.0
"""However many hosts a source leads to, and however they drip: it is open after so long, and its next data whole."""


class SourceError(Exception):
    """A source cannot be read.

    Args:
        problem: Why.
    """

    def __init__(self, problem: SourceProblem) -> None:
        super().__init__(problem.value)
        self.problem = problem


@dataclass(slots=True)
class Patience:
    """How long a source is waited for: for the next bytes, and for all of what they belong to.

    Attributes:
        open_timeout_s: Longest time until a host answers.
        read_timeout_s: Longest time until more comes.
    """

    open_timeout_s: float
    read_timeout_s: float
    _ends_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Wait anew: for the next data of a source that is open."""
        self._ends_at = time.monotonic() + max(SLOW_S, self.open_timeout_s, self.read_timeout_s)

    def limit(self, timeout_s: float) -> float:
        """Return how long may still be waited, at most `timeout_s`.

        Raises:
            SourceError: No longer.
        """
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise SourceError(SourceProblem.TIMEOUT)
        return min(timeout_s, left_s)


def connect_allowed(host: str, port: int, allowed: AllowedSources, patience: Patience) -> socket.socket:
    """Return a connection to the first allowed address of a host that answers.

    Raises:
        SourceError: There is none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        raise SourceError(SourceProblem.UNKNOWN_HOST) from None
    problem = SourceProblem.ADDRESS_NOT_ALLOWED
    for family, kind, protocol, _, address in found:
        if not allowed.permits_host(host, ip_address(str(address[0]).partition("%")[0])):
            continue
        timeout_s = patience.limit(patience.open_timeout_s)
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(timeout_s)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            problem = describe_failure(error)
        else:
            return connection
    raise SourceError(problem)


def describe_failure(error: BaseException) -> SourceProblem:
    """Return why a connection failed or broke."""
    if isinstance(error, SourceError):
        return error.problem
    if isinstance(error, URLError) and isinstance(error.reason, BaseException):
        return describe_failure(error.reason)
    problems: dict[type[BaseException], SourceProblem] = {
        TimeoutError: SourceProblem.TIMEOUT,
        ConnectionRefusedError: SourceProblem.REFUSED,
        ssl.SSLError: SourceProblem.TLS,
        ConnectionError: SourceProblem.CLOSED,
        http.client.HTTPException: SourceProblem.CLOSED,
        OSError: SourceProblem.UNREACHABLE,
    }
    return next((problem for kind, problem in problems.items() if isinstance(error, kind)), SourceProblem.NO_VIDEO)


class _Incoming(io.RawIOBase):
    """What a host sends, for as long as it is waited for."""

    def __init__(self, connection: socket.socket, patience: Patience) -> None:
        super().__init__()
        self.timeout_s = patience.open_timeout_s
        self._connection = connection
        self._patience = patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._patience.limit(self.timeout_s))
        return self._connection.recv_into(buffer)

    def close(self) -> None:
        self._connection.close()
        super().close()


class _AnsweringSocket:
    """Is for a response what a socket is; the response closes the connection."""

    def __init__(self, incoming: _Incoming) -> None:
        self._incoming = incoming

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._incoming)

    def close(self) -> None:
        """Do nothing: the response is still read."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, *, allowed: AllowedSources, patience: Patience, **options: Any) -> None:
        super().__init__(host, **options)
        self._allowed = allowed
        self._patience = patience

    def connect(self) -> None:
        self.sock = connect_allowed(self.host, self.port, self._allowed, self._patience)

    def getresponse(self) -> http.client.HTTPResponse:
        incoming = _Incoming(self.sock, self._patience)
        self.sock = cast("socket.socket", _AnsweringSocket(incoming))
        response = super().getresponse()
        incoming.timeout_s = self._patience.read_timeout_s
        return response


class _TlsConnection(_Connection):
    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


class _Handler(request.AbstractHTTPHandler):
    """Opens http: and https:, and there is no handler for anything else."""

    def __init__(self, allowed: AllowedSources, patience: Patience) -> None:
        super().__init__()
        self._options: dict[str, Any] = {"allowed": allowed, "patience": patience}

    def http_open(self, asked: request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Connection, **self._options), asked)

    def https_open(self, asked: request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_TlsConnection, **self._options), asked)

    http_request = request.AbstractHTTPHandler.do_request_
    https_request = request.AbstractHTTPHandler.do_request_


class _Redirects(request.HTTPRedirectHandler):
    def redirect_request(self, asked: request.Request, body: IO[bytes], *answer: Any) -> request.Request | None:
        body.close()  # which would be read into memory, however long it is
        return super().redirect_request(asked, body, *answer)


def build_opener(address: SourceAddress, allowed: AllowedSources, patience: Patience) -> request.OpenerDirector:
    """Return what opens a source's URLs: with its credentials at its own host, and redirects to allowed hosts alone."""
    passwords = request.HTTPPasswordMgrWithDefaultRealm()
    if address.credentials:
        parts = urlsplit(address.location)  # a playlist and its segments may be in different folders
        passwords.add_password(None, f"{parts.scheme}://{parts.netloc}/", *address.credentials)
    opener = request.OpenerDirector()
    for handler in (
        _Handler(allowed, patience),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        _Redirects(),
        request.HTTPDigestAuthHandler(passwords),
        request.HTTPBasicAuthHandler(passwords),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", USER_AGENT), ("Accept", "*/*")]
    return opener


class HttpBody:
    """The body of a response as a file that FFmpeg reads."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    @property
    def media_type(self) -> str:
        """What the host says that it is."""
        return self._response.headers.get_content_type()

    def read(self, size: int) -> bytes:
        """Return what has come, at most `size` bytes; nothing at the end.

        Raises:
            SourceError: The connection broke, or nothing came for too long.
        """
        try:
            return self._response.read1(size)
        except (SourceError, OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(describe_failure(error)) from None

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


def open_http(opener: request.OpenerDirector, url: str) -> HttpBody:
    """Request a URL.

    Raises:
        SourceError: It cannot be read; the error has no part of the URL.
    """
    try:
        return HttpBody(opener.open(url))
    except HTTPError as error:
        error.close()
        if error.code in {401, 403}:
            raise SourceError(SourceProblem.UNAUTHORIZED) from None
        raise SourceError(SourceProblem.REDIRECTED if error.code < 400 else SourceProblem.NOT_FOUND) from None
    except (SourceError, OSError, http.client.HTTPException, ValueError) as error:
        raise SourceError(describe_failure(error)) from None
