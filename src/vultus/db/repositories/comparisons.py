"""What two contracts of one collection say about the same faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, Uuid, bindparam, cast, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY

from vultus.db.tables import FaceRow, ShadowDisagreementRow, TransitionRow
from vultus.domain import LeftOut, ShadowDisagreement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

KEPT_DISAGREEMENTS = 100


class Comparisons:
    """Searches a gallery under two contracts, and keeps what a shadow saw."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def sample(self, collection_id: UUID, limit: int) -> tuple[UUID, ...]:
        """Return some faces that have templates of two contracts: any, but every time the same ones."""
        query = (
            select(FaceRow.id)
            .where(FaceRow.collection_id == collection_id, FaceRow.consent_expires_at > func.now())
            .group_by(FaceRow.id)
            .having(func.count() > 1)
            .order_by(func.md5(cast(FaceRow.id, Text)))
            .limit(limit)
        )
        return tuple(await self._session.scalars(query))

    async def closest_others(
        self, collection_id: UUID, contract_id: str, face_ids: Sequence[UUID]
    ) -> dict[UUID, LeftOut]:
        """Search for faces of a collection among its other faces, each face itself left out."""
        values = {"collection": collection_id, "contract": contract_id, "faces": list(face_ids)}
        found: dict[UUID, LeftOut] = {}
        for row in await self._session.execute(_CLOSEST_OTHERS, values):
            before = found.get(row.face_id)
            candidates = before.candidates if before else ()
            if row.candidate_id is not None:
                candidates = (*candidates, (row.candidate_id, row.similarity))
            found[row.face_id] = LeftOut(row.face_id, row.person_id, candidates, row.has_mate)
        return found

    async def count_shadow(self, collection_id: UUID, *, agreed: bool) -> None:
        """Count a recognition that was answered by both contracts."""
        await self._session.execute(
            update(TransitionRow)
            .where(TransitionRow.collection_id == collection_id)
            .values(
                shadow_compared=TransitionRow.shadow_compared + 1,
                shadow_agreed=TransitionRow.shadow_agreed + int(agreed),
            )
        )

    async def add_disagreement(
        self,
        collection_id: UUID,
        kind: str,
        persons: tuple[UUID | None, UUID | None],
        answers: dict[str, Any],
    ) -> None:
        """Keep a disagreement, and no more than the latest of them.

        Args:
            collection_id: Where.
            kind: A stable word.
            persons: Those named by the active and by the second contract; it goes when one of them goes.
            answers: Scores by contract.

        Raises:
            NotFoundError: The transition is over, or a person is gone.
        """
        await self._session.execute(
            insert(ShadowDisagreementRow).values(
                collection_id=collection_id,
                kind=kind,
                active_person_id=persons[0],
                second_person_id=persons[1],
                answers=answers,
            )
        )
        latest = (
            select(ShadowDisagreementRow.id)
            .where(ShadowDisagreementRow.collection_id == collection_id)
            .order_by(ShadowDisagreementRow.id.desc())
            .limit(KEPT_DISAGREEMENTS)
        )
        await self._session.execute(
            delete(ShadowDisagreementRow).where(
                ShadowDisagreementRow.collection_id == collection_id, ShadowDisagreementRow.id.not_in(latest)
            )
        )

    async def shadow(self, collection_id: UUID) -> tuple[int, int, tuple[ShadowDisagreement, ...]]:
        """Return how many recognitions were compared, how many agreed, and the latest that did not."""
        counted = (
            await self._session.execute(
                select(TransitionRow.shadow_compared, TransitionRow.shadow_agreed).where(
                    TransitionRow.collection_id == collection_id
                )
            )
        ).one()
        rows = await self._session.execute(
            select(ShadowDisagreementRow.at, ShadowDisagreementRow.kind, ShadowDisagreementRow.answers)
            .where(ShadowDisagreementRow.collection_id == collection_id)
            .order_by(ShadowDisagreementRow.id.desc())
        )
        return counted[0], counted[1], tuple(ShadowDisagreement(*row) for row in rows)


_OTHERS = "faces WHERE collection_id = :collection AND contract_id = :contract AND consent_expires_at > now()"
_CLOSEST_OTHERS = text(
    f"""
    SELECT probe.id AS face_id, probe.person_id, closest.person_id AS candidate_id,
           1 - closest.distance AS similarity,
           EXISTS (SELECT FROM {_OTHERS} AND person_id = probe.person_id AND id <> probe.id) AS has_mate
    FROM (SELECT id, person_id, embedding FROM {_OTHERS} AND id = ANY(:faces)) AS probe
    LEFT JOIN LATERAL (
        SELECT person_id, distance FROM (
            SELECT DISTINCT ON (person_id) person_id, embedding <=> probe.embedding AS distance
            FROM {_OTHERS} AND id <> probe.id ORDER BY person_id, distance
        ) AS persons ORDER BY distance, person_id LIMIT 2
    ) AS closest ON true
    ORDER BY probe.id, closest.distance, closest.person_id
    """  # noqa: S608  a constant of this file
).bindparams(bindparam("collection", type_=Uuid), bindparam("faces", type_=ARRAY(Uuid)))
