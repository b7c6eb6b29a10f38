"""What a trusted proxy says of the caller: address, scheme and the prefix under which it publishes the application."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?")


class TrustedProxies:
    """Addresses and networks whose forwarded headers count.

    Args:
        networks: Addresses and networks as text.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ip_network(network, strict=False) for network in networks]
        self._is_trusted = lru_cache(maxsize=4096)(self._look_up)

    def __contains__(self, address: str) -> bool:
        """Return whether an address is one of them."""
        return bool(self._networks) and self._is_trusted(address)

    def _look_up(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any((getattr(parsed, "ipv4_mapped", None) or parsed) in network for network in self._networks)


class ForwardedMiddleware:
    """Reads X-Forwarded-For, -Proto and -Prefix of trusted proxies; of anybody else they mean nothing.

    Args:
        app: ASGI application.
        networks: Of the proxies.
    """

    def __init__(self, app: Any, networks: Sequence[str]) -> None:
        self._app = app
        self._proxies = TrustedProxies(networks)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope.get("client") and scope["client"][0] in self._proxies:
            scope = {**scope, **self._read_headers(scope)}
        await self._app(scope, receive, send)

    def _read_headers(self, scope: Any) -> dict[str, Any]:
        values: dict[bytes, str] = {}
        for name, value in scope["headers"]:
            if name.startswith(b"x-forwarded-"):  # of a list over several headers, the parts in order
                values[name] = (
                    f"{values[name]},{value.decode('latin-1')}" if name in values else value.decode("latin-1")
                )
        forwarded: dict[str, Any] = {}
        if caller := self._find_caller(values.get(b"x-forwarded-for", "")):
            forwarded["client"] = (caller, 0)
        scheme = values.get(b"x-forwarded-proto", "").strip().lower()
        if scheme in {"http", "https"}:
            forwarded["scheme"] = scheme.replace("http", "ws") if scope["type"] == "websocket" else scheme
        prefix = values.get(b"x-forwarded-prefix", "").strip()
        if _PREFIX.fullmatch(prefix) and not scope["root_path"]:
            root, path = prefix.rstrip("/"), scope["path"]
            forwarded |= {"root_path": root, "path": path if path.startswith(f"{root}/") else root + path}
        return forwarded

    def _find_caller(self, forwarded_for: str) -> str | None:
        """Return the last address that no trusted proxy has: what is before it, anybody may have written."""
        found = None
        for entry in reversed(forwarded_for.split(",")):
            address = _strip_port(entry.strip()).partition("%")[0]  # of a zone, anything could be the name
            try:
                ip_address(address)
            except ValueError:
                break
            found = address
            if address not in self._proxies:
                break
        return found


def _strip_port(entry: str) -> str:
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
