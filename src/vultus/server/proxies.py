"""What a trusted proxy says of the caller: address, scheme and the prefix under which it publishes the application."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+/?")


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
        self._app = ProxyHeadersMiddleware(app, [str(ip_network(network, strict=False)) for network in networks])
        self._proxies = TrustedProxies(networks)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope.get("client") and scope["client"][0] in self._proxies:
            prefix = dict(scope["headers"]).get(b"x-forwarded-prefix", b"").decode("latin-1").strip()
            if _PREFIX.fullmatch(prefix) and not scope["root_path"]:
                root = prefix.rstrip("/")
                path = scope["path"] if scope["path"].startswith(f"{root}/") else root + scope["path"]
                scope = {**scope, "root_path": root, "path": path}
        await self._app(scope, receive, send)
