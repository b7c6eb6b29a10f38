"""Stores webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Uuid, cast, delete, func, insert, select, true, update

from vultus.db.repositories.keys import IS_LIVE
from vultus.db.tables import CollectionRow, KeyRow, PersonRow
from vultus.db.webhook_tables import WebhookPersonRow, WebhookRow
from vultus.domain.webhooks import Webhook
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Set
    from uuid import UUID

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.domain.webhooks import WebhookGrant

COLUMNS = (
    WebhookRow.id,
    WebhookRow.key_id,
    WebhookRow.name,
    WebhookRow.url,
    WebhookRow.collections,
    WebhookRow.actions,
    WebhookRow.with_names,
    WebhookRow.previous_until,
    WebhookRow.created_at,
    WebhookRow.failing_since,
    WebhookRow.disabled_at,
    WebhookRow.disabled_reason,
)


class WebhookRepository:
    """Stores webhooks."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_webhook(
        self, webhook_id: UUID, key_id: UUID | None, grant: WebhookGrant, sealed_secret: bytes, position: int
    ) -> Webhook:
        """Add a webhook that gets the events after a number of the outbox."""
        row = await self._session.execute(
            insert(WebhookRow)
            .values(
                id=webhook_id,
                key_id=key_id,
                sealed_secret=sealed_secret,
                position=position,
                **_build_values(grant),
            )
            .returning(*COLUMNS)
        )
        return build_webhook(row.one())

    async def list_webhooks(
        self, after: UUID | None, limit: int, within: Set[UUID] | None = None
    ) -> tuple[Webhook, ...]:
        """Return webhooks in order of creation, those after the given id; `within` as in `get_webhook`."""
        query = select(*COLUMNS).where(_is_within(within)).order_by(WebhookRow.id).limit(limit)
        if after is not None:
            query = query.where(WebhookRow.id > after)
        return tuple(map(build_webhook, await self._session.execute(query)))

    async def count_webhooks(self, key_id: UUID | None) -> tuple[int, int]:
        """Return the numbers of all webhooks, and of those of a key."""
        query = select(func.count(), func.count().filter(WebhookRow.key_id == key_id)).select_from(WebhookRow)
        total, of_key = (await self._session.execute(query)).one()
        return total, of_key

    async def get_webhook(self, webhook_id: UUID, within: Set[UUID] | None = None, *, lock: bool = False) -> Webhook:
        """Return a webhook.

        Args:
            webhook_id: The webhook.
            within: If given, it must be bound to some of these collections.
            lock: Whether it is locked until the transaction ends.

        Raises:
            NotFoundError: There is no such webhook.
        """
        query = select(*COLUMNS).where(WebhookRow.id == webhook_id, _is_within(within))
        row = (await self._session.execute(query.with_for_update() if lock else query)).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no webhook with id {webhook_id}.")
        return build_webhook(row)

    async def get_sealed_secrets(self, webhook_id: UUID) -> tuple[bytes, ...]:
        """Return the sealed secrets that sign now, the present one first."""
        query = select(*SEALED_COLUMNS).where(WebhookRow.id == webhook_id)
        return list_sealed_secrets((await self._session.execute(query)).one())

    async def update_webhook(self, webhook_id: UUID, key_id: UUID | None, grant: WebhookGrant) -> Webhook:
        """Replace what was decided about an existing webhook, and who answers for it."""
        return await self._update(webhook_id, key_id=key_id, **_build_values(grant))

    async def enable_webhook(self, webhook_id: UUID) -> Webhook:
        """Deliver again, from where it stopped."""
        return await self._update(webhook_id, disabled_at=None, disabled_reason=None, failing_since=None)

    async def disable_webhook(self, webhook_id: UUID, reason: str) -> Webhook | None:
        """Deliver nothing any more; what waits goes on waiting. Return None if it is disabled already, or deleted."""
        row = await self._session.execute(
            update(WebhookRow)
            .where(WebhookRow.id == webhook_id, WebhookRow.disabled_at.is_(None))
            .values(disabled_at=func.now(), disabled_reason=reason)
            .returning(*COLUMNS)
        )
        return None if (found := row.one_or_none()) is None else build_webhook(found)

    async def disable_without_key(self, reason: str) -> tuple[UUID, ...]:
        """Disable webhooks whose key is revoked or has expired; return which."""
        live = select(KeyRow.id).where(KeyRow.id == WebhookRow.key_id, IS_LIVE)
        row = await self._session.execute(
            update(WebhookRow)
            .where(WebhookRow.disabled_at.is_(None), WebhookRow.key_id.is_not(None), ~live.exists())
            .values(disabled_at=func.now(), disabled_reason=reason)
            .returning(WebhookRow.id)
        )
        return tuple(row.scalars())

    async def rotate_secret(self, webhook_id: UUID, sealed_secret: bytes, overlap_s: float) -> Webhook:
        """Give an existing webhook another secret; the present one signs for `overlap_s` more seconds, too."""
        previous = {
            "sealed_previous": WebhookRow.sealed_secret if overlap_s else None,
            "previous_until": func.now() + func.make_interval(0, 0, 0, 0, 0, 0, overlap_s) if overlap_s else None,
        }
        return await self._update(webhook_id, sealed_secret=sealed_secret, **previous)

    async def delete_webhook(self, webhook_id: UUID) -> None:
        """Delete a webhook with its deliveries, and forget of whom it has heard."""
        await self._session.execute(delete(WebhookRow).where(WebhookRow.id == webhook_id))

    async def list_receivers_of(self, person_id: UUID) -> tuple[tuple[UUID, str], ...]:
        """Return ids and names of the webhooks that were sent something about a person."""
        query = (
            select(WebhookRow.id, WebhookRow.name)
            .join(WebhookPersonRow, WebhookPersonRow.webhook_id == WebhookRow.id)
            .where(WebhookPersonRow.person_id == person_id)
            .order_by(WebhookRow.id)
        )
        return tuple((row.id, row.name) for row in await self._session.execute(query))

    async def list_receivers_in(self, collection_id: UUID) -> tuple[UUID, ...]:
        """Return the webhooks that were sent something about anybody of a collection, which is locked from then on.

        Whoever delivers something about its persons locks it, too.
        """
        await self._session.execute(select(CollectionRow.id).where(CollectionRow.id == collection_id).with_for_update())
        return await list_receivers(self._session, collection_id=collection_id)

    async def _update(self, webhook_id: UUID, **changes: Any) -> Webhook:
        row = await self._session.execute(
            update(WebhookRow).where(WebhookRow.id == webhook_id).values(**changes).returning(*COLUMNS)
        )
        return build_webhook(row.one())


