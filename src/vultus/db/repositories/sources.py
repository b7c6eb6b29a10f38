"""Stores sources, and which server watches each: one at a time, as long as it says so again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import case, delete, func, insert, literal, or_, select, text, update

from vultus.db.source_table import SourceRow
from vultus.domain import Zone
from vultus.domain.sightings import SourceBack, SourceLost
from vultus.domain.sources import Source, SourceProblem, SourceState, SourceStatus
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_IS_WATCHED = SourceRow.watched_until > func.now()
_COLUMNS = (
    SourceRow.id,
    SourceRow.collection_id,
    SourceRow.key_id,
    SourceRow.name,
    SourceRow.label,
    SourceRow.sealed_address,
    SourceRow.min_face_px,
    SourceRow.zones,
    SourceRow.fps,
    SourceRow.idle_fps,
    SourceRow.enabled,
    SourceRow.created_at,
    SourceRow.updated_at,
    func.coalesce(_IS_WATCHED, False).label("is_watched"),
    SourceRow.state,
    SourceRow.since,
    SourceRow.problem,
    SourceRow.last_frame_at,
    SourceRow.measured_fps,
    SourceRow.dropped,
)

IS_UNWATCHED = (
    SourceRow.enabled,
    SourceRow.problem.is_distinct_from(SourceProblem.FINISHED),
    or_(SourceRow.watcher.is_(None), SourceRow.watched_until <= func.now()),
)


class SourceRepository:
    """Stores sources."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_source(self, source_id: UUID, **values: Any) -> Source:
        """Add a source; the values are its columns."""
        row = await self._session.execute(insert(SourceRow).values(id=source_id, **values).returning(*_COLUMNS))
        return _build_source(row.one())

    async def get_source(self, source_id: UUID, within: Set[UUID] | None = None, *, lock: bool = False) -> Source:
        """Return a source, with `lock` locked until the transaction ends.

        Args:
            source_id: Its id.
            within: If given, only of these collections.
            lock: Whether it is to be changed.

        Raises:
            NotFoundError: There is no such source.
        """
        query = select(*_COLUMNS).where(SourceRow.id == source_id)
        if within is not None:
            query = query.where(SourceRow.collection_id.in_(within))
        row = (await self._session.execute(query.with_for_update() if lock else query)).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no source with id {source_id}.")
        return _build_source(row)

    async def list_sources(self, after: UUID | None, limit: int, within: Set[UUID] | None = None) -> tuple[Source, ...]:
        """Return sources in order of creation, those after the given id.

        Args:
            after: Id of the last source of the page before.
            limit: Most sources.
            within: If given, only of these collections.
        """
        query = select(*_COLUMNS).order_by(SourceRow.id).limit(limit)
        if within is not None:
            query = query.where(SourceRow.collection_id.in_(within))
        if after is not None:
            query = query.where(SourceRow.id > after)
        return tuple(map(_build_source, await self._session.execute(query)))

    async def update_source(self, source_id: UUID, **changes: Any) -> Source:
        """Change an existing source, which begins anew; one that is and stays switched off has changed no state."""
        begins_or_ends = or_(SourceRow.enabled, literal(bool(changes.get("enabled"))))
        since = case((begins_or_ends, func.now()), else_=SourceRow.since)
        changed = (
            update(SourceRow)
            .where(SourceRow.id == source_id)
            .values(**changes, since=since, updated_at=func.now())
            .returning(*_COLUMNS)
        )
        return _build_source((await self._session.execute(changed)).one())

    async def delete_source(self, source_id: UUID) -> None:
        """Delete a source."""
        await self._session.execute(delete(SourceRow).where(SourceRow.id == source_id))

    async def claim_sources(self, watcher: UUID, lease_s: float, limit: int) -> tuple[Source, ...]:
        """Take sources that no server watches, and return them.

        Args:
            watcher: The server that takes them.
            lease_s: How long it has them unless it renews that.
            limit: Most sources.
        """
        free = (
            select(SourceRow.id)
            .where(*IS_UNWATCHED)
            .order_by(SourceRow.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("free")  # is run once; a plan may run a subquery again, which then finds others
        )
        claimed = (
            update(SourceRow)
            .where(SourceRow.id.in_(select(free.c.id)))
            .values(watcher=watcher, watched_until=_build_end(lease_s))
            .returning(*_COLUMNS)
        )
        return tuple(map(_build_source, await self._session.execute(claimed)))

    async def renew_leases(
        self, watcher: UUID, lease_s: float, statuses: Mapping[UUID, SourceStatus]
    ) -> tuple[Source, ...]:
        """Keep the sources that a server watches, and note their figures; return those it still has and may watch.

        Args:
            watcher: The server.
            lease_s: How long from now.
            statuses: By id of the source; of each the figures are stored, its state is not.
        """
        await self._session.execute(
            text(
                "UPDATE sources SET watched_until = now() + make_interval(secs => :lease), last_frame_at ="
                " coalesce(seen.last, last_frame_at), measured_fps = seen.fps, dropped = seen.dropped"
                " FROM unnest(CAST(:ids AS uuid[]), CAST(:lasts AS timestamptz[]), CAST(:fps AS float8[]),"
                " CAST(:dropped AS bigint[])) AS seen (id, last, fps, dropped)"
                " WHERE sources.id = seen.id AND watcher = :watcher"
            ),
            {
                "lease": lease_s,
                "watcher": watcher,
                "ids": list(statuses),
                "lasts": [one.last_frame_at for one in statuses.values()],
                "fps": [one.fps for one in statuses.values()],
                "dropped": [one.dropped for one in statuses.values()],
            },
        )
        query = select(*_COLUMNS).where(SourceRow.watcher == watcher, SourceRow.enabled, _IS_WATCHED)
        return tuple(map(_build_source, await self._session.execute(query)))

    async def release_sources(self, watcher: UUID, ids: Sequence[UUID]) -> None:
        """Give sources up, so that another server may watch them at once."""
        await self._session.execute(
            update(SourceRow)
            .where(SourceRow.watcher == watcher, SourceRow.id.in_(ids))
            .values(watcher=None, watched_until=None)
        )

    async def set_state(
        self, watcher: UUID, source: Source, state: SourceState, problem: SourceProblem | None
    ) -> type[SourceLost | SourceBack] | None:
        """Set what a source is doing, if the server still watches it and nobody has changed it.

        Returns:
            What there is to tell: a loss of frames, and once after each told loss that there are frames again, whatever
            happened to the source between. None for nothing.
        """
        query = (
            select(SourceRow.state, SourceRow.is_loss_told)
            .where(SourceRow.id == source.id, SourceRow.watcher == watcher, SourceRow.updated_at == source.updated_at)
            .with_for_update()
        )
        before = (await self._session.execute(query)).one_or_none()
        if before is None:
            return None
        values: dict[str, Any] = {"state": state, "problem": problem}
        if before.state != state:
            values["since"] = func.now()
        kind: type[SourceLost | SourceBack] | None = None
        if before.is_loss_told and state is SourceState.RUNNING:
            kind = SourceBack
        elif before.state == SourceState.RUNNING and state is SourceState.LOST:
            kind = SourceLost
        if kind is not None:
            values["is_loss_told"] = kind is SourceLost
        await self._session.execute(update(SourceRow).where(SourceRow.id == source.id).values(**values))
        return kind


def _build_end(lease_s: float) -> Any:
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, lease_s)


def _build_source(row: Any) -> Source:
    return Source(
        id=row.id,
        collection_id=row.collection_id,
        key_id=row.key_id,
        name=row.name,
        label=row.label,
        sealed_address=row.sealed_address,
        min_face_px=row.min_face_px,
        zones=tuple(Zone(tuple((float(x), float(y)) for x, y in points)) for points in row.zones),
        fps=row.fps,
        idle_fps=row.idle_fps,
        enabled=row.enabled,
        created_at=row.created_at,
        updated_at=row.updated_at,
        is_watched=row.is_watched,
        status=SourceStatus(
            SourceState(row.state),
            row.since,
            None if row.problem is None else SourceProblem(row.problem),
            row.last_frame_at,
            row.measured_fps,
            row.dropped,
        ),
    )
