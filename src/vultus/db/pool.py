"""The connection pool of a server: settings of its sessions, and what is done to a connection before its use."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, exc

from vultus.db.connections import create_engine
from vultus.db.driver_session import CUSTOM_PLAN, PLAN_CACHE_MODE
from vultus.db.types import decode_halfvec

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from vultus.db.urls import DatabaseAddress
    from vultus.settings import DatabaseSettings

CLIENT_GRACE_S = 5.0  # beyond the server's statement timeout, for a server that does not answer at all


def create_pool(address: DatabaseAddress, settings: DatabaseSettings) -> AsyncEngine:
    """Return an engine that keeps connections open, with the settings of a server's sessions."""
    timeout_ms = settings.statement_timeout_ms
    session_settings = {
        # Firewalls drop idle connections silently; without keepalives a request would fail.
        "tcp_keepalives_idle": "60",
        "statement_timeout": str(timeout_ms),
        "idle_in_transaction_session_timeout": "60000",
        # A generic plan would lock the partitions of all collections; planning takes 0.1 ms.
        PLAN_CACHE_MODE: CUSTOM_PLAN,
        "jit": "off",
        "work_mem": "32MB",  # a search groups the templates of a collection by person
    }
    engine = create_engine(
        address,
        session_settings,
        command_timeout_s=timeout_ms / 1000 + CLIENT_GRACE_S if timeout_ms else None,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.pool_wait_s,
        # Last in, first out: idle connections stay idle, and their memory can be released.
        pool_use_lifo=True,
        json_serializer=partial(json.dumps, ensure_ascii=False, allow_nan=False),
    )
    event.listen(engine.sync_engine, "connect", _register_halfvec_codec)
    event.listen(engine.sync_engine, "checkout", _check_connection_open)
    return engine


def _check_connection_open(connection: Any, _record: Any, _proxy: Any) -> None:
    """Raise if PostgreSQL closed the connection, so that the pool replaces it before a request fails.

    The event loop reads the end of a connection as soon as it arrives. A query to the server instead would cost three
    messages per checkout, a third of all that a recognition sends.
    """
    if connection.driver_connection.is_closed():
        raise exc.DisconnectionError("PostgreSQL closed the connection")


def _register_halfvec_codec(connection: Any, _record: Any) -> None:
    connection.run_async(_set_halfvec_codec)


async def _set_halfvec_codec(driver: Any) -> None:
    """Register the binary `halfvec` codec on a connection; do nothing before the extension exists."""
    schema = await driver.fetchval(
        "SELECT n.nspname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typname = 'halfvec'"
    )
    if schema is not None:
        await driver.set_type_codec("halfvec", schema=schema, encoder=bytes, decoder=decode_halfvec, format="binary")
