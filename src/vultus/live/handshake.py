"""Whether a handshake is accepted: where the page comes from, and that no secret is in the address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.live.messages import SecretOffered
from vultus.schemas.live import PROTOCOL, RESUME_PREFIX, TICKET_PREFIX
from vultus.server.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.websockets import WebSocket

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Handshake:
    """One that may be accepted.

    Attributes:
        protocol: The sub-protocol to accept with; None if none was asked for.
        offered: The secret that came with it.
    """

    protocol: str | None
    offered: SecretOffered | None


def check_handshake(websocket: WebSocket, allowed_origins: Sequence[str]) -> Handshake | Refusal:
    """Return what a handshake asks for, or why it is refused.

    Args:
        websocket: Not accepted yet.
        allowed_origins: Beside the server's own; `*` for all but `null`.
    """
    if not _is_from_allowed_origin(websocket, allowed_origins):
        return Refusal(
            403,
            "forbidden",
            "Not allowed",
            "Pages of this origin may not connect: serve the page from this server, or name its origin in "
            "VULTUS_SERVER__CORS_ORIGINS; behind a proxy, see VULTUS_SERVER__TRUSTED_PROXIES.",
        )
    if websocket.url.query:
        return _refuse_asked(
            "The address takes no parameters: addresses are logged and kept. Send the ticket as the sub-protocol "
            f"'{TICKET_PREFIX}TICKET' beside '{PROTOCOL}', or in the first message.",
        )
    asked: list[str] = websocket.scope["subprotocols"]
    secrets = [one for one in asked if one.startswith((TICKET_PREFIX, RESUME_PREFIX))]
    if (asked and PROTOCOL not in asked) or len(secrets) > 1:
        return _refuse_asked(
            f"Ask for the sub-protocol '{PROTOCOL}' and at most one '{TICKET_PREFIX}TICKET' or '{RESUME_PREFIX}TOKEN'.",
        )
    offered = None
    if secrets:
        resumes = secrets[0].startswith(RESUME_PREFIX)
        offered = SecretOffered(secrets[0].removeprefix(RESUME_PREFIX if resumes else TICKET_PREFIX), resumes)
    return Handshake(PROTOCOL if asked else None, offered)


def _refuse_asked(detail: str) -> Refusal:
    return Refusal(400, "invalid_request", "Invalid request", detail)


def _is_from_allowed_origin(websocket: WebSocket, allowed: Sequence[str]) -> bool:
    """Return whether a page may connect; a program sends no origin, and needs a ticket as a page does."""
    origins = websocket.headers.getlist("origin")
    if not origins:
        return True
    if len(origins) > 1 or origins[0] == "null":
        return False
    scheme = "https" if websocket.scope["scheme"] == "wss" else "http"
    host = websocket.headers.get("host", "").lower().removesuffix(_DEFAULT_PORTS[scheme])
    is_own = bool(host) and origins[0] == f"{scheme}://{host}"
    return is_own or origins[0] in allowed or "*" in allowed
