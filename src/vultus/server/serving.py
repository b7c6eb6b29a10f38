"""The server: a listening socket, the connections it accepts, and their deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import ssl
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import uvicorn

from vultus.errors import SetupError
from vultus.server.handshakes import TlsAcceptor
from vultus.server.protocol import HttpProtocol
from vultus.server.proxies import TrustedProxies
from vultus.server.registry import ConnectionRegistry, bound_connections, raise_descriptor_limit
from vultus.server.state import ServerState
from vultus.server.websockets import CountedWebSocket
from vultus.utils.processes import list_end_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from vultus.settings import ServerSettings

log = logging.getLogger(__name__)

SEND_BUFFER_BYTES = 128 * 2**10
"""Of a connection, which Linux doubles: what the system takes of an answer before it is read."""

SOCKET_BACKLOG = 2048
UNSENT_BYTES = 2**17
"""Most bytes of an answer that the system holds before they are sent: readers that do not read share its memory."""

STOP_TIMEOUT_S = 10
SWEEP_INTERVAL_S = 1.0
PING_INTERVAL_S = 8.0
"""Pause between pings to a WebSocket, and the wait for the answer: a stalled one is closed within 20 seconds."""

MAX_MESSAGE_BYTES = 2**24
"""Of a WebSocket, unless the application says how long its messages are."""


class ApiServer(uvicorn.Server):
    """uvicorn's server with this package's protocol.

    It stops on SIGINT, SIGTERM and SIGHUP by returning: uvicorn would raise the signal again after serving, and SIGTERM
    would end the process before anything is closed.

    Args:
        app: ASGI application.
        registry: Of connections; servers of one process share it.
        root_path: Path under which a proxy publishes the application, without a slash at the end.
        tls: To answer with TLS alone.
        max_message_bytes: Longest message of a WebSocket; a longer one is not read.
        is_always_answered: As in `ServerState`.
        handle_signals: Whether it is this server that signals stop.
    """

    def __init__(
        self,
        app: Any,
        registry: ConnectionRegistry,
        *,
        root_path: str = "",
        tls: ssl.SSLContext | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        is_always_answered: Callable[[str], bool] = lambda _path: False,
        handle_signals: bool = True,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpProtocol,
                ws="websockets-sansio",
                ws_ping_interval=PING_INTERVAL_S,
                ws_ping_timeout=PING_INTERVAL_S,
                ws_max_size=max_message_bytes,
                ws_per_message_deflate=False,  # a small message must not become a large one
                root_path=root_path,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                timeout_graceful_shutdown=STOP_TIMEOUT_S,
            )
        )
        self.server_state = self._state = ServerState(registry, is_always_answered)
        self._tls = tls
        self.servers = []
        self._acceptors = list[TlsAcceptor]()
        self._stopped = asyncio.Event()
        self._handles_signals = handle_signals

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals in the event loop; the second SIGINT does not wait for requests under way."""
        if self._handles_signals:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, *list_end_signals()):
                loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections of the sockets."""
        await self.lifespan.startup()
        loop, config = asyncio.get_running_loop(), self.config

        def build_protocol() -> HttpProtocol:
            return HttpProtocol(config, self._state, self.lifespan.state, loop)

        for one in sockets or ():
            if self._tls is None:
                self.servers.append(await loop.create_server(build_protocol, sock=one, backlog=SOCKET_BACKLOG))
            else:
                one.setblocking(False)
                one.listen(SOCKET_BACKLOG)
                self._acceptors.append(TlsAcceptor(one, self._tls, self._state, build_protocol))
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and wait for the requests under way."""
        for acceptor in self._acceptors:
            await acceptor.close()
        await super().shutdown(sockets)

    async def main_loop(self) -> None:
        """Check the deadlines once a second until the server is stopped."""
        loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # writes the Date header anew
            for connection in list(self._state.connections):
                if isinstance(connection, HttpProtocol | CountedWebSocket):
                    connection.check_deadlines(loop.time())
            self._state.refusals.write_counts()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_INTERVAL_S):
                    await self._stopped.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, as a signal requires."""
        super().handle_exit(sig, frame)
        self._stopped.set()

    def stop(self) -> None:
        """Stop without waiting for requests under way."""
        self.should_exit = self.force_exit = True
        self._stopped.set()


def bind_socket(host: str, port: int, setting: str = "VULTUS_SERVER__PORT") -> socket.socket:
    """Bind a socket before anything slow happens.

    Raises:
        SetupError: The address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a long answer is written in two parts
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # accepted sockets inherit it: the rest waits here, where it is counted
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Of an answer that is not read the system would otherwise hold megabytes per connection.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SetupError(
            f"Cannot listen on {host}, port {port}: {error.strerror}. {_describe_remedy(error, setting)}"
        ) from error
    return listener


