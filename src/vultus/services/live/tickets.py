"""Tickets: short-lived secrets that open a live session once, so that no key is in a browser's address or page."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from vultus.domain import Permission, Principal
from vultus.errors import ForbiddenError, InvalidInputError, UnauthenticatedError
from vultus.services.access import compute_digest

if TYPE_CHECKING:
    from collections.abc import Set

    from vultus.db.database import Database
    from vultus.domain import LiveTicket
    from vultus.settings import LiveSettings

TICKET_S = 30.0
"""How long a ticket waits to be used."""

_TICKET = re.compile(r"[A-Za-z0-9_-]{43}")


class TicketService:
    """Issues tickets to principals that may watch live, and finds out who comes with one."""

    def __init__(self, database: Database, settings: LiveSettings) -> None:
        self._database = database
        self._settings = settings

    async def issue_ticket(
        self,
        principal: Principal,
        reference: str,
        *,
        scores: bool | None = None,
        frames_per_second: float | None = None,
        session_s: float | None = None,
    ) -> tuple[LiveTicket, str]:
        """Return a new ticket and its secret, which is not stored.

        Args:
            principal: The caller.
            reference: Id or name of the collection.
            scores: Whether answers show scores; None: if the caller may see them.
            frames_per_second: Most frames that the session may send; None for the server's most.
            session_s: Longest duration of the session, seconds; None for the server's longest.

        Raises:
            ForbiddenError: The caller may not recognise people in live video, or not see scores, or is no API key.
            InvalidInputError: More frames or seconds than the server allows.
            NotFoundError: There is no such collection.
        """
        if scores:
            principal.require(Permission.SCORES)
        key = principal.key
        if key is None or key.shown_sha256 is None:
            raise ForbiddenError("Only an API key makes tickets: a session ends with the key it acts for.")
        shown = principal.may_see_scores if scores is None else scores
        async with self._database.transaction() as work:
            collection = await work.open(reference, principal, Permission.LIVE)
            secret = secrets.token_urlsafe(32)
            ticket = await work.tickets.add_ticket(
                compute_digest(secret),
                key_id=key.id,
                key_sha256=key.shown_sha256,
                collection_id=collection.id,
                permissions={Permission.LIVE, Permission.SCORES} if shown else {Permission.LIVE},
                frames_per_second=_limit("frames_per_second", frames_per_second, self._settings.max_frames_per_second),
                session_s=_limit("session_s", session_s, self._settings.max_session_s),
                valid_s=TICKET_S,
            )
        return ticket, secret

    async def take_ticket(self, secret: str) -> tuple[LiveTicket, Principal]:
        """Use a ticket up, and return it with the principal of its session, which may do no more than it allows.

        Raises:
            UnauthenticatedError: It is unknown, was used, has expired, or the secret of its key is no longer accepted;
                the error does not distinguish them.
        """
        if _TICKET.fullmatch(secret):
            async with self._database.hot_queries() as work:
                ticket = await work.tickets.take_ticket(compute_digest(secret))
                key = None if ticket is None else await work.keys.find_live_key(ticket.key_sha256)
            if ticket is not None and key is not None:
                reached = frozenset({ticket.collection_id})
                if key.collections is None or reached <= key.collections:
                    allowed = ticket.permissions & key.permissions
                    return ticket, Principal(f"key:{key.id}", allowed, reached, key=key)
        raise UnauthenticatedError("The ticket is unknown, was used, or has expired: make another one.")

    async def list_live_secrets(self, digests: Set[bytes]) -> frozenset[bytes]:
        """Return which secrets of keys, by their SHA-256, are still accepted."""
        async with self._database.hot_queries() as work:
            return await work.keys.list_live_secrets(digests)


def _limit(name: str, wanted: float | None, most: float) -> float:
    if wanted is None:
        return most
    if wanted > most:
        raise InvalidInputError(f"{name} is at most {most:g} on this server.")
    return wanted