SEALED_COLUMNS = (
    WebhookRow.sealed_secret,
    WebhookRow.sealed_previous,
    (WebhookRow.previous_until > func.now()).label("has_previous"),
)


def list_sealed_secrets(row: Any) -> tuple[bytes, ...]:
    """Return the secrets of `SEALED_COLUMNS` that sign now."""
    return (row.sealed_secret, row.sealed_previous) if row.has_previous else (row.sealed_secret,)


async def list_receivers(
    session: AsyncSession, *, person_id: UUID | None = None, collection_id: UUID | None = None
) -> tuple[UUID, ...]:
    """Return the webhooks that were sent something about a person, or about anybody of a collection."""
    query = select(WebhookPersonRow.webhook_id).distinct()
    if person_id is not None:
        query = query.where(WebhookPersonRow.person_id == person_id)
    else:
        query = query.join(PersonRow, PersonRow.id == WebhookPersonRow.person_id).where(
            PersonRow.collection_id == collection_id
        )
    return tuple((await session.execute(query)).scalars())


def build_webhook(row: Any) -> Webhook:
    """Build the domain value of a row with `COLUMNS`."""
    values = {column.key: getattr(row, column.key) for column in COLUMNS}
    for name in ("collections", "actions"):
        values[name] = None if values[name] is None else frozenset(values[name])
    return Webhook(**values)


def _build_values(grant: WebhookGrant) -> dict[str, Any]:
    return {
        "name": grant.name,
        "url": grant.url,
        "collections": None if grant.collections is None else sorted(grant.collections),
        "actions": None if grant.actions is None else sorted(grant.actions),
        "with_names": grant.with_names,
    }


def _is_within(collections: Set[UUID] | None) -> ColumnElement[bool]:
    return true() if collections is None else WebhookRow.collections.bool_op("<@")(cast(list(collections), ARRAY(Uuid)))
