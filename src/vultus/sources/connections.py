"""Connections to cameras: only to addresses that are allowed, checked after the name is resolved.

FFmpeg opens no connection beyond this machine itself. It reads HTTP through `open_http`; RTSP it speaks to an
`RtspRelay` on the loopback, which is connected to the camera. So no redirect, no segment of a playlist and no second
resolution of a name leads anywhere else.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from vultus.domain.sources import SourceProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.domain.source_addresses import AllowedSources, SourceAddress

CHUNK_BYTES = 64 * 1024
MAX_HEAD_BYTES = 64 * 1024
INTERLEAVED = b"$"[0]
USER_AGENT = "vultus"


class SourceError(Exception):
    """A source cannot be read.

    Args:
        problem: Why.
    """

    def __init__(self, problem: SourceProblem) -> None:
        super().__init__(problem.value)
        self.problem = problem


def connect_allowed(host: str, port: int, allowed: AllowedSources, timeout_s: float) -> socket.socket:
    """Return a connection to the first allowed address of a host that answers.

    Raises:
        SourceError: There is none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SourceError(SourceProblem.UNKNOWN_HOST) from None
    problem = SourceProblem.ADDRESS_NOT_ALLOWED
    for family, kind, protocol, _, address in found:
        if not allowed.permits_host(host, ip_address(str(address[0]).partition("%")[0])):
            continue
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


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, *, allowed: AllowedSources, read_timeout_s: float, **options: Any) -> None:
        super().__init__(host, **options)
        self._allowed = allowed
        self._read_timeout_s = read_timeout_s

    def connect(self) -> None:
        self.sock = connect_allowed(self.host, self.port, self._allowed, float(self.timeout or 0))

    def getresponse(self) -> http.client.HTTPResponse:
        connection = self.sock  # the response keeps it open, and this object does not
        response = super().getresponse()
        connection.settimeout(self._read_timeout_s)
        return response


class _TlsConnection(_Connection):
    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


class _Handler(request.AbstractHTTPHandler):
    """Opens http: and https:, and there is no handler for anything else."""

    def __init__(self, allowed: AllowedSources, read_timeout_s: float) -> None:
        super().__init__()
        self._options: dict[str, Any] = {"allowed": allowed, "read_timeout_s": read_timeout_s}

    def http_open(self, asked: request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Connection, **self._options), asked)

    def https_open(self, asked: request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_TlsConnection, **self._options), asked)

    http_request = request.AbstractHTTPHandler.do_request_
    https_request = request.AbstractHTTPHandler.do_request_


