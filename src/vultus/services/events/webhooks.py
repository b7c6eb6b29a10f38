"""Webhooks for principals that may configure: created, changed, tested, and what became of their deliveries."""

from __future__ import annotations

import base64
import secrets
from dataclasses import fields, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vultus.domain import Permission
from vultus.domain.texts import require_text
from vultus.domain.webhooks import (
    Webhook,
    WebhookChanged,
    WebhookCreated,
    WebhookDeleted,
    WebhookGrant,
    WebhookRotated,
)
from vultus.errors import ConflictError, InvalidInputError, OverloadedError, UnavailableError
from vultus.services.events.dispatcher import build_context
from vultus.services.events.sending import FORBIDDEN, FORBIDDEN_PLAIN, SECRET_PREFIX, Attempt
from vultus.services.secret_vault import SecretDamagedError
from vultus.utils.ids import new_id
from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import Principal
    from vultus.domain.webhooks import Delivery, DeliveryState
    from vultus.services.events.follower import OutboxFollower
    from vultus.services.events.sending import AddressRule, WebhookSender
    from vultus.services.secret_vault import SecretVault

SECRET_BYTES = 32
MAX_URL_LENGTH = 2000
MAX_WEBHOOKS, MAX_WEBHOOKS_PER_KEY = 100, 20
MAX_TESTS = 8
"""At a time, on this server: tests must not take the connections of deliveries."""

MAX_OVERLAP_S = 30 * 86_400.0
TEST_TYPE = "webhook.test"
OUTSIDE_COLLECTIONS = ("key.", "webhook.")
"""Beginnings of actions that happen in no collection."""


