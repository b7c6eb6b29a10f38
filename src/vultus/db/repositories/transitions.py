"""Collections on their way from one contract to another: how far they are, and who is missing where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Uuid, bindparam, delete, func, insert, or_, select, text, update

from vultus.db.tables import CodingRow, FaceRow, TransitionRow
from vultus.domain import LeftBehind, Side, Transition

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

DELETED_AT_ONCE = 20_000

_COLUMNS = (
    TransitionRow.collection_id,
    TransitionRow.contract_id,
    TransitionRow.shadow_share,
    TransitionRow.begun_at,
    TransitionRow.switched_at,
    TransitionRow.policies,
)


class Transitions:
    """The collections that change their network."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, collection_id: UUID, contract_id: str, shadow_share: float) -> None:
        """Record that a collection sets out for a contract."""
        await self._session.execute(
            insert(TransitionRow).values(
                collection_id=collection_id, contract_id=contract_id, shadow_share=shadow_share
            )
        )

    async def get(self, collection_id: UUID) -> Transition | None:
        """Return a collection's transition, if one is under way."""
        row = (
            await self._session.execute(select(*_COLUMNS).where(TransitionRow.collection_id == collection_id))
        ).one_or_none()
        return None if row is None else Transition(*row)

    async def all(self) -> tuple[Transition, ...]:
        """Return every transition under way, the oldest first."""
        return tuple(Transition(*row) for row in await self._session.execute(select(*_COLUMNS).order_by("begun_at")))

    async def change(self, collection_id: UUID, **changes: Any) -> None:
        """Change `shadow_share`, `switched_at` or `policies`."""
        await self._session.execute(
            update(TransitionRow).where(TransitionRow.collection_id == collection_id).values(**changes)
        )

    async def end(self, collection_id: UUID, contract_id: str) -> int:
        """Remove the templates of a contract, its coding and the transition; return how many templates went."""
        await self._session.execute(delete(TransitionRow).where(TransitionRow.collection_id == collection_id))
        await self._session.execute(
            delete(CodingRow).where(CodingRow.collection_id == collection_id, CodingRow.contract_id == contract_id)
        )
        of_contract = (FaceRow.collection_id == collection_id, FaceRow.contract_id == contract_id)
        gone = 0
        while True:  # in parts, lest a large gallery take longer than one statement may
            some = select(FaceRow.id).where(*of_contract).limit(DELETED_AT_ONCE)
            deleted = await self._session.execute(
                delete(FaceRow).where(*of_contract, FaceRow.id.in_(some)).returning(FaceRow.id)
            )
            gone += (went := len(deleted.all()))
            if went < DELETED_AT_ONCE:
                return gone

    async def lease(self, collection_id: UUID, worker_id: UUID, seconds: float) -> bool:
        """Let a worker carry the faces of a collection for a while; False when another one does.

        A worker that died is followed by another when its time is over.
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
            .values(worker_id=worker_id, leased_until=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds))
            .returning(TransitionRow.collection_id)
        )
        return taken.one_or_none() is not None

    async def release(self, collection_id: UUID, worker_id: UUID) -> None:
        """End a worker's time before it is over."""
        await self._session.execute(
            update(TransitionRow)
            .where(TransitionRow.collection_id == collection_id, TransitionRow.worker_id == worker_id)
            .values(worker_id=None, leased_until=None)
        )

    async def side(self, collection_id: UUID, contract_id: str) -> Side:
        """Say how complete a contract is."""
        row = (await self._session.execute(_SIDE, {"collection": collection_id, "contract": contract_id})).one()
        return Side(contract_id, row.faces, row.missing, row.failed or {}, row.persons_missing)

    async def left_behind(
        self, collection_id: UUID, contract_id: str, after: UUID | None, limit: int
    ) -> tuple[LeftBehind, ...]:
        """Return persons no search of a contract finds, in order of their creation, those after the given id."""
        values = {"collection": collection_id, "contract": contract_id, "after": after, "limit": limit}
        rows = await self._session.execute(_LEFT_BEHIND, values)
        return tuple(LeftBehind(row.id, row.external_id, row.name, row.faces, tuple(row.reasons)) for row in rows)


_SIDE = text(
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

# Persons without any face are listed too: after the end of a transition they are those who were left behind.
_LEFT_BEHIND = text(
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
