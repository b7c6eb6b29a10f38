"""What the connections of a server share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.server import ServerState as ConnectionState

from vultus.server.refusals import RefusalLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.server.registry import ConnectionRegistry


class ServerState(ConnectionState):
    """What the connections of a server share.

    Args:
        registry: Bounds them.
        is_always_answered: Whether a path is answered even on a connection over the bound.
    """

    def __init__(self, registry: ConnectionRegistry, is_always_answered: Callable[[str], bool]) -> None:
        super().__init__()
        self.connections: set[Any] = set()
        self.registry = registry
        self.is_always_answered = is_always_answered
        self.refusals = RefusalLog()
