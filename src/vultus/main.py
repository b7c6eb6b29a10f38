"""Composition root: opens resources, builds services, closes in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from vultus import __version__
from vultus.api.app import create_app
from vultus.api.metrics import MetricsApp
from vultus.api.middleware import is_health_path
from vultus.console.manual import add_manual
from vultus.console.serving import add_console
from vultus.db.database import Database
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.upgrades import create_embedded_schema, upgrade_embedded
from vultus.db.urls import DatabaseUrls, read_urls
from vultus.errors import KeyRingError, SetupError, UnavailableError, VultusError
from vultus.live.endpoint import FRAME_ROOM_BYTES, add_live
from vultus.models.pipelines import PipelineRegistry
from vultus.models.runtime.choice import is_fork_safe
from vultus.models.weights.recommendation import ensure_recommended_pack
from vultus.models.weights.store import WeightsStore
from vultus.models.workers.fork_server import ProcessWorkerGroup
from vultus.models.workers.pool import AnalysisPool
from vultus.models.workers.worker import ThreadWorkerGroup
from vultus.sealing.custody import open_custody
from vultus.server.privileges import leave_root
from vultus.server.serving import (
    SOCKET_BACKLOG,
    ApiServer,
    bind_metrics_socket,
    bind_socket,
    build_registry,
    format_address,
    is_loopback,
    open_tls,
)
from vultus.services.background import run_jobs
from vultus.services.jobs import JobSupervisor
from vultus.services.old_seals import OLD_KEY_FILE, OldSeals
from vultus.services.people.erasure import Eraser
from vultus.services.people.key_destruction import KeyDestroyer
from vultus.services.people.ledger import ErasureLedger
from vultus.services.secret_vault import SecretVault
from vultus.services.wiring import Services, build_services
from vultus.utils.request_scope import RequestLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from socket import socket

    from vultus.domain import SpaceRegistry
    from vultus.live.sessions import SessionRegistry
    from vultus.models.workers.worker import WorkerGroup
    from vultus.sealing.custody import Custody
    from vultus.server.registry import ConnectionRegistry
    from vultus.settings import ServerSettings, Settings

log = logging.getLogger(__name__)

POSTGRES_CHECK_INTERVAL_S = 1.0
SESSION_CHECK_INTERVAL_S = 1.0


def open_weights_store(settings: Settings) -> WeightsStore:
    """Return where weights come from: the models folder, in a data directory nobody else may read.

    Raises:
        SetupError: The data directory cannot be made.
    """
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"The data directory {settings.data_dir} cannot be made: {error.strerror}. Set VULTUS_DATA_DIR to a folder "
            "of yours."
        ) from error
    return WeightsStore(settings.models.dir or settings.data_dir / "models", usage=settings.models.usage)


@asynccontextmanager
async def open_postgres(settings: Settings, jobs: JobSupervisor | None = None) -> AsyncIterator[DatabaseUrls]:
    """Yield the URLs of the PostgreSQL to use; without them, start the embedded server and watch it.

    Raises:
        EmbeddedDatabaseError: It does not start; the detail says what to do.
    """
    if settings.database.url:
        yield read_urls(settings.database)
        return
    embedded = EmbeddedPostgres(settings.data_dir)
    try:
        urls = await asyncio.to_thread(embedded.start)
        restart = partial(restart_postgres_if_dead, embedded)
        jobs = jobs or JobSupervisor()
        async with jobs.run("embedded-postgresql", restart, interval_s=POSTGRES_CHECK_INTERVAL_S):
            yield urls
    finally:
        await asyncio.to_thread(embedded.stop)


@asynccontextmanager
async def open_database(
    settings: Settings, jobs: JobSupervisor | None = None, *, migrates: bool = False
) -> AsyncIterator[Database]:
    """Yield a database with a current schema, in which nothing is that the ledger of erasures says has ended.

    Args:
        settings: Which database.
        jobs: Runs the job that watches the embedded server.
        migrates: Whether an embedded database of an older schema is migrated, as servers do; one that is empty gets its
            schema. Where it is not, what has expired is ended: where only commands run, nobody else does.

    Raises:
        SetupError: The server is too old, not durable, or without pgvector; its schema or the ledger is unusable.
    """
    async with open_postgres(settings, jobs) as urls:
        if settings.database.url is None:
            await (upgrade_embedded(urls, settings.data_dir) if migrates else create_embedded_schema(urls))
        database = await Database.connect(urls.serving, settings.database, owner_url=urls.owner)
        try:
            custody = database.use_keys(open_custody(settings))
            ledger = ErasureLedger.attach(database, settings.ledger_file)  # before what takes longer
            destroyer = KeyDestroyer.attach(database, custody.person_keys)
            await ledger.synchronize()
            await destroyer.destroy_after(())
            await _prepare_keys(database, settings, custody, serves=migrates)
            if not migrates:
                await Eraser(database, settings.jobs).end_expired()
            yield database
        finally:
            await database.close()


async def _prepare_keys(database: Database, settings: Settings, custody: Custody, *, serves: bool) -> None:
    """Make the installation's keys at its first start, and seal anew what version 0.1 sealed.

    What needs keys that cannot be used says so when it is asked for, a server at its start, too; the rest is served.
    """
    try:
        async with database.transaction() as work:
            await work.person_keys.ensure_installation_keys()
        await OldSeals(database, SecretVault(custody.keys), settings.data_dir / OLD_KEY_FILE).replace()
        if serves:
            async with database.transaction(read_only=True) as work:
                await work.person_keys.check_keys()
    except KeyRingError as error:
        log.error("%s", error.detail)


@asynccontextmanager
async def open_services(
    settings: Settings,
    *,
    processes: bool = False,
    progress: Callable[[str, int, int | None], None] = lambda _name, _done, _all: None,
) -> AsyncIterator[Services]:
    """Open database and networks side by side, and yield the services built on them.

    Args:
        settings: All of it.
        processes: Whether photos are analysed in processes of their own, which pays for a server; a command that
            analyses a few is done sooner with threads. They are forked first, before this process has a thread. On
            another device than the CPU a server has threads too: every process would need its networks there.
        progress: Called while the recommended pack is fetched, at the first start: name, bytes received, total bytes.
    """
    store = open_weights_store(settings)
    if settings.inference.pack is None:
        # Before anything else, and in this thread: workers are forked before this process has another one.
        ensure_recommended_pack(store, settings.models, retry=processes, progress=progress)
    load = partial(PipelineRegistry.load, settings.inference, settings.photos, store)
    jobs = JobSupervisor()
    async with AsyncExitStack() as stack:
        worker_processes = (
            _build_worker_processes(settings, load) if processes and settings.inference.device == "cpu" else None
        )
        if worker_processes:
            stack.push_async_callback(worker_processes.close)
        loading = asyncio.create_task(_load_networks(load, settings.inference.workers, worker_processes))
        stack.push_async_callback(_wait_until_loaded, loading)
        database = await stack.enter_async_context(open_database(settings, jobs, migrates=processes))
        workers, spaces = await loading
        if worker_processes:
            await worker_processes.start_workers(settings.inference.workers)
        lost = asyncio.Event()
        on_lost = partial(_end_without_workers, lost) if worker_processes else lambda: None
        pool = await stack.enter_async_context(AnalysisPool(settings.inference, workers, on_lost=on_lost))
        services = build_services(settings, database, pool, spaces, jobs)
        stack.callback(services.candidate_engine.close)
        stack.push_async_callback(services.last_seen.close)
        stack.push_async_callback(services.source_supervisor.close)
        await services.collections.ensure_default_collection()
        if processes and spaces.default.caution is not None:
            log.warning("%s", spaces.default.caution)  # commands say it in a sentence
        yield services
        if lost.is_set():
            raise UnavailableError(
                "Every process that analyses photos ended, and none could be started again; is there enough memory?"
            )


def _end_without_workers(lost: asyncio.Event) -> None:
    """Stop serving: a supervisor starts a server that has ended, and nobody one that answers 503 indefinitely."""
    lost.set()
    os.kill(os.getpid(), signal.SIGTERM)


def _build_worker_processes(settings: Settings, load: Callable[[], PipelineRegistry]) -> ProcessWorkerGroup:
    inference = settings.inference
    return ProcessWorkerGroup(
        load,
        memory_budget=settings.photos.memory_budget,
        timeout_s=inference.photo_timeout_s,
        decode_timeout_s=settings.photos.decode_timeout_s,
        shared=is_fork_safe(inference),
    )


async def _load_networks(
    load: Callable[[], PipelineRegistry], threads: int, processes: ProcessWorkerGroup | None
) -> tuple[WorkerGroup, SpaceRegistry]:
    """Wait until the processes have loaded the networks, or load them for threads of this one."""
    if processes:
        return processes, await processes.wait_until_loaded()
    pipelines = await asyncio.to_thread(load)
    return ThreadWorkerGroup(pipelines, threads), pipelines.spaces


async def _wait_until_loaded(task: asyncio.Task[Any]) -> None:
    with contextlib.suppress(VultusError):
        await task


async def restart_postgres_if_dead(server: EmbeddedPostgres) -> None:
    """Start the embedded PostgreSQL again if it has died; the pool finds it by the same URL. Bound its log.

    Raises:
        EmbeddedDatabaseError: It does not start.
    """
    if server.is_running():
        await asyncio.to_thread(server.rotate_log)
    else:
        log.warning("the embedded PostgreSQL died; it is started again")
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def run_sessions(jobs: JobSupervisor, sessions: SessionRegistry) -> AsyncIterator[None]:
    """Look after live sessions for the length of the block, then end them."""
    async with jobs.run("live-sessions", sessions.check_sessions, interval_s=SESSION_CHECK_INTERVAL_S):
        try:
            yield
        finally:
            await sessions.close()


async def serve_api(
    settings: Settings,
    announce: Callable[[str], None],
    deliver_key: Callable[[str], None],
    progress: Callable[[str, int, int | None], None] = lambda _name, _done, _all: None,
) -> None:
    """Serve the API until SIGINT or SIGTERM.

    Args:
        settings: All of it.
        announce: Called once requests are answered, with the address.
        deliver_key: Called the first time, with the administrator's key before it is stored; see `write_secret_file`.
        progress: As in `open_services`.
    """
    server_settings = settings.server
    tls, registry = open_tls(server_settings), build_registry(server_settings)
    with ExitStack() as sockets:
        listener = sockets.enter_context(bind_socket(server_settings.host, server_settings.port))
        metrics_listener = bind_metrics_socket(server_settings)
        if metrics_listener:
            sockets.enter_context(metrics_listener)
        leave_root(settings)
        async with open_services(settings, processes=True, progress=progress) as services:
            limits = RequestLimits(
                max_requests=server_settings.max_requests, max_bodies_bytes=server_settings.max_bodies_bytes
            )
            app = create_app(services, limits=limits, settings=server_settings)
            sessions = add_live(app, services, limits)
            add_console(app)
            add_manual(app)
            await services.access.bootstrap_admin_key(deliver_key)
            server = ApiServer(
                app,
                registry,
                root_path=server_settings.root_path,
                tls=tls,
                max_message_bytes=settings.live.max_frame_bytes + FRAME_ROOM_BYTES,
                is_always_answered=is_health_path,
            )
            async with (
                run_jobs(services),
                run_sessions(services.jobs, sessions),
                _serve_metrics(metrics_listener, registry),
            ):
                # Garbage collections need not look at what lives as long as the server.
                gc.freeze()
                listener.listen(SOCKET_BACKLOG)  # a client may connect as soon as the address is printed
                address = format_address(listener, tls=tls is not None)
                _warn_of_plain_text(server_settings)
                log.info("vultus %s answers on %s", __version__, address)
                announce(address)
                await server.serve(sockets=[listener])


@asynccontextmanager
async def _serve_metrics(listener: socket | None, registry: ConnectionRegistry) -> AsyncIterator[None]:
    """Serve `/metrics` on a socket of its own for the length of the block."""
    if listener is None:
        yield
        return
    server = ApiServer(MetricsApp(), registry, handle_signals=False)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    log.info("metrics answer on %s/metrics", format_address(listener, tls=False))
    try:
        yield
    finally:
        server.stop()
        await serving


def _warn_of_plain_text(settings: ServerSettings) -> None:
    if settings.tls_certificate is None and not settings.trusted_proxies and not is_loopback(settings.host):
        log.warning(
            "the API answers beyond this machine in plain HTTP, so keys and photos can be read on the way: set "
            "VULTUS_SERVER__TLS_CERTIFICATE and VULTUS_SERVER__TLS_KEY, or put a proxy with TLS in front of it and "
            "name it in VULTUS_SERVER__TRUSTED_PROXIES"
        )
