"""Composition root: opens resources, builds services, closes in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from vultus.api.app import create_app
from vultus.db.database import Database
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.migrate import upgrade_schema
from vultus.errors import SetupError, VultusError
from vultus.models.pipelines import PipelineRegistry
from vultus.models.runtime.choice import is_fork_safe
from vultus.models.weights.recommendation import ensure_recommended_pack
from vultus.models.weights.store import WeightsStore
from vultus.models.workers.fork_server import ProcessWorkerGroup
from vultus.models.workers.pool import AnalysisPool
from vultus.models.workers.worker import ThreadWorkerGroup
from vultus.services.jobs import JobSupervisor
from vultus.services.wiring import Services, build_services
from vultus.utils.request_scope import RequestLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from vultus.domain import SpaceRegistry
    from vultus.models.workers.worker import WorkerGroup
    from vultus.settings import Settings

log = logging.getLogger(__name__)

POSTGRES_CHECK_INTERVAL_S = 1.0
KEY_USAGE_INTERVAL_S = 60.0
SOCKET_BACKLOG = 2048
MAX_HEADER_BYTES = 64 * 2**10
"""Longest request line and headers, or trailers of a body, that are waited for; beyond it the connection is closed."""


def open_weights_store(settings: Settings) -> WeightsStore:
    """Return where weights come from and built graphs are cached, in a data directory nobody else may read.

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
    return WeightsStore(
        settings.data_dir / "cache", settings.models.dir or settings.data_dir / "models", usage=settings.models.usage
    )


@asynccontextmanager
async def open_postgres(settings: Settings, jobs: JobSupervisor | None = None) -> AsyncIterator[str]:
    """Yield the URL of the PostgreSQL to use; without one, start the embedded server and watch it.

    Raises:
        EmbeddedDatabaseError: It does not start; the detail says what to do.
    """
    if settings.database.url:
        yield settings.database.url.get_secret_value()
        return
    embedded = EmbeddedPostgres(settings.data_dir)
    try:
        url = await asyncio.to_thread(embedded.start)
        restart = partial(restart_postgres_if_dead, embedded)
        jobs = jobs or JobSupervisor()
        async with jobs.run("embedded-postgresql", restart, interval_s=POSTGRES_CHECK_INTERVAL_S):
            yield url
    finally:
        await asyncio.to_thread(embedded.stop)


@asynccontextmanager
async def open_database(settings: Settings, jobs: JobSupervisor | None = None) -> AsyncIterator[Database]:
    """Yield a database with a current schema; the embedded one is brought up to date first.

    Args:
        settings: Which database.
        jobs: Runs the job that watches the embedded server.

    Raises:
        SetupError: The server is too old, not durable, without pgvector, or needs `vultus db upgrade`.
    """
    async with open_postgres(settings, jobs) as url:
        if settings.database.url is None:
            await upgrade_schema(url)
        database = await Database.connect(url, settings.database)
        try:
            yield database
        finally:
            await database.close()


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
        database = await stack.enter_async_context(open_database(settings, jobs))
        workers, spaces = await loading
        if worker_processes:
            await worker_processes.start_workers(settings.inference.workers)
        pool = await stack.enter_async_context(AnalysisPool(settings.inference, workers))
        services = build_services(settings, database, pool, spaces, jobs)
        stack.callback(services.candidate_engine.close)
        await services.collections.ensure_default_collection()
        yield services


def _build_worker_processes(settings: Settings, load: Callable[[], PipelineRegistry]) -> ProcessWorkerGroup:
    inference = settings.inference
    return ProcessWorkerGroup(
        load,
        pixel_budget=settings.photos.pixel_budget,
        timeout_s=inference.photo_timeout_s,
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
    """Start the embedded PostgreSQL again if it has died; the pool finds it by the same URL.

    Raises:
        EmbeddedDatabaseError: It does not start.
    """
    if not server.is_running():
        log.warning("the embedded PostgreSQL died; it is started again")
        await asyncio.to_thread(server.start)


def bind_socket(host: str, port: int) -> socket.socket:
    """Bind the API's socket before anything slow happens.

    Raises:
        SetupError: The address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Head and body of an answer are two writes: without this the second waits 40 ms for the first one's receipt.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SetupError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Stop what uses the port, or set VULTUS_SERVER__PORT."
        ) from error
    return listener


class _ApiServer(uvicorn.Server):
    """Stops on SIGINT and SIGTERM by returning.

    uvicorn would raise the signal again after serving, and SIGTERM would end the process before anything is closed.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals in the event loop; the second SIGINT does not wait for requests under way."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


@asynccontextmanager
async def run_jobs(services: Services) -> AsyncIterator[None]:
    """Run the server's background jobs for the length of the block."""
    settings, run = services.settings, services.jobs.run
    async with (
        run("expiry-sweep", services.eraser.sweep_expired, interval_s=settings.jobs.sweep_interval_s),
        run("backfill", services.backfill_worker.run, interval_s=settings.jobs.carry_interval_s),
        run("shadow-comparison", services.shadow_comparer.compare_next, interval_s=None),
        run("index-sync", services.indexes.update_indexes, interval_s=settings.index.interval_s),
        run("recall-monitor", services.searcher.check_next_recall, interval_s=None),
        run("key-usage", services.access.record_uses, interval_s=KEY_USAGE_INTERVAL_S),
    ):
        yield


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
    with bind_socket(settings.server.host, settings.server.port) as listener:
        async with open_services(settings, processes=True, progress=progress) as services:
            limits = RequestLimits(
                max_requests=settings.server.max_requests, max_bodies_bytes=settings.server.max_bodies_bytes
            )
            app = create_app(services, limits=limits, metrics=settings.server.metrics)
            await services.access.bootstrap_admin_key(deliver_key)
            config = uvicorn.Config(
                app,
                http="h11",  # httptools has no limit for a head, and copies a long header anew for every part of it
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=10,
            )
            host, port = listener.getsockname()[:2]
            address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            async with run_jobs(services):
                # Garbage collections need not look at what lives as long as the server.
                gc.freeze()
                listener.listen(SOCKET_BACKLOG)  # a client may connect as soon as the address is printed
                announce(address)
                await _ApiServer(config).serve(sockets=[listener])
