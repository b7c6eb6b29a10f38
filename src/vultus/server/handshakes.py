"""TLS handshakes, counted as connections from the moment they are accepted.

A server of asyncio knows a connection when its handshake is done: callers who never finish one would be bounded by
nothing, and each costs a hundred kilobytes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from vultus.server.protocol import HEAD_TIMEOUT_S

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from vultus.server.protocol import HttpProtocol
    from vultus.server.state import ServerState

log = logging.getLogger(__name__)

ACCEPT_RETRY_S = 0.5
"""Pause after a connection could not be accepted, for want of descriptors for example."""


class TlsAcceptor:
    """Accepts the connections of a listening socket for TLS.

    Args:
        listener: Non-blocking.
        context: Of the certificate.
        state: Whose registry counts handshakes, and makes room for them.
        build_protocol: Builds the protocol of a connection.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        state: ServerState,
        build_protocol: Callable[[], HttpProtocol],
    ) -> None:
        self._listener, self._context = listener, context
        self._state, self._build_protocol = state, build_protocol
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """Accept no more, and end the handshakes under way."""
        tasks = [self._accepting, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError as error:
                log.warning("a connection could not be accepted: %s", error.strerror)
                await asyncio.sleep(ACCEPT_RETRY_S)
                continue
            handshake = _Handshake()
            if not self._state.registry.add(handshake, address[0]):
                self._state.registry.remove(handshake)
                connection.close()
                continue
            handshake.task = task = asyncio.create_task(self._shake_hands(handshake, connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, handshake: _Handshake, connection: socket.socket) -> None:
        def build_protocol() -> HttpProtocol:
            protocol = self._build_protocol()
            protocol.handshake = handshake
            return protocol

        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                build_protocol, connection, ssl=self._context, ssl_handshake_timeout=HEAD_TIMEOUT_S
            )
        except OSError:  # it failed, took too long or broke off; plain HTTP was sent, for example
            self._state.refusals.add("tls_handshake")
        finally:
            self._state.registry.remove(handshake)


class _Handshake:
    """A connection until its handshake is done."""

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.over_bound = False

    def evict(self) -> None:
        """Close it to make room."""
        self.task.cancel()
