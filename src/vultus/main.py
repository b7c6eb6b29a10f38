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
from typing import TYPE_CHECKING

import uvicorn

from vultus.api.app import create_app
from vultus.db.database import Database
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.migrate import upgrade
from vultus.errors import SetupError, VultusError
from vultus.models.pipelines import Pipelines
from vultus.models.runtime.choice import survives_fork
from vultus.models.weights.store import WeightsStore
from vultus.models.workers.fork_server import Processes
from vultus.models.workers.pool import AnalysisPool
from vultus.services.wiring import Services, build

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from vultus.services.migration.backfill import Carrier
    from vultus.services.people.erasure import Eraser
    from vultus.settings import Settings

log = logging.getLogger(__name__)

WATCH_INTERVAL_S = 1.0
BACKLOG = 2048
MAX_HEAD_BYTES = 64 * 2**10
"""Longest request line and headers, or trailers of a body, that are waited for; beyond it the connection is closed."""


def open_store(settings: Settings) -> WeightsStore:
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
async def open_server(settings: Settings) -> AsyncIterator[str]:
    """Yield the URL of the PostgreSQL to use, starting the embedded one when no URL is set.

    Raises:
        EmbeddedDatabaseError: It does not start; the detail says what to do.
    """
    if settings.database.url:
        yield settings.database.url.get_secret_value()
        return
    embedded = EmbeddedPostgres(settings.data_dir)
    try:
        url = await asyncio.to_thread(embedded.start)
        async with beside(keep_alive(embedded)):
            yield url
    finally:
        await asyncio.to_thread(embedded.stop)


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Yield a database with a current schema; the embedded one is brought up to date first.

    Raises:
        SetupError: The server is too old, not durable, without pgvector, or needs `vultus db upgrade`.
    """
    async with open_server(settings) as url:
        if settings.database.url is None:
            await upgrade(url)
        database = await Database.connect(url, settings.database)
        try:
            yield database
        finally:
            await database.close()


@asynccontextmanager
async def open_services(settings: Settings, *, processes: bool = False) -> AsyncIterator[Services]:
    """Open database and networks side by side, and yield the services built on them.

    Args:
        settings: All of it.
        processes: Whether photos are analysed in processes of their own, which pays for a server; a command that
            analyses a few is done sooner with threads. They are forked first, before this process has a thread. On
            another device than the CPU a server has threads too: every process would need its networks there.
    """
    load = partial(Pipelines.load, settings.inference, settings.photos, open_store(settings))
    async with AsyncExitStack() as stack:
        crew = _processes(settings, load) if processes and settings.inference.device == "cpu" else None
        if crew:
            stack.push_async_callback(crew.close)
        loading = asyncio.create_task(crew.ready() if crew else asyncio.to_thread(load))
        stack.push_async_callback(_settle, loading)
        database = await stack.enter_async_context(open_database(settings))
        pipelines = await loading
        if crew:
            await crew.start(settings.inference.workers)
        pool = await stack.enter_async_context(AnalysisPool(settings.inference, crew))
        services = build(settings, database, pool, pipelines)
        await services.collections.ensure_default()
        yield services


def _processes(settings: Settings, load: Callable[[], Pipelines]) -> Processes:
    inference = settings.inference
    return Processes(
        load,
        pixel_budget=settings.photos.pixel_budget,
        patience_s=inference.photo_timeout_s,
        shared=survives_fork(inference),
    )


async def _settle(task: asyncio.Task[Pipelines]) -> None:
    with contextlib.suppress(VultusError):
        await task


@asynccontextmanager
async def beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run endless work in the background while the block runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def sweep_now_and_then(eraser: Eraser, interval_s: float) -> None:
    """Erase what has expired, for ever."""
    while True:
        try:
            if ended := await eraser.sweep():
                log.info("expired consents ended", extra={"consents": ended})
        except Exception as error:
            log.error("sweep failed; it runs again", exc_info=error)
        await asyncio.sleep(interval_s)


async def carry_now_and_then(carrier: Carrier, interval_s: float) -> None:
    """Carry faces to the network their collection moves to, for ever."""
    while True:
        try:
            if carried := await carrier.run():
                log.info("faces carried to another network", extra={"faces": carried})
        except Exception as error:
            log.error("carrying failed; it goes on", exc_info=error)
        await asyncio.sleep(interval_s)


async def keep_alive(server: EmbeddedPostgres) -> None:
    """Start the embedded PostgreSQL again whenever it has died; the pool finds it by the same URL."""
    while True:
        await asyncio.sleep(WATCH_INTERVAL_S)
        if not server.alive():
            log.warning("the embedded PostgreSQL died; it is started again")
            try:
                await asyncio.to_thread(server.start)
            except VultusError as error:
                log.error("the embedded PostgreSQL does not start: %s", error.detail)


def listen(host: str, port: int) -> socket.socket:
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


class _Server(uvicorn.Server):
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


async def serve(settings: Settings, announce: Callable[[str, str | None], None]) -> None:
    """Serve the API until SIGINT or SIGTERM.

    Args:
        settings: All of it.
        announce: Called once requests are answered, with the address and, the first time, the administrator's key.
    """
    with listen(settings.server.host, settings.server.port) as listener:
        async with open_services(settings, processes=True) as services:
            app = create_app(services, max_requests=settings.server.max_requests, metrics=settings.server.metrics)
            first_key = await services.access.ensure_first()
            config = uvicorn.Config(
                app,
                http="h11",  # httptools has no limit for a head, and copies a long header anew for every part of it
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=10,
            )
            host, port = listener.getsockname()[:2]
            address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            jobs = settings.jobs
            async with (
                beside(sweep_now_and_then(services.eraser, jobs.sweep_interval_s)),
                beside(carry_now_and_then(services.carrier, jobs.carry_interval_s)),
                beside(services.shadow.forever()),
                beside(services.indexes.forever(settings.index.interval_s)),
                beside(services.searcher.repeat_forever(services.database)),
            ):
                # What lives as long as the server need not be looked at by every collection of garbage.
                gc.freeze()
                listener.listen(BACKLOG)  # whoever read the announcement may come before the event loop accepts
                announce(address, first_key)
                await _Server(config).serve(sockets=[listener])
