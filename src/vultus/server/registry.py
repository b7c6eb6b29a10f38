"""Open connections, counted in all and by address, so that nobody takes the descriptors of everybody."""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from vultus.utils.addresses import group_address

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

SPARE_CONNECTIONS = 64
"""Connections beyond the bound that are still read, to answer health, and to tell the others why they are refused."""

SPARE_DESCRIPTORS = 256
"""Descriptors left for PostgreSQL, workers and files."""

MAX_DESCRIPTORS = 65_536
"""More than any bound on connections that one process serves well."""


class Closable(Protocol):
    """A connection, as the registry knows it."""

    over_bound: bool

    def evict(self) -> None:
        """Close it to make room; it waits for a request."""


@dataclass(slots=True, eq=False)
class _AddressConnections:
    """Connections of one address: all are counted, those that wait for a request are listed, the longest first."""

    count: int = 0
    fresh: dict[Closable, None] = field(default_factory=dict)
    idle: dict[Closable, None] = field(default_factory=dict)

    def find_waiting(self) -> Closable | None:
        """Return what is closed first: what never sent a request, then what has sent none for longest."""
        return next(iter(self.fresh or self.idle), None)


class ConnectionRegistry:
    """Counts connections and closes waiting ones when a bound is reached.

    A connection that waits for a request makes room for a new one, the longest wait first, so silent connections lock
    nobody out. If all are busy, the new one is marked as over the bound: its request is refused, unless it asks for the
    server's health.

    Args:
        max_connections: All together.
        max_per_address: Of one address; of IPv6, of one /64 network.
        is_proxy: Whether an address is a proxy's, which has many callers behind it: only the first bound is for it.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        max_per_address: int,
        is_proxy: Callable[[str], bool] = lambda _address: False,
    ) -> None:
        self.max_connections = max_connections
        self.max_per_address = max_per_address
        self._is_proxy = is_proxy
        self._addresses: dict[str, _AddressConnections] = {}
        self._keys: dict[Closable, str] = {}

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self._keys)

    @property
    def is_full(self) -> bool:
        """Whether more connections are open than the bound of all."""
        return len(self._keys) > self.max_connections

    def add(self, connection: Closable, address: str) -> bool:
        """Count a new connection, and make room for it if a bound is reached.

        Returns:
            Whether it may be read; else it must be closed.
        """
        key = group_address(address)
        of_address = self._addresses.setdefault(key, _AddressConnections())
        of_address.count += 1
        self._keys[connection] = key
        if full := self._find_full(of_address, address):
            if waiting := full.find_waiting():
                self.remove(waiting)
                waiting.evict()
            else:
                connection.over_bound = True
        of_address.fresh[connection] = None
        return len(self._keys) <= self.max_connections + SPARE_CONNECTIONS

    def is_over_bound(self, connection: Closable) -> bool:
        """Return whether a connection that was over a bound still is."""
        of_address = self._find(connection)
        return of_address is not None and self._find_full(of_address, self._keys[connection]) is not None

    def mark_busy(self, connection: Closable) -> None:
        """Note that a request of the connection is under way."""
        if of_address := self._find(connection):
            of_address.fresh.pop(connection, None)
            of_address.idle.pop(connection, None)

    def mark_idle(self, connection: Closable) -> None:
        """Note that the connection waits for its next request."""
        if of_address := self._find(connection):
            of_address.idle[connection] = None

    def remove(self, connection: Closable) -> None:
        """Forget a connection, if it is known."""
        key = self._keys.pop(connection, None)
        if key is None:
            return
        of_address = self._addresses[key]
        of_address.count -= 1
        of_address.fresh.pop(connection, None)
        of_address.idle.pop(connection, None)
        if not of_address.count:
            del self._addresses[key]

    def _find_full(self, of_address: _AddressConnections, address: str) -> _AddressConnections | None:
        """Return whose connections make room: the busiest address's where all are too many, or this one's."""
        if self.is_full:
            return max(self._addresses.values(), key=lambda one: one.count)
        if of_address.count > self.max_per_address and not self._is_proxy(address):
            return of_address
        return None

    def _find(self, connection: Closable) -> _AddressConnections | None:
        key = self._keys.get(connection)
        return None if key is None else self._addresses[key]


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files towards the hard one; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:  # macOS has a lower bound of its own
        log.warning("the limit of open files stays at %d: %s", soft, error)
        return soft
    return wanted


def bound_connections(wanted: int, descriptors: int) -> int:
    """Return how many connections may be open: those wanted, if the descriptors allow them and what else is open."""
    return max(SPARE_CONNECTIONS, min(wanted, descriptors - SPARE_DESCRIPTORS - SPARE_CONNECTIONS))
