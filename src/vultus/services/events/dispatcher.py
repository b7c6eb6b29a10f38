"""Delivers events to webhooks: at least once, in the order of each origin, by one process at a time."""

from __future__ import annotations

import asyncio
import logging
import random
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from vultus.domain import DeliveryState, Principal
from vultus.domain.webhooks import WebhookDisabled
from vultus.errors import KeyRingError, VultusError
from vultus.services.events.payload import build_payload
from vultus.services.secret_vault import SecretDamagedError
from vultus.utils import metrics

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain.webhooks import ClaimedDelivery
    from vultus.services.events.follower import OutboxFollower
    from vultus.services.events.sending import Attempt, WebhookSender
    from vultus.services.secret_vault import SecretVault
    from vultus.settings import WebhookSettings

log = logging.getLogger(__name__)

DISPATCHER = Principal.from_process("webhooks")

MAX_ATTEMPTS = 14
"""With the default first retry the last attempt comes two days and a half after the first."""

BACKOFF = 3.0
MAX_RETRY_S = 43_200.0
JITTER = 0.2
"""Share by which a wait is varied, so that receivers that were away are not met by everything together."""

MAX_IN_FLIGHT = 64
LEASE_MARGIN_S = 5.0
"""Longest time from a lease to the beginning of its attempt, which so ends before the lease does."""

CLOSE_S = 2.0
GATHER_S = 0.01
"""Pause before the next look: what comes together is claimed together."""

IDLE_S = 1.0
"""Pause between looks for what is due."""

UNSEALED_RETRY_S = 60.0

KEY_ENDED = "The API key that answers for it is revoked or has expired; change the webhook with another key."
GONE = "The receiver answered 410 Gone."
UNREADABLE = "its secret cannot be read on this server; see the log"


def compute_retry_delay(attempt: int, first_s: float, *, varied: float = 0.0) -> float | None:
    """Return the seconds until the next attempt; None if there is none.

    Args:
        attempt: Number of the one that failed, from 1.
        first_s: Wait after the first.
        varied: From -1 to 1, the jitter.
    """
    if attempt >= MAX_ATTEMPTS:
        return None
    return float(min(first_s * BACKOFF ** (attempt - 1), MAX_RETRY_S)) * (1 + JITTER * varied)


