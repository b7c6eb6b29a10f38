"""Which pages may connect, by the origin that their browser tells."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.websockets import WebSocket

from vultus.live.handshake import Handshake, check_handshake

CONSOLE = "https://console.example.org"


async def use_no_network(*_: Any) -> Any:
    """Fail: a handshake is judged by its head."""
    raise AssertionError


@pytest.mark.parametrize(
    ("scheme", "host", "origin", "accepted"),
    [
        ("ws", "cam.example.org", "http://cam.example.org", True),
        ("ws", "cam.example.org:80", "http://cam.example.org", True),
        ("ws", "cam.example.org:8000", "http://cam.example.org:8000", True),
        ("ws", "CAM.example.org", "http://cam.example.org", True),
        ("wss", "cam.example.org:443", "https://cam.example.org", True),
        ("ws", "[::1]:8000", "http://[::1]:8000", True),
        ("ws", "cam.example.org:8000", "http://cam.example.org", False),
        ("ws", "cam.example.org", "https://cam.example.org", False),
        ("wss", "cam.example.org", "http://cam.example.org", False),
        ("wss", "cam.example.org:80", "https://cam.example.org", False),
        ("ws", "cam.example.org", CONSOLE, True),
        ("ws", "cam.example.org", CONSOLE + ":444", False),
        ("ws", "cam.example.org", "null", False),
        ("ws", "cam.example.org", "", False),
        ("ws", "", "http://", False),
    ],
)
def test_a_page_connects_from_its_own_origin_or_a_named_one(
    scheme: str, host: str, origin: str, accepted: bool
) -> None:
    headers = [(b"host", host.encode()), (b"origin", origin.encode())]
    scope = {"type": "websocket", "scheme": scheme, "path": "/v1/live", "query_string": b"", "headers": headers}
    socket = WebSocket(scope | {"subprotocols": []}, use_no_network, use_no_network)

    assert isinstance(check_handshake(socket, [CONSOLE]), Handshake) is accepted
