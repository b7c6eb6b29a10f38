"""The connection pool and the unit of work, the only place that commits.

Readers never wait for writers: a writing transaction may wait for a collection's lock while it holds a connection, so
writing transactions together have only a part of the pool, and those of one collection only a part of that.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID
from weakref import WeakValueDictionary

from sqlalchemy.ext.asyncio import AsyncSession

from vultus.db.connections import check_connection
from vultus.db.driver_session import CUSTOM_PLAN, DriverSession, set_plan_cache_mode
from vultus.db.failures import translate_errors
from vultus.db.health import DatabaseHealth
from vultus.db.hot_connections import HotConnections
from vultus.db.locks import lock_collection
from vultus.db.migrate import check_revision, read_revision
from vultus.db.pool import create_pool
from vultus.db.repositories.audit import AuditRepository
from vultus.db.repositories.backfill import BackfillRepository
from vultus.db.repositories.bulk import BulkRepository
from vultus.db.repositories.codes import CodeRepository
from vultus.db.repositories.collections import CollectionQueries, CollectionRepository
from vultus.db.repositories.comparisons import ComparisonRepository
from vultus.db.repositories.consents import ConsentRepository
from vultus.db.repositories.crops import CropRepository
from vultus.db.repositories.decisions import DecisionRepository
from vultus.db.repositories.deliveries import DeliveryRepository
from vultus.db.repositories.erasures import ErasureRepository, ScrubRepository
from vultus.db.repositories.faces import FaceRepository
from vultus.db.repositories.idempotency import IdempotencyRepository
from vultus.db.repositories.inventory import InventoryRepository
from vultus.db.repositories.keys import ApiKeyQueries, ApiKeyRepository
from vultus.db.repositories.ledgers import LedgerRepository
from vultus.db.repositories.migrations import MigrationRepository
from vultus.db.repositories.outbox import OutboxQueries, OutboxRepository, add_event, add_sighting
from vultus.db.repositories.pending_work import PendingWorkQueries
from vultus.db.repositories.person_keys import PersonKeyRepository
from vultus.db.repositories.persons import PersonRepository
from vultus.db.repositories.sealed_values import SealedValueRepository
from vultus.db.repositories.sealings import SealingRepository
from vultus.db.repositories.sources import SourceRepository
from vultus.db.repositories.tickets import TicketQueries, TicketRepository
from vultus.db.repositories.usage import UsageQueries
from vultus.db.repositories.webhooks import WebhookRepository
from vultus.db.requirements import check_pgvector, check_server
from vultus.db.templates.hnsw import open_hnsw_maintenance
from vultus.db.templates.seal import TemplateSeal
from vultus.db.templates.searches import TemplateSearches
from vultus.db.templates.store import TemplateStore
from vultus.db.urls import DatabaseUrls, parse_database_url
from vultus.domain.ledger import ENDING_ACTIONS, LedgerEntry
from vultus.errors import OverloadedError
from vultus.utils import metrics
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncEngine

    from vultus.db.driver_session import StatementSession
    from vultus.db.templates.hnsw import HnswMaintenance
    from vultus.db.urls import DatabaseAddress
    from vultus.domain import Collection, IdempotencyContext, Permission, Principal
    from vultus.domain.events import Event
    from vultus.domain.sightings import Sighting
    from vultus.sealing.custody import Custody
    from vultus.settings import DatabaseSettings

WRITER_SHARE = 0.5
"""Share of the pool that writing transactions have together; at least one connection."""

COLLECTION_SHARE = 0.5
"""Share of the writers' connections that those of one collection have, which wait for each other; at least one."""


