"""Which sources this server watches: it takes those that no other one watches, and says again and again that it lives.

A source has one watcher at a time. A server that does not renew its lease, because it died or lost the database, has
lost its sources after `LEASE_S`, and stops watching them by itself; another one takes them. What a source was doing is
in the database, and changes in one transaction with the event that tells of it, so every loss and every return is told
once, whoever watches.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vultus.domain import Permission, Principal, StreamOrigin
from vultus.domain.sources import SourceProblem, SourceState, SourceStatus
from vultus.errors import (
    ForbiddenError,
    KeyRingError,
    NotFoundError,
    OverloadedError,
    SetupError,
    UnavailableError,
    VultusError,
)
from vultus.services.sources.watching import FrameRates, SourceFigures, SourceWatch
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import Frame, FrameResult
    from vultus.domain.sources import Source
    from vultus.services.events.sighting_log import OutboxSightingLog
    from vultus.services.live.service import StreamService
    from vultus.services.live.stream import LiveStream
    from vultus.services.sources.management import SourceService
    from vultus.settings import SourceSettings
    from vultus.sources.messages import FrameTaken

log = logging.getLogger(__name__)

LEASE_S = 15.0
CLAIM_SIZE = 4
"""Sources that a server takes in one run, so that several that start together share them."""

RETRY_S = 1.0
"""Pause before a change of state is written again, while the database is away or busy."""


class SourceSupervisor:
    """Watches sources.

    Attributes:
        id: Of this server, among those that watch.
    """

    def __init__(
        self,
        database: Database,
        sources: SourceService,
        streams: StreamService,
        settings: SourceSettings,
        sightings: OutboxSightingLog,
    ) -> None:
        self.id = new_id()
        self._sightings = sightings
        self._database = database
        self._sources = sources
        self._streams = streams
        self._settings = settings
        self._runners: dict[UUID, SourceRunner] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self._expiring: asyncio.Task[None] | None = None
        self._is_full = False

    async def run(self) -> None:
        """Renew what is watched, take what nobody watches, stop what is no longer to be watched: one run of a job.

        Raises:
            VultusError: The database is away; what is watched goes on until the leases end.
        """
        ends_at = time.monotonic() + LEASE_S
        try:
            async with asyncio.timeout(LEASE_S / 2):  # later, what is renewed has hardly begun when it ends
                leased = await self._renew_leases()
        except TimeoutError:
            raise UnavailableError("The leases of sources could not be renewed in time.") from None
        if leased is None:
            return
        sources, live = leased
        self._schedule_expiry(ends_at)
        wanted = {source.id: source for source in sources}
        outdated = [one for one, runner in self._runners.items() if runner.is_outdated(wanted.get(one))]
        await self._stop_runners(outdated)
        for runner in self._runners.values():
            if runner.key_id is not None and runner.key_id not in live:
                runner.revoke()
        if time.monotonic() >= ends_at:  # what was stopped took long to end
            return
        for source in wanted.values():
            if source.id not in self._runners:
                self._runners[source.id] = SourceRunner(self, source)
        if gone := [one for one in outdated if one not in wanted]:  # switched on again, they need wait for no lease
            async with self._database.transaction() as work:
                await work.sources.release_sources(self.id, gone)

    async def _renew_leases(self) -> tuple[tuple[Source, ...], frozenset[UUID]] | None:
        """Return the sources that this server has from now on, and which keys of its runners live; None without any."""
        if not self._runners:
            async with self._database.hot_queries() as hot:
                if not await hot.pending_work.has_unwatched_sources():
                    return None
        room = self._settings.max_watched - sum(not one.is_over for one in self._runners.values())
        if room <= 0 and not self._is_full:
            log.warning(
                "As many sources are watched here as may be: VULTUS_SOURCES__MAX_WATCHED says %d.",
                self._settings.max_watched,
            )
        self._is_full = room <= 0
        async with self._database.transaction() as work:
            kept = await work.sources.renew_leases(
                self.id, LEASE_S, {one: runner.status for one, runner in self._runners.items()}
            )
            taken = await work.sources.claim_sources(self.id, LEASE_S, max(0, min(CLAIM_SIZE, room)))
            keys = {runner.key_id for runner in self._runners.values() if runner.key_id is not None}
            live = await work.keys.list_live_ids(keys) if keys else frozenset()
        return (*kept, *taken), live

    def _schedule_expiry(self, ends_at: float) -> None:
        """Stop watching when the leases end, unless they were renewed: however long the database takes to answer."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(ends_at - time.monotonic(), self._expire)

    def _expire(self) -> None:
        if self._runners:
            log.warning("The leases of the sources that are watched here have ended; other servers may take them.")
            ended, self._runners = self._runners, {}
            self._expiring = asyncio.create_task(_stop_all(ended.values()))

    async def _stop_runners(self, ids: list[UUID]) -> None:
        await _stop_all([self._runners.pop(one) for one in ids if one in self._runners])

    async def close(self) -> None:
        """Stop watching, and let other servers take over at once."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._expiring is not None:
            await self._expiring
        ids = list(self._runners)
        await self._stop_runners(ids)
        if ids:
            try:
                async with self._database.transaction() as work:
                    await work.sources.release_sources(self.id, ids)
            except VultusError as error:
                log.warning("sources were not given up: %s", error.detail)
        await self._sources.pool.close()

    def build_watch(self, runner: SourceRunner, principal: Principal) -> SourceWatch:
        """Open a source, and return a watch of it.

        Raises:
            KeyRingError: Its address cannot be unsealed here.
            UnavailableError: Its address is damaged.
        """
        source = runner.source

        async def open_stream(scale: float) -> LiveStream:
            return await self._streams.open_stream(
                principal,
                reference=str(source.collection_id),
                origin=StreamOrigin("source", source.id),
                min_face_px=None if source.min_face_px is None else source.min_face_px * scale,
                zones=source.zones,
            )

        rates = FrameRates(source.fps or self._settings.fps, source.idle_fps or self._settings.idle_fps)
        opening = self._sources.build_opening(source)
        watch = SourceWatch(self._sources.pool.open_feed(opening), open_stream, rates, runner)
        self._sources.watches[source.id] = watch
        return watch

    def remove_watch(self, source: Source) -> None:
        """Forget the watch of a source, and with it the frame that it held."""
        self._sources.watches.pop(source.id, None)

    async def find_principal(self, source: Source) -> Principal | None:
        """Return for whom a source is watched; None if its key is revoked, or may do it no more."""
        if source.key_id is None:
            return Principal.from_process("source")
        async with self._database.hot_queries() as work:
            key = await work.keys.find_live_key_by_id(source.key_id)
        principal = Principal.from_key(key) if key else None
        if principal and Permission.LIVE in principal.permissions and principal.can_reach(source.collection_id):
            return principal
        return None

    async def write_state(self, source: Source, state: SourceState, problem: SourceProblem | None) -> None:
        """Write what a source is doing, with the event of a loss or a return, as soon as that is possible."""
        now, event_id = datetime.now(UTC), new_id()
        while True:
            try:
                await self._sightings.write_waiting()  # who left when the source was lost left before
                async with self._database.transaction() as work:
                    kind = await work.sources.set_state(self.id, source, state, problem)
                    if kind is not None:
                        sighting = kind(collection_id=source.collection_id, origin_id=source.id, at=now)
                        await work.record_sighting(sighting, event_id)
                return
            except (OverloadedError, UnavailableError) as error:
                log.warning("the state of a source is not written yet: %s", error.detail)
                await asyncio.sleep(RETRY_S)


async def _stop_all(runners: Iterable[SourceRunner]) -> None:
    await asyncio.gather(*(one.stop() for one in runners))


class SourceRunner:
    """Watches one source for as long as this server has it.

    Attributes:
        source: As it was when the watch began.
    """

    def __init__(self, supervisor: SourceSupervisor, source: Source) -> None:
        self.source = source
        self._supervisor = supervisor
        self._state = source.status.state
        self._problem: SourceProblem | None = None
        self._figures = SourceFigures()
        self._is_revoked = False
        self._task = asyncio.create_task(self._run(), name=f"source {source.id}")

    @property
    def key_id(self) -> UUID | None:
        """Key that it is watched for, while it is."""
        return None if self._is_revoked or self._task.done() else self.source.key_id

    @property
    def is_over(self) -> bool:
        """Whether the watch has ended for good: the video is over, or the key revoked."""
        return self._task.done()

    @property
    def status(self) -> SourceStatus:
        """Its figures now."""
        figures = self._figures
        return SourceStatus(
            self._state, self.source.status.since, self._problem, figures.last_frame_at, figures.fps, figures.dropped
        )

    def is_outdated(self, source: Source | None) -> bool:
        """Return whether the source was changed, switched off, deleted or taken by another server."""
        return source is None or source.updated_at != self.source.updated_at

    def revoke(self) -> None:
        """Stop because the key was revoked."""
        self._is_revoked = True
        self._task = asyncio.create_task(self._end(self._task))

    async def _end(self, watching: asyncio.Task[None]) -> None:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)  # who was there has left before
        await self._set_state(SourceState.STOPPED, SourceProblem.KEY_REVOKED)

    async def stop(self) -> None:
        """Stop watching; who is there leaves."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._set_state(SourceState.STOPPED, await self._watch_until_end())
            except VultusError as error:
                log.warning("a source is watched again in a moment: %s", error.detail, extra={"code": error.code})
            except Exception:
                log.exception("the watch of a source failed; it begins again")
            else:
                return
            await asyncio.sleep(RETRY_S)

    async def _watch_until_end(self) -> SourceProblem:
        """Watch, and return why that has ended for good."""
        try:
            return await self._watch()
        except (ForbiddenError, NotFoundError):
            return SourceProblem.KEY_REVOKED
        except KeyRingError as error:
            log.error("a source cannot be opened: %s", error.detail)
            return SourceProblem.SECRET_UNREADABLE
        except SetupError as error:
            log.error("a source cannot be watched: %s", error.detail)
            return SourceProblem.NOT_ANALYSED

    async def _watch(self) -> SourceProblem:
        """Watch until the video is over; return why the watch ended."""
        principal = await self._supervisor.find_principal(self.source)
        if principal is None:
            return SourceProblem.KEY_REVOKED
        if self._state is SourceState.STOPPED:
            await self._set_state(SourceState.CONNECTING, None)
        watch = self._supervisor.build_watch(self, principal)  # nothing is awaited between: it closes what is open
        self._figures = watch.figures
        try:
            await watch.run()
        finally:
            self._supervisor.remove_watch(self.source)
        return SourceProblem.FINISHED

    async def handle_frame(self, taken: FrameTaken, frame: Frame, result: FrameResult) -> None:
        """Do nothing: the stream records who is seen."""

    async def handle_start(self) -> None:
        """Note that the source sends frames."""
        await self._set_state(SourceState.RUNNING, None)

    async def handle_loss(self, problem: SourceProblem) -> None:
        """Note that it sends none; one that never did is not lost."""
        if problem is not SourceProblem.FINISHED:
            was_seen = self._state in {SourceState.RUNNING, SourceState.LOST}
            await self._set_state(SourceState.LOST if was_seen else SourceState.CONNECTING, problem)

    async def _set_state(self, state: SourceState, problem: SourceProblem | None) -> None:
        if (state, problem) != (self._state, self._problem):
            await self._supervisor.write_state(self.source, state, problem)
            self._state, self._problem = state, problem
