"""Sends deliveries over HTTP, signed after Standard Webhooks, and to no address that is not public.

The address that is checked is the one connected to, so that a name cannot resolve to another one in between. Redirects
are not followed, and no proxy of the environment is used: either would lead elsewhere unchecked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import httpcore
from standardwebhooks import Webhook as Signer

from vultus import __version__
from vultus.utils.addresses import is_public

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vultus.settings import WebhookSettings
    from vultus.utils.addresses import IpAddress

SECRET_PREFIX = "whsec_"  # noqa: S105  of Standard Webhooks
MAX_RESPONSE_BYTES = 4096
"""What is read of an answer, and thrown away, so that the connection can be used again."""

MAX_RETRY_AFTER_S = 86_400.0

FORBIDDEN = "the host has no public address; the operator can allow others by VULTUS_WEBHOOKS__ALLOWED_NETWORKS"
FORBIDDEN_PLAIN = "plain HTTP goes to addresses in VULTUS_WEBHOOKS__ALLOWED_NETWORKS alone; use https"


class ForbiddenAddressError(Exception):
    """The receiver has no address that deliveries may go to."""


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


class GuardedBackend(httpcore.AnyIOBackend):
    """Connects to addresses that are allowed, and to nothing else.

    Args:
        is_allowed: Decides about an address.
    """

    def __init__(self, is_allowed: Callable[[IpAddress], bool]) -> None:
        self._is_allowed = is_allowed

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
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the name does not resolve") from error
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        allowed = [address for address in addresses if self._is_allowed(ip_address(address))]
        if not allowed:
            raise ForbiddenAddressError
        for address in allowed[:-1]:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
        return await super().connect_tcp(allowed[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Refuse: no receiver is on a Unix socket."""
        raise ForbiddenAddressError


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

    async def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            await pool.aclose()

    async def send(self, url: str, event_id: str, payload: dict[str, Any], secrets: Sequence[bytes]) -> Attempt:
        """Send an event, signed with each secret; whatever lies with the receiver is in the result."""
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
        headers = build_headers(event_id, body, secrets)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(url, headers, body.encode())
        except (TimeoutError, httpcore.TimeoutException):
            return Attempt(None, f"no answer within {self._timeout_s:g} seconds")
        except ForbiddenAddressError:
            return Attempt(None, FORBIDDEN_PLAIN if url.startswith("http:") else FORBIDDEN)
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, ssl.SSLError) as error:
            return Attempt(None, _describe_failure(error))

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> Attempt:
        pool = self._get_pool("http" if url.startswith("http:") else "https")
        async with pool.stream("POST", url, headers=list(headers.items()), content=body) as answer:
            length = 0
            async for part in answer.aiter_stream():
                length += len(part)
                if length > MAX_RESPONSE_BYTES:
                    break
            return _judge(answer.status, {name.lower(): value for name, value in answer.headers})

    def _get_pool(self, scheme: str) -> httpcore.AsyncConnectionPool:
        """Return the connections of a scheme; a context for TLS takes long to make, so it is made when it is needed."""
        if scheme not in self._pools:
            is_allowed = self.rule.is_exception if scheme == "http" else self.rule.is_allowed
            self._pools[scheme] = httpcore.AsyncConnectionPool(
                ssl_context=ssl.create_default_context(),
                max_connections=100,
                max_keepalive_connections=20,
                keepalive_expiry=30,
                network_backend=GuardedBackend(is_allowed),
            )
        return self._pools[scheme]


def _judge(status: int, headers: dict[bytes, bytes]) -> Attempt:
    """Return what an answer means: every status from 200 to 299 is an acceptance."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Attempt(status)
    if status < HTTPStatus.BAD_REQUEST:
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