def build_opener(address: SourceAddress, allowed: AllowedSources, read_timeout_s: float) -> request.OpenerDirector:
    """Return what opens a source's URLs: with its credentials at its own host, and redirects to allowed hosts alone."""
    passwords = request.HTTPPasswordMgrWithDefaultRealm()
    if address.credentials:
        parts = urlsplit(address.location)  # a playlist and its segments may be in different folders
        passwords.add_password(None, f"{parts.scheme}://{parts.netloc}/", *address.credentials)
    opener = request.OpenerDirector()
    for handler in (
        _Handler(allowed, read_timeout_s),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        request.HTTPRedirectHandler(),
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
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(describe_failure(error)) from None

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


def open_http(opener: request.OpenerDirector, url: str, timeout_s: float) -> HttpBody:
    """Request a URL.

    Raises:
        SourceError: It cannot be read; the error has no part of the URL.
    """
    try:
        return HttpBody(opener.open(url, timeout=timeout_s))
    except HTTPError as error:
        error.close()
        if error.code in {401, 403}:
            raise SourceError(SourceProblem.UNAUTHORIZED) from None
        raise SourceError(SourceProblem.REDIRECTED if error.code < 400 else SourceProblem.NOT_FOUND) from None
    except (SourceError, OSError, http.client.HTTPException, ValueError) as error:
        raise SourceError(describe_failure(error)) from None


class RtspRelay:
    """Passes on one RTSP connection between FFmpeg, on the loopback, and a camera.

    It answers for where the connection leads: FFmpeg would follow a redirect to any host. An answer that redirects ends
    the connection.

    Attributes:
        port: On 127.0.0.1, for one connection.
        problem: Why it ended, if that is known.
    """

    def __init__(self, address: SourceAddress, allowed: AllowedSources, *, open_timeout_s: float) -> None:
        self.problem: SourceProblem | None = None
        self._camera = connect_allowed(address.host, address.port, allowed, open_timeout_s)
        try:
            if address.is_encrypted:
                self._camera = ssl.create_default_context().wrap_socket(self._camera, server_hostname=address.host)
        except OSError as error:
            self._camera.close()
            raise SourceError(describe_failure(error)) from None
        self._camera.settimeout(None)  # FFmpeg has timeouts, and closes its end
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._listener.settimeout(open_timeout_s)
        self.port: int = self._listener.getsockname()[1]
        self._client: socket.socket | None = None
        threading.Thread(target=self._run, name="rtsp-relay", daemon=True).start()

    def _run(self) -> None:
        try:
            self._client, _ = self._listener.accept()
        except OSError:
            return
        finally:
            self._listener.close()
        client = self._client
        requests = threading.Thread(
            target=self._pump, args=(lambda: client.recv(CHUNK_BYTES), self._camera), name="rtsp-requests", daemon=True
        )
        requests.start()
        answers = RtspAnswers(lambda: self._camera.recv(CHUNK_BYTES))
        self._pump(answers.read, client)
        requests.join()
        client.close()
        self._camera.close()

    def _pump(self, read: Callable[[], bytes], target: socket.socket) -> None:
        """Pass on what is read until either end closes; then close both."""
        try:
            while data := read():
                target.sendall(data)
        except SourceError as error:
            self.problem = error.problem
        except (OSError, ValueError):
            pass
        self.close()

    def close(self) -> None:
        """End the connection."""
        for one in (self._listener, self._camera, self._client):
            if one is not None:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        if self._client is None:
            self._camera.close()
            self._listener.close()


class RtspAnswers:
    """Reads what a camera sends over RTSP: answers, and between them interleaved packets (RFC 2326, 10.12).

    Args:
        receive: Returns what has come; nothing at the end.
    """

    def __init__(self, receive: Callable[[], bytes]) -> None:
        self._receive = receive
        self._buffer = bytearray()

    def read(self) -> bytes:
        """Return whole packets and answers; nothing at the end.

        Raises:
            SourceError: An answer redirects, refuses the password, or is none.
        """
        while not (length := self._count_complete()):
            data = self._receive()
            if not data:
                return b""
            self._buffer += data
        complete = bytes(self._buffer[:length])
        del self._buffer[:length]
        return complete

    def _count_complete(self) -> int:
        """Return the length of the packets and answers that have come wholly."""
        buffer, at = self._buffer, 0
        while at + 4 <= len(buffer):
            if buffer[at] == INTERLEAVED:
                end = at + 4 + int.from_bytes(buffer[at + 2 : at + 4], "big")
            elif (head_end := buffer.find(b"\r\n\r\n", at)) >= 0:
                end = head_end + 4 + _read_answer_head(bytes(buffer[at:head_end]))
            elif len(buffer) - at > MAX_HEAD_BYTES:
                raise SourceError(SourceProblem.NO_VIDEO)
            else:
                break
            if end > len(buffer):
                break
            at = end
        return at


def _read_answer_head(head: bytes) -> int:
    """Return the length of an answer's body, if it does not redirect.

    Raises:
        SourceError: It does, or is no answer.
    """
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if words[0].startswith("RTSP/") and len(words) > 1 and words[1].startswith("3"):
        raise SourceError(SourceProblem.REDIRECTED)
    fields = (line.partition(":") for line in lines[1:])
    lengths = [value.strip() for name, _, value in fields if name.strip().lower() == "content-length"]
    if not all(value.isascii() and value.isdigit() and len(value) < 8 for value in lengths):
        raise SourceError(SourceProblem.NO_VIDEO)
    return int(lengths[-1]) if lengths else 0