def _describe_remedy(error: OSError, setting: str) -> str:
    """Return what to do about an address that cannot be bound."""
    if error.errno == errno.EADDRINUSE:
        return f"Stop what uses the port, or set {setting}."
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"Ports below 1024 are for root, or for programs with CAP_NET_BIND_SERVICE: set {setting}."
    return (
        "VULTUS_SERVER__HOST (--host) is an address of this machine, such as 127.0.0.1, ::1 or 0.0.0.0, without "
        "scheme, port and brackets."
    )


def bind_metrics_socket(settings: ServerSettings) -> socket.socket | None:
    """Bind the port of `/metrics`, if it has its own.

    Raises:
        SetupError: The port is taken.
    """
    if settings.metrics != "separate":
        return None
    setting = "VULTUS_SERVER__METRICS_PORT, or VULTUS_SERVER__METRICS=off"
    return bind_socket(settings.host, settings.metrics_listener_port, setting)


def build_registry(settings: ServerSettings) -> ConnectionRegistry:
    """Return the bounds on connections, after raising the limit of open files."""
    descriptors = raise_descriptor_limit()
    connections = bound_connections(settings.max_connections, descriptors)
    if connections < settings.max_connections:
        log.warning("%d open files are allowed, so that at most %d connections are", descriptors, connections)
    return ConnectionRegistry(
        max_connections=connections,
        max_per_address=min(connections, settings.max_connections_per_address),
        is_proxy=TrustedProxies(settings.trusted_proxies).__contains__,
    )


def open_tls(settings: ServerSettings) -> ssl.SSLContext | None:
    """Return the context of the configured certificate, None without one.

    Raises:
        SetupError: A file is missing, cannot be read or is none of that, or they do not belong together.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return load_tls(settings.tls_certificate, settings.tls_key)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def format_address(listener: socket.socket, *, tls: bool) -> str:
    """Return the address that a socket listens on, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def load_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context of a certificate, with those that vouch for it, and its private key, both PEM.

    Raises:
        SetupError: A file is missing, cannot be read or is none of that, or they do not belong together.
    """
    for path, name in ((certificate, "TLS_CERTIFICATE"), (key, "TLS_KEY")):
        try:
            text = path.read_bytes()
        except OSError as error:
            raise SetupError(f"{path} cannot be read: {error.strerror}. Check VULTUS_SERVER__{name}.") from error
        if b"-----BEGIN " not in text:
            raise SetupError(f"{path} is no PEM file: it has no BEGIN line. Check VULTUS_SERVER__{name}.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password a key that is encrypted is an error; OpenSSL would ask on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        raise SetupError(_explain_tls_error(certificate, key, error)) from error
    return context


def _explain_tls_error(certificate: Path, key: Path, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{key} is not the private key of {certificate}: give the two files that were made together."
    if b"ENCRYPTED" in key.read_bytes():
        return f"{key} is encrypted: give the key without a password (openssl pkey -in {key} -out plain.pem)."
    return f"{certificate} and {key} are not a certificate and its private key in PEM: {error.reason or error}."