def require_url(url: str, rule: AddressRule) -> str:
    """Return the address of a receiver.

    Raises:
        InvalidInputError: Nothing may be delivered there, or it holds a password.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")  # as it is looked up: no label is empty, or longer than 63 characters
    except ValueError:
        host = None
        parts = urlsplit("")
    is_valid = parts.scheme in {"https", "http"} and host and len(url) <= MAX_URL_LENGTH
    if not is_valid or parts.fragment or not (url.isascii() and url.isprintable()) or " " in url:
        raise InvalidInputError(
            f"The webhook's url must be like https://example.org/vultus, without '#', of at most {MAX_URL_LENGTH} "
            "characters of ASCII."
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidInputError("The webhook's url must hold no user and password: deliveries are signed instead.")
    try:
        address = ip_address(host or "")
    except ValueError:
        return url
    if not (rule.is_exception if parts.scheme == "http" else rule.is_allowed)(address):
        raise InvalidInputError(f"The webhook's url: {FORBIDDEN_PLAIN if parts.scheme == 'http' else FORBIDDEN}.")
    return url


class WebhookService:
    """Manages webhooks, each under the API key that made or last changed it."""

    def __init__(self, database: Database, follower: OutboxFollower, sender: WebhookSender, vault: SecretVault) -> None:
        self._database = database
        self._follower = follower
        self._sender = sender
        self._vault = vault
        self._tests = 0

    async def create_webhook(
        self,
        principal: Principal,
        grant: WebhookGrant,
        *,
        collections: Sequence[str] | None = None,
    ) -> tuple[Webhook, str]:
        """Create a webhook for what happens from now on, and return it with its secret, which is not shown again.

        Args:
            principal: The caller; the webhook ends with its key.
            grant: What is decided about it; its collections are those of the next argument.
            collections: Ids or names; None for all that the caller reaches.

        Raises:
            ConflictError: There are too many, or too many of the caller's key.
            ForbiddenError: The caller may not configure, or not read what it would be sent.
            InvalidInputError: The url is none that deliveries may go to.
            NotFoundError: There is no such collection.
        """
        webhook_id, secret = new_id(), secrets.token_bytes(SECRET_BYTES)
        position = await self._follower.settle()
        async with self._database.transaction() as work:
            bound = await _find_collections(work, principal, collections)
            grant = self._require_grant(principal, replace(grant, collections=bound))
            key_id = principal.key.id if principal.key else None
            await _ensure_few(work, key_id)
            await self._vault.hold_keys(work)
            sealed = self._vault.seal(secret, build_context(webhook_id))
            webhook = await work.webhooks.add_webhook(webhook_id, key_id, grant, sealed, position)
            await work.record(principal, WebhookCreated(object_id=webhook_id))
        return webhook, _format_secret(secret)

    async def list_webhooks(self, principal: Principal, *, after: UUID | None, limit: int) -> tuple[Webhook, ...]:
        """Return webhooks in order of creation; of a principal bound to collections those bound to some of them."""
        principal.require(Permission.CONFIGURE)
        async with self._database.transaction(read_only=True) as work:
            return await work.webhooks.list_webhooks(after, limit, principal.collections)

    async def get_webhook(self, principal: Principal, webhook_id: UUID) -> Webhook:
        """Return a webhook.

        Raises:
            NotFoundError: There is none with this id, for the principal.
        """
        async with self._database.transaction(read_only=True) as work:
            return await _open(work, principal, webhook_id)

    async def update_webhook(
        self,
        principal: Principal,
        webhook_id: UUID,
        *,
        collections: Sequence[str] | None = None,
        enabled: bool | None = None,
        **changes: Any,
    ) -> Webhook:
        """Change a webhook, which is the caller's from then on; enable one that was disabled, or disable it.

        Args:
            principal: The caller.
            webhook_id: The webhook.
            collections: As in `create_webhook`, if `changes` has `collections`.
            enabled: Whether it is delivered anything; one that is enabled again goes on from where it stopped.
            **changes: Members of the grant.

        Raises:
            ForbiddenError: As in `create_webhook`, as for the others.
            InvalidInputError: See there.
            NotFoundError: There is none with this id, or no such collection.
        """
        async with self._database.transaction() as work:
            found = await _open(work, principal, webhook_id, lock=True)
            grant = WebhookGrant(**{field.name: getattr(found, field.name) for field in fields(WebhookGrant)})
            if "collections" in changes:
                changes["collections"] = await _find_collections(work, principal, collections)
            grant = self._require_grant(principal, replace(grant, **changes))
            webhook = await work.webhooks.update_webhook(webhook_id, principal.key.id if principal.key else None, grant)
            if enabled and webhook.disabled_at is not None:
                webhook = await work.webhooks.enable_webhook(webhook_id)
            elif enabled is False and webhook.disabled_at is None:
                reason = "It was disabled by a request."
                webhook = await work.webhooks.disable_webhook(webhook_id, reason) or webhook
            changed = [*changes, *(() if enabled is None else ("enabled",))]
            await work.record(principal, WebhookChanged(object_id=webhook_id, fields=tuple(sorted(changed))))
        return webhook

    async def rotate_secret(self, principal: Principal, webhook_id: UUID, *, overlap_s: float) -> tuple[Webhook, str]:
        """Give a webhook another secret, and return both; deliveries are signed with both for `overlap_s` seconds.

        Raises:
            NotFoundError: There is none with this id.
        """
        secret = secrets.token_bytes(SECRET_BYTES)
        async with self._database.transaction() as work:
            await _open(work, principal, webhook_id, lock=True)
            await self._vault.hold_keys(work)
            sealed = self._vault.seal(secret, build_context(webhook_id))
            webhook = await work.webhooks.rotate_secret(webhook_id, sealed, min(overlap_s, MAX_OVERLAP_S))
            await work.record(principal, WebhookRotated(object_id=webhook_id))
        return webhook, _format_secret(secret)

    async def delete_webhook(self, principal: Principal, webhook_id: UUID) -> None:
        """Delete a webhook; its receiver is told nothing any more, not even of erasures.

        Raises:
            NotFoundError: There is none with this id.
        """
        async with self._database.transaction() as work:
            await _open(work, principal, webhook_id, lock=True)
            await work.webhooks.delete_webhook(webhook_id)
            await work.record(principal, WebhookDeleted(object_id=webhook_id))

    async def send_test(self, principal: Principal, webhook_id: UUID) -> Attempt:
        """Send an event of type `webhook.test` now, once, also to a webhook that is disabled; return the outcome.

        Raises:
            KeyRingError: The keys of this server are missing or others.
            NotFoundError: There is none with this id.
            OverloadedError: Too many tests are under way.
            UnavailableError: Its sealed secret is damaged.
        """
        async with self._database.transaction(read_only=True) as work:
            webhook = await _open(work, principal, webhook_id)
            sealed = await work.webhooks.get_sealed_secrets(webhook_id)
        try:
            keys = [self._vault.unseal(one, build_context(webhook_id)) for one in sealed]
        except SecretDamagedError:
            raise UnavailableError(
                "The webhook's stored secret is damaged; rotate it with `overlap_s` 0, so that it is not used again."
            ) from None
        now = format_moment(datetime.now(UTC))
        event_id = str(new_id())
        payload = {"id": event_id, "type": TEST_TYPE, "timestamp": now, "data": {}}
        if self._tests >= MAX_TESTS:
            raise OverloadedError(f"{MAX_TESTS} webhooks are being tested; try again soon.")
        self._tests += 1
        try:
            return await self._sender.send(webhook.url, event_id, payload, keys)
        finally:
            self._tests -= 1

    async def list_deliveries(
        self,
        principal: Principal,
        webhook_id: UUID,
        *,
        after: int | None = None,
        limit: int,
        state: DeliveryState | None = None,
        newest_first: bool = False,
    ) -> tuple[Delivery, ...]:
        """Return deliveries of a webhook in the order of their events; for as long as the events are kept.

        Args:
            principal: The caller.
            webhook_id: The webhook.
            after: Number of the last one of the page before; None for the first page.
            limit: Most deliveries.
            state: Only those in it.
            newest_first: Whether the last events come first.

        Raises:
            NotFoundError: There is none with this id.
        """
        async with self._database.transaction(read_only=True) as work:
            await _open(work, principal, webhook_id)
            return await work.deliveries.list_deliveries(
                webhook_id, after=after, limit=limit, state=state, newest_first=newest_first
            )

    async def replay_deliveries(
        self, principal: Principal, webhook_id: UUID, event_ids: Sequence[UUID] | None = None
    ) -> int:
        """Attempt dead deliveries again, all or those of some events; return how many.

        Raises:
            NotFoundError: There is no webhook with this id.
        """
        async with self._database.transaction() as work:
            await _open(work, principal, webhook_id, lock=True)
            return await work.deliveries.replay_deliveries(webhook_id, event_ids)

    def _require_grant(self, principal: Principal, grant: WebhookGrant) -> WebhookGrant:
        """Return what may be granted: nothing is sent that the principal may not read itself."""
        principal.require(Permission.CONFIGURE)
        principal.require(Permission.READ)
        if grant.actions is not None and any(one.startswith(OUTSIDE_COLLECTIONS) for one in grant.actions):
            principal.require(Permission.AUDIT)
            principal.require_all_collections("follow what happens in none")
            if grant.collections is not None:
                raise InvalidInputError("Events of keys and webhooks are in no collection: leave out `collections`.")
        name = require_text("The webhook's name", grant.name)
        return replace(grant, name=name, url=require_url(grant.url, self._sender.rule))


async def _ensure_few(work: UnitOfWork, key_id: UUID | None) -> None:
    total, of_key = await work.webhooks.count_webhooks(key_id)
    if total >= MAX_WEBHOOKS:
        raise ConflictError(f"There are {MAX_WEBHOOKS} webhooks already; delete one that nobody needs.")
    if key_id is not None and of_key >= MAX_WEBHOOKS_PER_KEY:
        raise ConflictError(
            f"This key has {MAX_WEBHOOKS_PER_KEY} webhooks already; delete one that nobody needs, or use another key."
        )


async def _find_collections(
    work: UnitOfWork, principal: Principal, collections: Sequence[str] | None
) -> frozenset[UUID] | None:
    if collections is None:
        return principal.collections
    return frozenset([(await work.open(one, principal, Permission.READ)).id for one in collections])


async def _open(work: UnitOfWork, principal: Principal, webhook_id: UUID, *, lock: bool = False) -> Webhook:
    principal.require(Permission.CONFIGURE)
    return await work.webhooks.get_webhook(webhook_id, principal.collections, lock=lock)


def _format_secret(secret: bytes) -> str:
    return SECRET_PREFIX + base64.b64encode(secret).decode()