class HotQueries:
    """Queries of the hot path: keys, usage, tickets, collections, searches not by HNSW index, what jobs look for."""

    collections: CollectionQueries
    keys: ApiKeyQueries
    outbox: OutboxQueries
    pending_work: PendingWorkQueries
    templates: TemplateSearches
    tickets: TicketQueries
    usage: UsageQueries

    def __init__(self, session: StatementSession, seal: TemplateSeal) -> None:
        self.collections = CollectionQueries(session)
        self.keys = ApiKeyQueries(session)
        self.outbox = OutboxQueries(session)
        self.pending_work = PendingWorkQueries(session)
        self.tickets = TicketQueries(session)
        self.usage = UsageQueries(session)
        self.templates = TemplateSearches(session, seal)

    async def open(self, reference: str, principal: Principal, permission: Permission) -> Collection:
        """Return a collection for a principal: the one door to collections.

        Args:
            reference: Id or name.
            principal: The originator of the call.
            permission: What is done with it.

        Raises:
            ForbiddenError: The principal lacks the permission.
            NotFoundError: There is no such collection, or it does not exist for the principal.
        """
        principal.require(permission)
        reference = reference.strip()  # as names are kept
        try:
            key = UUID(reference)
        except ValueError:
            return await self.collections.get_collection_by_name(reference, principal.collections)
        return await self.collections.get_collection(key, principal.collections)


class UnitOfWork(HotQueries):
    """One transaction with every repository.

    Attributes:
        endings: What ends for good when it commits.
    """

    collections: CollectionRepository
    keys: ApiKeyRepository
    outbox: OutboxRepository
    webhooks: WebhookRepository
    templates: TemplateStore
    tickets: TicketRepository

    def __init__(
        self, session: AsyncSession, seal: TemplateSeal, idempotency: IdempotencyContext | None, *, read_only: bool
    ) -> None:
        self._session = session
        self._is_read_only = read_only
        self._unanswered = idempotency
        self.collections = CollectionRepository(session)
        self.faces = FaceRepository(session)
        self.keys = ApiKeyRepository(session)
        self.person_keys = PersonKeyRepository(session, seal.custody)
        self.templates = TemplateStore(session, seal, self.person_keys, is_snapshot=read_only)
        self.persons = PersonRepository(session)
        self.consents = ConsentRepository(session)
        self.audit = AuditRepository(session)
        self.outbox = OutboxRepository(session)
        self.idempotency = IdempotencyRepository(session)
        self.crops = CropRepository(session)
        self.sealed_values = SealedValueRepository(session)
        self.sealings = SealingRepository(session)
        self.migrations = MigrationRepository(session)
        self.backfill = BackfillRepository(session)
        self.comparisons = ComparisonRepository(session)
        self.codes = CodeRepository(session)
        self.bulk = BulkRepository(session, self.person_keys)
        self.inventory = InventoryRepository(session)
        self.tickets = TicketRepository(session)
        self.webhooks = WebhookRepository(session)
        self.decisions = DecisionRepository(session)
        self.deliveries = DeliveryRepository(session)
        self.sources = SourceRepository(session)
        self.ledgers = LedgerRepository(session)
        self.erasures = ErasureRepository(session)
        self.scrubs = ScrubRepository(session)
        self.endings: list[LedgerEntry] = []

    async def open(self, reference: str, principal: Principal, permission: Permission) -> Collection:
        """Return a collection for a principal; locked until the transaction ends if it is opened for writing.

        Writers of one collection are serialized: two withdrawals must not each see the other's consent as the live one
        that keeps the person. A transaction that only reads takes no lock.

        Raises:
            ForbiddenError: The principal lacks the permission.
            NotFoundError: There is no such collection, or it does not exist for the principal.
        """
        found = await super().open(reference, principal, permission)
        if self._is_read_only or not permission.is_writing:
            return found
        await self.lock_collection(found.id)
        return await self.collections.get_collection(found.id)

    async def store_response(self, result: object, person_id: UUID | None = None) -> None:
        """Store the response to an idempotent request in the transaction of its effect; do nothing for any other.

        Args:
            result: What the service returns, for `IdempotencyContext.encode`.
            person_id: The person the response names; it is deleted with them.
        """
        if (context := self._unanswered) is None:
            return
        await self.idempotency.add_response(
            api_key_id=context.principal_id,
            key=context.key,
            request_sha256=context.request_sha256,
            status=context.status,
            body=context.encode(result),
            person_id=person_id,
        )
        self._unanswered = None

    def ensure_answered(self) -> None:
        """Raise if the response to an idempotent request was not stored: repeated, it would have a second effect."""
        if self._unanswered is not None:
            raise RuntimeError("the transaction of an idempotent request stored no response")

    async def lock_collection(self, collection_id: UUID) -> None:
        """Wait for the exclusive lock on a collection and hold it until the transaction ends."""
        await lock_collection(self._session, collection_id)

    async def record(self, principal: Principal, event: Event, receivers: Sequence[UUID] = ()) -> UUID:
        """Record an event in the audit record and the outbox: best last, since later events are listed after it.

        Args:
            principal: Who caused it.
            event: What happened.
            receivers: Webhooks that are told whatever they subscribe to.

        Returns:
            The id of its entry in the audit record.
        """
        entry_id = await add_event(self._session, principal, event, receivers)
        if event.action in ENDING_ACTIONS:
            ids = event.collection_id, event.person_id, event.object_id
            self.endings.append(LedgerEntry(entry_id, datetime.now(UTC), event.action, principal.id, *ids))
        return entry_id

    async def record_sighting(self, sighting: Sighting, event_id: UUID | None = None) -> None:
        """Record a sighting in the outbox alone, without its person if they are erased; once for the same id."""
        await add_sighting(self._session, sighting, event_id or new_id())


