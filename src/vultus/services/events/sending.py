"""Sends deliveries over HTTP, signed after Standard Webhooks, and to no address that is not public.

The address that is checked is the one connected to, so that a name cannot resolve to another one in between. Redirects
are not followed, and no proxy of the environment is used: either would lead elsewhere unchecked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from pathlib import PurePath
from traceback import extract_tb
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpcore
from standardwebhooks import Webhook as Signer

from vultus import __version__
from vultus.utils.addresses import is_public

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vultus.settings import WebhookSettings
    from vultus.utils.addresses import IpAddress

log = logging.getLogger(__name__)

SECRET_PREFIX = "whsec_"  # noqa: S105  of Standard Webhooks
MAX_CONNECTIONS = 100
"""More than there are attempts and tests at a time, so that none waits for a connection."""

MAX_ANSWER_BYTES = 8192
"""What is read of an answer, interim answers and head included."""

MAX_BODY_PARTS = 8
"""What is read of a body, and thrown away, so that the connection can be used again; a longer one ends it. Each part
takes time to parse, and a receiver may send bytes one by one."""

MAX_RESOLVERS = 16
"""Names that are looked up at a time."""

READ_BYTES = 4096
"""What is read and parsed at once: a receiver must not keep this process from everything else."""

MAX_RETRY_AFTER_S = 86_400.0

FORBIDDEN = "the host has no public address; the operator can allow others by VULTUS_WEBHOOKS__ALLOWED_NETWORKS"
FORBIDDEN_PLAIN = "plain HTTP goes to addresses in VULTUS_WEBHOOKS__ALLOWED_NETWORKS alone; use https"
TOO_LONG = "the answer's head is too long"
BROKEN_OFF = "it could not be attempted on this server; see the log"
REDIRECTIONS = frozenset({301, 302, 303, 307, 308})


class ForbiddenAddressError(Exception):
    """The receiver has no address that deliveries may go to."""


class AnswerTooLongError(Exception):
    """A receiver sent more than is read of an answer."""


class AddressRule:
    """Where deliveries may go.

    Args:
        exceptions: Addresses and networks that the operator allows though they are not public.
    """

    def __init__(self, exceptions: Iterable[str]) -> None:
        self._networks = [ip_network(text, strict=False) for text in exceptions]

    def is_exception(self, address: IpAddress) -> bool:
        """Return whether the operator allows an address by name; such may be reached in plain HTTP."""
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)

    def is_allowed(self, address: IpAddress) -> bool:
        """Return whether deliveries may go to an address."""
        return is_public(address) or self.is_exception(address)


def resolve_name(host: str, port: int) -> list[Any]:
    """Return the addresses of a host, as `socket.getaddrinfo` does; it may take long."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class GuardedBackend(httpcore.AnyIOBackend):
    """Connects to addresses that are allowed, and to nothing else.

    Args:
        is_allowed: Decides about an address.
    """

    def __init__(self, is_allowed: Callable[[IpAddress], bool]) -> None:
        self._is_allowed = is_allowed
        # Threads of its own: of names whose servers do not answer, threads stay busy for half a minute.
        self._resolvers = ThreadPoolExecutor(MAX_RESOLVERS, "resolve")

    def close(self) -> None:
        """Resolve nothing any more."""
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  of the overridden method
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve a host, and connect to the first of its allowed addresses that answers.

        Raises:
            ForbiddenAddressError: None is allowed.
            httpcore.ConnectError: The name does not resolve, or nobody answers.
        """
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._resolvers, resolve_name, host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the name does not resolve") from error
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        allowed = [address for address in addresses if self._is_allowed(ip_address(address))]
        if not allowed:
            raise ForbiddenAddressError
        for address in allowed[:-1]:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return BoundedStream(await super().connect_tcp(address, port, timeout, local_address, socket_options))
        return BoundedStream(await super().connect_tcp(allowed[-1], port, timeout, local_address, socket_options))

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Refuse: no receiver is on a Unix socket."""
        raise ForbiddenAddressError


class BoundedStream(httpcore.AsyncNetworkStream):
    """A connection of which little is read after a request was written, in small parts.

    Args:
        stream: The connection.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = MAX_ANSWER_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  of the class
        """Return the next part.

        Raises:
            AnswerTooLongError: As much as may be was read.
        """
        if self._left <= 0:
            raise AnswerTooLongError
        part = await self._stream.read(min(max_bytes, READ_BYTES), timeout)
        self._left -= len(part)
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  of the class
        """Write a part of a request; another answer may follow."""
        self._left = MAX_ANSWER_BYTES
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  of the class
    ) -> httpcore.AsyncNetworkStream:
        """Return the connection with TLS."""
        return BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """Return what the connection knows."""
        return self._stream.get_extra_info(info)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of an attempt.

    Attributes:
        status: Of the answer; None if there was none.
        error: Why it failed, for people; None if the receiver accepted.
        retry_after_s: How long the receiver asks to wait.
    """

    status: int | None
    error: str | None = None
    retry_after_s: float | None = None


