"""Stores online model migrations: their state, coverage and unmigrated persons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Uuid, bindparam, delete, func, insert, or_, select, text, update

from vultus.db.tables import CodingRow, TransitionRow
from vultus.domain import Coverage, Migration, UnmigratedPerson

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_COLUMNS = (
    TransitionRow.collection_id,
    TransitionRow.contract_id,
    TransitionRow.shadow_share,
    TransitionRow.begun_at,
    TransitionRow.switched_at,
    TransitionRow.policies,
)


class MigrationRepository:
    """Stores migrations of collections to another embedding space."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_migration(self, collection_id: UUID, space_id: str, shadow_share: float) -> None:
        """Record the start of a migration."""
        await self._session.execute(
            insert(TransitionRow).values(collection_id=collection_id, contract_id=space_id, shadow_share=shadow_share)
        )

    async def find_migration(self, collection_id: UUID) -> Migration | None:
        """Return a collection's active migration, if it has one."""
        row = (
            await self._session.execute(select(*_COLUMNS).where(TransitionRow.collection_id == collection_id))
        ).one_or_none()
        return None if row is None else Migration(*row)

    async def list_migrations(self) -> tuple[Migration, ...]:
        """Return all active migrations, oldest first."""
        return tuple(Migration(*row) for row in await self._session.execute(select(*_COLUMNS).order_by("begun_at")))

    async def update_migration(self, collection_id: UUID, **changes: Any) -> None:
        """Change `shadow_share`, `switched_at` or `policies`."""
        await self._session.execute(
            update(TransitionRow).where(TransitionRow.collection_id == collection_id).values(**changes)
        )

    async def delete_migration(self, collection_id: UUID, space_id: str) -> None:
        """Delete a migration and the quantizer parameters of an embedding space."""
        await self._session.execute(delete(TransitionRow).where(TransitionRow.collection_id == collection_id))
        await self._session.execute(
            delete(CodingRow).where(CodingRow.collection_id == collection_id, CodingRow.contract_id == space_id)
        )

    async def acquire_lease(self, collection_id: UUID, worker_id: UUID, duration_s: float) -> bool:
        """Acquire or extend the lease to backfill a collection; return False if another worker holds it.

        An expired lease can be acquired by another worker.
        """
        taken = await self._session.execute(
            update(TransitionRow)
            .where(
                TransitionRow.collection_id == collection_id,
                or_(
                    TransitionRow.worker_id == worker_id,
                    TransitionRow.leased_until.is_(None),
                    TransitionRow.leased_until <= func.now(),
                ),
            )
            .values(worker_id=worker_id, leased_until=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, duration_s))
            .returning(TransitionRow.collection_id)
        )
        return taken.one_or_none() is not None

    async def release_lease(self, collection_id: UUID, worker_id: UUID) -> None:
        """Release a worker's lease before it expires."""
        await self._session.execute(
            update(TransitionRow)
            .where(TransitionRow.collection_id == collection_id, TransitionRow.worker_id == worker_id)
            .values(worker_id=None, leased_until=None)
        )

    async def compute_coverage(self, collection_id: UUID, space_id: str) -> Coverage:
        """Return the coverage of an embedding space."""
        row = (
            await self._session.execute(_COMPUTE_COVERAGE, {"collection": collection_id, "contract": space_id})
        ).one()
        return Coverage(space_id, row.faces, row.missing, row.failed or {}, row.persons_missing)

    async def list_unmigrated_persons(
        self, collection_id: UUID, space_id: str, after: UUID | None, limit: int
    ) -> tuple[UnmigratedPerson, ...]:
        """Return persons that no search in an embedding space finds, in order of creation, those after the given id."""
        values = {"collection": collection_id, "contract": space_id, "after": after, "limit": limit}
        rows = await self._session.execute(_LIST_UNMIGRATED_PERSONS, values)
        return tuple(UnmigratedPerson(row.id, row.external_id, row.name, row.faces, tuple(row.reasons)) for row in rows)


_COMPUTE_COVERAGE = text(
    """
    WITH each AS MATERIALIZED (
        SELECT id, person_id, bool_or(contract_id = :contract) AS has FROM faces
        WHERE collection_id = :collection AND consent_expires_at > now() GROUP BY id, person_id
    ), failed AS (
        SELECT reason, count(*) AS faces FROM carry_failures JOIN each ON each.id = face_id AND NOT has
        WHERE collection_id = :collection AND contract_id = :contract GROUP BY reason
    )
    SELECT count(*) FILTER (WHERE has) AS faces, count(*) FILTER (WHERE NOT has) AS missing,
           (SELECT jsonb_object_agg(reason, faces) FROM failed) AS failed,
           (SELECT count(*) FROM (SELECT FROM each GROUP BY person_id HAVING NOT bool_or(has)) AS unseen)
               AS persons_missing
    FROM each
    """
).bindparams(bindparam("collection", type_=Uuid))

# Includes persons without any face: after the end of a migration these are the unmigrated ones.
_LIST_UNMIGRATED_PERSONS = text(
    """
    SELECT persons.id, persons.external_id, persons.name, count(DISTINCT faces.id) AS faces,
           array_remove(array_agg(DISTINCT reason), NULL) AS reasons
    FROM persons
    LEFT JOIN faces ON faces.collection_id = :collection AND faces.person_id = persons.id
        AND faces.consent_expires_at > now()
    LEFT JOIN carry_failures ON carry_failures.collection_id = :collection AND carry_failures.face_id = faces.id
        AND carry_failures.contract_id = :contract
    WHERE persons.collection_id = :collection AND (CAST(:after AS uuid) IS NULL OR persons.id > :after)
    GROUP BY persons.id HAVING NOT coalesce(bool_or(faces.contract_id = :contract), false)
    ORDER BY persons.id LIMIT :limit
    """
).bindparams(bindparam("collection", type_=Uuid), bindparam("after", type_=Uuid))
