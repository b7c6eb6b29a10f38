"""The connection pool and the unit of work, which holds the program's only commit."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from vultus.db.driver_session import ANEW, PLANS, Asking, have_planned
from vultus.db.failures import DOWN, translated, watch
from vultus.db.graphs import graph_work
from vultus.db.locks import lock_collection
from vultus.db.migrate import check_revision, revision_of
from vultus.db.repositories.audit import Audit
from vultus.db.repositories.bulk import Bulk
from vultus.db.repositories.carrying import Carrying
from vultus.db.repositories.codes import Codes
from vultus.db.repositories.collections import Collections
from vultus.db.repositories.comparisons import Comparisons
from vultus.db.repositories.consents import Consents
from vultus.db.repositories.crops import Crops
from vultus.db.repositories.faces import Faces
from vultus.db.repositories.graphs import Graphs
from vultus.db.repositories.idempotency import Idempotency
from vultus.db.repositories.keys import Keys
from vultus.db.repositories.persons import Persons
from vultus.db.repositories.transitions import Transitions
from vultus.db.requirements import check_pgvector, check_server
from vultus.db.types import decode_halfvec
from vultus.db.urls import normalise
from vultus.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from vultus.db.graphs import GraphWork
    from vultus.settings import DatabaseSettings

CONNECT_TIMEOUT_S = 5.0
PING_TIMEOUT_S = 2.0
CLIENT_GRACE_S = 5.0  # beyond the server's statement timeout, for a server that does not answer at all


class Look:
    """What most requests ask: keys, collections, and searches, but for those along a graph."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self.collections = Collections(session)
        self.faces = Faces(session)
        self.keys = Keys(session)


class Work(Look):
    """One transaction, with everything that can be asked of the database in it."""

    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session)
        self.persons = Persons(session)
        self.consents = Consents(session)
        self.audit = Audit(session)
        self.idempotency = Idempotency(session)
        self.crops = Crops(session)
        self.transitions = Transitions(session)
        self.carrying = Carrying(session)
        self.comparisons = Comparisons(session)
        self.codes = Codes(session)
        self.bulk = Bulk(session)
        self.graphs = Graphs(session)

    async def lock_collection(self, collection_id: UUID) -> None:
        """Wait until no other transaction holds the collection, and hold it until this one ends."""
        await lock_collection(self._session, collection_id)


class Database:
    """A PostgreSQL with a current schema."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    async def connect(cls, url: str, settings: DatabaseSettings) -> Database:
        """Open the pool and check that the database can be trusted with faces.

        Raises:
            DatabaseUnavailableError: It cannot be reached.
            SetupError: It is too old, not durable, without pgvector, or its schema is not current.
        """
        engine = _engine(url, settings)
        try:
            with translated():
                async with engine.connect() as connection:
                    await check_server(connection)
                    await check_pgvector(connection)
                    check_revision(await revision_of(connection))
        except BaseException:
            await engine.dispose()
            raise
        return cls(engine)

    @asynccontextmanager
    async def work(self, *, read_only: bool = False) -> AsyncIterator[Work]:
        """Open a transaction: committed when the block ends, rolled back when it raises.

        One that only reads sees the database as it was at its first statement.

        Raises:
            DatabaseUnavailableError: The database cannot be reached, or went away; nothing was committed unless the
                connection broke while the commit was on its way.
            OverloadedError: No connection became free in time.
            UnavailableError: A statement took too long.
        """
        with translated():
            async with self._engine.connect() as connection:
                await have_planned(await connection.get_raw_connection(), ANEW)
                if read_only:
                    # One moment for all its statements: a collection must not change its network between two of them.
                    await connection.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")
                async with AsyncSession(connection, expire_on_commit=False) as session, session.begin():
                    yield Work(session)

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Look]:
        """Ask questions that only read: each is a transaction by itself, without two messages around it.

        Raises:
            DatabaseUnavailableError: The database cannot be reached, or went away.
            OverloadedError: No connection became free in time.
            UnavailableError: The statement took too long.
        """
        with translated():
            connection = await self._engine.raw_connection()
            try:
                yield Look(cast("AsyncSession", Asking(connection)))
            finally:
                connection.close()  # no message: nobody began a transaction

    def graph_work(self, collection_id: UUID) -> AbstractAsyncContextManager[GraphWork]:
        """Return a connection of its own, without a time limit, that has a collection's graph for itself.

        Raises:
            ConflictError: Another process has it, once entered.
        """
        return graph_work(self._engine.url, collection_id)

    async def ping(self) -> None:
        """Return if the database answers.

        Raises:
            DatabaseUnavailableError: It does not, or not soon.
        """
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                with translated():
                    async with self._engine.connect() as connection:
                        await connection.execute(text("SELECT 1"))
        except TimeoutError as error:
            raise DatabaseUnavailableError(DOWN) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def _engine(url: str, settings: DatabaseSettings) -> AsyncEngine:
    timeout_ms = settings.statement_timeout_ms
    engine = create_async_engine(
        normalise(url),
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.pool_wait_s,
        # The last connection used is used next: the others' memory can be given back.
        pool_use_lifo=True,
        hide_parameters=True,
        json_serializer=partial(json.dumps, ensure_ascii=False, allow_nan=False),
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": timeout_ms / 1000 + CLIENT_GRACE_S if timeout_ms else None,
            "server_settings": {
                "application_name": "vultus",
                "timezone": "UTC",
                # A firewall that forgets idle connections says nothing; without this a request would find out.
                "tcp_keepalives_idle": "60",
                "statement_timeout": str(timeout_ms),
                "idle_in_transaction_session_timeout": "60000",
                # A generic plan would lock the partitions of every collection; planning costs a tenth of a millisecond.
                PLANS: ANEW,
                "jit": "off",
                "work_mem": "32MB",  # a search groups the templates of a collection by person
            },
        },
    )
    watch(engine)
    event.listen(engine.sync_engine, "connect", _teach_halfvec)
    event.listen(engine.sync_engine, "checkout", _refuse_dead)
    return engine


def _refuse_dead(connection: Any, _record: Any, _proxy: Any) -> None:
    """Have the pool replace a connection that PostgreSQL closed, before a request is lost to it.

    The end of a connection is read by the event loop as soon as it comes. Asking the server instead would cost three
    messages every time a connection is taken, a third of all that a recognition sends.
    """
    if connection.driver_connection.is_closed():
        raise exc.DisconnectionError("PostgreSQL closed the connection")


def _teach_halfvec(connection: Any, _record: Any) -> None:
    connection.run_async(_register_halfvec)


async def _register_halfvec(driver: Any) -> None:
    """Let a connection send and receive `halfvec` in binary; before the extension exists there is nothing to do."""
    schema = await driver.fetchval(
        "SELECT n.nspname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typname = 'halfvec'"
    )
    if schema is not None:
        await driver.set_type_codec("halfvec", schema=schema, encoder=bytes, decoder=decode_halfvec, format="binary")