class WebhookDispatcher:
    """Makes deliveries of new events, and attempts those that are due."""

    def __init__(
        self,
        database: Database,
        follower: OutboxFollower,
        sender: WebhookSender,
        vault: SecretVault,
        settings: WebhookSettings,
    ) -> None:
        self._database = database
        self._follower = follower
        self._sender = sender
        self._vault = vault
        self._settings = settings
        self._attempts: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    async def close(self) -> None:
        """Wait briefly for the attempts under way, then break them off: they are made again after their lease."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=CLOSE_S)
        for task in self._attempts:
            task.cancel()
        await asyncio.gather(*self._attempts, return_exceptions=True)
        await self._sender.close()

    async def dispatch(self) -> None:
        """Start what can be attempted now, then wait until there may be more: one run of a background job."""
        seen = self._follower.settled
        self._ended.clear()  # before anything is claimed: what ends meanwhile makes room, too
        started = await self._start_attempts()
        if started and len(self._attempts) < MAX_IN_FLIGHT:
            return
        await asyncio.sleep(GATHER_S)
        waits = [
            asyncio.create_task(self._follower.wait_beyond(seen, IDLE_S)),
            asyncio.create_task(self._ended.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def count_deliveries(self) -> None:
        """Set the metrics of what waits and what is dead: one run of a background job."""
        async with self._database.transaction(read_only=True) as work:
            counts = await work.deliveries.count_by_state()
        for state in (DeliveryState.WAITING, DeliveryState.DEAD):
            metrics.DELIVERIES.labels(state.value).set(counts.get(state, 0))

    async def _start_attempts(self) -> int:
        """Claim deliveries and begin to attempt them; return how many, with those that need no attempt any more."""
        room = MAX_IN_FLIGHT - len(self._attempts)
        if room <= 0:
            return 0
        async with self._database.hot_queries() as hot:
            if not await hot.pending_work.has_deliveries(self._follower.settled):
                return 0
        async with self._database.transaction() as work:
            for webhook_id in await work.webhooks.disable_without_key(KEY_ENDED):
                await work.record(DISPATCHER, WebhookDisabled(object_id=webhook_id))
            await work.deliveries.make_deliveries(self._follower.settled)
        begins_before = asyncio.get_running_loop().time() + LEASE_MARGIN_S
        async with self._database.transaction() as work:
            lease_s = self._settings.timeout_s + LEASE_MARGIN_S
            claimed, dropped = await work.deliveries.claim_deliveries(room, lease_s=lease_s)
        for delivery in claimed:
            task = asyncio.create_task(self._attempt(delivery, begins_before))
            self._attempts.add(task)
            task.add_done_callback(self._end_attempt)
        return len(claimed) + dropped

    def _end_attempt(self, task: asyncio.Task[None]) -> None:
        self._attempts.discard(task)
        self._ended.set()
        if not task.cancelled() and (error := task.exception()):
            message = "the outcome of a delivery was not stored; it is attempted again"
            if isinstance(error, VultusError):
                log.warning("%s: %s", message, error.detail, extra={"code": error.code})
            else:
                log.error(message, exc_info=error)

    async def _attempt(self, delivery: ClaimedDelivery, begins_before: float) -> None:
        webhook_id, number = delivery.webhook.id, delivery.entry.number
        if asyncio.get_running_loop().time() > begins_before:
            log.warning("a delivery waits for its next lease: this process had no time for it in the last one")
            return  # another process may attempt it by now, and be past it before this one has sent it
        try:
            secrets = [self._vault.unseal(one, build_context(webhook_id)) for one in delivery.sealed_secrets]
        except (KeyRingError, SecretDamagedError) as error:
            log.error("a webhook's secret cannot be read: %s", error, extra={"webhook": str(webhook_id)})
            async with self._database.transaction() as work:
                await work.deliveries.release(webhook_id, number, UNSEALED_RETRY_S, UNREADABLE)
            return
        payload = build_delivery_payload(delivery)
        attempt = await self._sender.send(delivery.webhook.url, payload["id"], payload, secrets)
        if attempt.error is None and attempt.status is not None:
            async with self._database.transaction() as work:
                await work.deliveries.record_delivery(webhook_id, number, attempt.status)
            metrics.WEBHOOK_ATTEMPTS.labels("delivered").inc()
            return
        await self._record_failure(delivery, attempt)

    async def _record_failure(self, delivery: ClaimedDelivery, attempt: Attempt) -> None:
        webhook_id, is_gone = delivery.webhook.id, attempt.status == HTTPStatus.GONE
        varied = random.uniform(-1, 1)  # noqa: S311  no secret
        delay_s = compute_retry_delay(delivery.attempt, self._settings.first_retry_s, varied=varied)
        if delay_s is not None:
            delay_s = max(delay_s, attempt.retry_after_s or 0.0)
        async with self._database.transaction() as work:
            failing_s = await work.deliveries.record_failure(
                webhook_id, delivery.entry.number, attempt.status, attempt.error or "", delay_s
            )
            reason = GONE if is_gone else self._explain_failing(failing_s)
            is_disabled = reason is not None and await work.webhooks.disable_webhook(webhook_id, reason) is not None
            if is_disabled:
                await work.record(DISPATCHER, WebhookDisabled(object_id=webhook_id))
        metrics.WEBHOOK_ATTEMPTS.labels("dead" if delay_s is None else "failed").inc()
        log.log(
            logging.WARNING if delay_s is None or is_disabled else logging.INFO,
            "a delivery failed%s%s",
            " for good" if delay_s is None else "",
            ", and its webhook is disabled" if is_disabled else "",
            extra={"webhook": str(webhook_id), "status": attempt.status, "count": delivery.attempt},
        )

    def _explain_failing(self, failing_s: float) -> str | None:
        hours = self._settings.disable_after_hours
        if failing_s <= hours * 3600:
            return None
        return f"It failed for {hours:g} hours without a success."


def build_context(webhook_id: UUID) -> str:
    """Return what a webhook's secrets are sealed for."""
    return f"webhook:{webhook_id}"


def build_delivery_payload(delivery: ClaimedDelivery) -> dict[str, Any]:
    """Return what a webhook is sent of an event: ids, and the person's name and external id if it gets them."""
    payload = build_payload(delivery.entry)
    if delivery.webhook.with_names and delivery.person is not None:
        external_id, name = delivery.person
        payload["data"]["person"] = {"external_id": external_id, "name": name}
    return payload