class Database:
    """A PostgreSQL database with the current schema; `owner_address` is for the role that owns its tables."""

    def __init__(self, engine: AsyncEngine, owner_address: DatabaseAddress, settings: DatabaseSettings) -> None:
        self._engine = engine
        self.owner_address = owner_address
        self._hot_connections = HotConnections(engine)
        self._health = DatabaseHealth(self._hot_connections)
        self._pool_wait_s = settings.pool_wait_s
        for state, count in (("in_use", self._hot_connections.count_used), ("idle", self._hot_connections.count_idle)):
            metrics.CONNECTIONS.labels(state).set_function(count)
        writers = max(1, int(WRITER_SHARE * settings.pool_size))
        self._writers = asyncio.Semaphore(writers)
        self._writers_per_collection = max(1, int(COLLECTION_SHARE * writers))
        self._collection_writers: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._on_endings: dict[str, Callable[[Sequence[LedgerEntry]], Awaitable[None]]] = {}
        self._seal = TemplateSeal()

    @classmethod
    async def connect(cls, url: str, settings: DatabaseSettings, *, owner_url: str | None = None) -> Database:
        """Open the pool and check that the database meets the requirements.

        The owner's URL is that of the role that serves unless another is given.

        Raises:
            DatabaseUnavailableError: It cannot be reached.
            SetupError: The URL is wrong, or the database too old, not durable, without pgvector, behind a pooler by
                transaction, or its schema not current.
        """
        address = parse_database_url(url)
        with DatabaseUrls(url, owner_url or url).name_owner():
            owner_address = parse_database_url(owner_url or url)
        await check_connection(address)
        engine = create_pool(address, settings)
        try:
            with translate_errors():
                async with engine.connect() as connection:
                    await check_server(connection)
                    await check_pgvector(connection)
                    check_revision(await read_revision(connection))
        except BaseException:
            await engine.dispose()
            raise
        return cls(engine, owner_address, settings)

    @asynccontextmanager
    async def transaction(
        self, *, read_only: bool = False, idempotency: IdempotencyContext | None = None, writes_to: str | None = None
    ) -> AsyncIterator[UnitOfWork]:
        """Open a transaction: committed when the block ends, rolled back when it raises.

        A read-only transaction sees the database as of its first statement. Writing transactions beyond their share of
        the pool wait without a connection.

        Args:
            read_only: Whether nothing is written.
            idempotency: Of an idempotent request; the block calls `store_response`.
            writes_to: Id or name of the collection that the block opens for writing: those who wait for its lock leave
                connections to writers of others.

        Raises:
            RepeatedRequestError: The idempotent request was answered before.
            IdempotencyMismatchError: Its key was used with another request.
            IdempotencyErasedError: Who its answer was about has been erased.
            IdempotencyInFlightError: The key's first request is still running.
            DatabaseUnavailableError: The database cannot be reached, or the connection broke; nothing was committed
                unless it broke during the commit.
            OverloadedError: No connection became free in time.
            UnavailableError: A statement took too long.
        """
        with self._health.notice_full_storage(), translate_errors():
            async with (
                nullcontext() if read_only else self._admit_writer(writes_to),
                self._hot_connections.connect() as connection,
            ):
                await set_plan_cache_mode(await connection.get_raw_connection(), CUSTOM_PLAN)
                if read_only:
                    # One snapshot for all statements: a collection must not be cut over between two of them.
                    await connection.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")
                async with AsyncSession(connection, expire_on_commit=False) as session, session.begin():
                    work = UnitOfWork(session, self._seal, idempotency, read_only=read_only)
                    async with work.person_keys.destroy_created_unless_done():
                        if idempotency is not None:
                            await work.idempotency.claim_key(idempotency)
                        yield work
                        work.ensure_answered()
        for listener in self._on_endings.values() if work.endings else ():
            await listener(work.endings)

    def use_keys(self, custody: Custody) -> Custody:
        """Open what is sealed, and seal, by an installation's keys, which are returned."""
        self._seal.custody = custody
        return custody

    def watch_endings(self, name: str, listener: Callable[[Sequence[LedgerEntry]], Awaitable[None]]) -> None:
        """Call a listener with what has ended for good after each commit, before the caller goes on.

        Args:
            name: Of the listener; a later one of the same name takes its place.
            listener: Must not raise.
        """
        self._on_endings[name] = listener

    @asynccontextmanager
    async def _admit_writer(self, collection: str | None) -> AsyncIterator[None]:
        """Wait for one of the connections that writers, and those of a collection, may hold, and hold it."""
        limits = [self._writers]
        if collection is not None:  # first: who waits for a collection's turn keeps nothing from others
            others = asyncio.Semaphore(self._writers_per_collection)
            limits.insert(0, self._collection_writers.setdefault(collection, others))
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._pool_wait_s):
                    for limit in limits:
                        await stack.enter_async_context(limit)
            except TimeoutError as error:
                raise OverloadedError("Every database connection for such a write is in use; try again.") from error
            yield

    @asynccontextmanager
    async def hot_queries(self) -> AsyncIterator[HotQueries]:
        """Open read-only queries: each is a transaction by itself, without the messages of BEGIN and COMMIT.

        Raises:
            DatabaseUnavailableError: The database cannot be reached, or the connection broke.
            OverloadedError: No connection became free in time.
            UnavailableError: The statement took too long.
        """
        with translate_errors():
            connection = await self._hot_connections.acquire()
            try:
                yield HotQueries(DriverSession(connection), self._seal)
            finally:
                self._hot_connections.release(connection)  # no message: no transaction has begun

    def open_hnsw_maintenance(self, collection_id: UUID) -> AbstractAsyncContextManager[HnswMaintenance]:
        """Return a connection without a statement timeout that holds the exclusive lock on a collection's HNSW index.

        Raises:
            ConflictError: On entering, another process holds the lock.
        """
        return open_hnsw_maintenance(self.owner_address, collection_id)

    async def ping(self) -> None:
        """Raise unless the database answers, has Vultus' tables, and space again after its disk was full.

        Raises:
            DatabaseUnavailableError: It does not answer soon.
            SchemaNotCurrentError: It was replaced by another one.
            StorageFullError: Its disk is full.
        """
        await self._health.check()

    async def close(self) -> None:
        """Close every connection."""
        self._health.close()
        self._hot_connections.close()
        await self._engine.dispose()