class WebhookSender:
    """Makes attempts.

    Args:
        settings: Where deliveries may go, and how long one may take.
    """

    def __init__(self, settings: WebhookSettings) -> None:
        self.rule = AddressRule(settings.allowed_networks)
        self._timeout_s = settings.timeout_s
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}
        self._backends: list[GuardedBackend] = []

    async def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            await pool.aclose()
        for backend in self._backends:
            backend.close()

    async def send(self, url: str, event_id: str, payload: dict[str, Any], secrets: Sequence[bytes]) -> Attempt:
        """Send an event, signed with each secret; whatever goes wrong is in the result."""
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
        headers = build_headers(event_id, body, secrets)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(url, headers, body.encode())
        except (TimeoutError, httpcore.TimeoutException):
            return Attempt(None, f"no answer within {self._timeout_s:g} seconds")
        except ForbiddenAddressError:
            return Attempt(None, FORBIDDEN_PLAIN if urlsplit(url).scheme == "http" else FORBIDDEN)
        except AnswerTooLongError:
            return Attempt(None, TOO_LONG)
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            return Attempt(None, _describe_failure(error))
        except Exception as error:  # noqa: BLE001  its text may hold the address
            _log_breakage(error)
            return Attempt(None, BROKEN_OFF)

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> Attempt:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")  # httpcore would drop `;parameters`
        address = httpcore.URL(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, target=target)
        headers = {"host": parts.netloc, **headers}  # httpcore's lacks the brackets of IPv6
        async with self._get_pool(parts.scheme).stream(
            "POST", address, headers=list(headers.items()), content=body
        ) as answer:
            with contextlib.suppress(AnswerTooLongError):
                count = 0
                async for _ in answer.aiter_stream():
                    if (count := count + 1) == MAX_BODY_PARTS:
                        break
            return _judge(answer.status, {name.lower(): value for name, value in answer.headers})

    def _get_pool(self, scheme: str) -> httpcore.AsyncConnectionPool:
        """Return the connections of a scheme; a context for TLS takes long to make, so it is made when it is needed."""
        if scheme not in self._pools:
            self._backends.append(GuardedBackend(self.rule.is_exception if scheme == "http" else self.rule.is_allowed))
            self._pools[scheme] = httpcore.AsyncConnectionPool(
                ssl_context=ssl.create_default_context(),
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=20,
                keepalive_expiry=30,
                network_backend=self._backends[-1],
            )
        return self._pools[scheme]


def _judge(status: int, headers: dict[bytes, bytes]) -> Attempt:
    """Return what an answer means: every status from 200 to 299 is an acceptance."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Attempt(status)
    if status in REDIRECTIONS:
        return Attempt(status, f"HTTP {status}: redirects are not followed; give the address it leads to")
    retry_after_s = None
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        retry_after_s = parse_retry_after(headers.get(b"retry-after", b"").decode("ascii", "replace"))
    return Attempt(status, f"HTTP {status}", retry_after_s)


def parse_retry_after(value: str) -> float | None:
    """Return the seconds of a `Retry-After`, which has seconds or a date; None without one that can be read."""
    if value.strip().isdecimal():
        return min(float(value), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    wait_s = (at - datetime.now(UTC)).total_seconds() if at.tzinfo else 0.0
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


def _describe_failure(error: BaseException) -> str:
    """Say why there was no answer, in words that hold nothing of what was sent."""
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate was not accepted: {cause.verify_message}"
        if isinstance(cause, (socket.gaierror, UnicodeError)):
            return "the host's name does not resolve"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection was refused"
        if isinstance(cause, ssl.SSLError):
            return "TLS failed"
    return "no connection" if isinstance(error, httpcore.ConnectError) else "the connection broke off"


def _log_breakage(error: Exception) -> None:
    place = extract_tb(error.__traceback__)[-1]
    log.error(
        "a delivery could not be attempted: %s in %s, line %d of %s",
        type(error).__name__,
        place.name,
        place.lineno or 0,
        PurePath(place.filename).name,
    )


def build_headers(event_id: str, body: str, secrets: Sequence[bytes]) -> dict[str, str]:
    """Return the headers of a delivery, with a signature per secret."""
    now = datetime.now(UTC)
    return {
        "content-type": "application/json",
        "user-agent": f"vultus/{__version__}",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Signer(secret).sign(event_id, now, body) for secret in secrets),
    }
