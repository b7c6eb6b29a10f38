"""The faces that two embedding spaces are compared on, and shadow recognition results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, cast, delete, func, insert, select, update

from vultus.db.tables import FaceRow, ShadowDisagreementRow, TransitionRow
from vultus.domain import ShadowDisagreement

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

MAX_SHADOW_DISAGREEMENTS = 100


class ComparisonRepository:
    """Samples a gallery with two embedding spaces and stores shadow recognition results."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def sample(self, collection_id: UUID, limit: int) -> tuple[UUID, ...]:
        """Return a deterministic pseudo-random sample of the faces that have templates in two embedding spaces."""
        query = (
            select(FaceRow.id)
            .where(FaceRow.collection_id == collection_id, FaceRow.consent_expires_at > func.now())
            .group_by(FaceRow.id)
            .having(func.count() > 1)
            .order_by(func.md5(cast(FaceRow.id, Text)))
            .limit(limit)
        )
        return tuple(await self._session.scalars(query))

    async def add_shadow_comparison(self, collection_id: UUID, *, agreed: bool) -> None:
        """Count a recognition made in both embedding spaces."""
        await self._session.execute(
            update(TransitionRow)
            .where(TransitionRow.collection_id == collection_id)
            .values(
                shadow_compared=TransitionRow.shadow_compared + 1,
                shadow_agreed=TransitionRow.shadow_agreed + int(agreed),
            )
        )

    async def add_shadow_disagreement(
        self,
        collection_id: UUID,
        kind: str,
        persons: tuple[UUID | None, UUID | None],
        answers: dict[str, Any],
    ) -> None:
        """Store a disagreement, keeping the latest `MAX_SHADOW_DISAGREEMENTS`.

        Args:
            collection_id: Collection being migrated.
            kind: A stable identifier.
            persons: Persons found in the active and in the second embedding space; deleting one deletes the entry.
            answers: Scores by embedding space.

        Raises:
            NotFoundError: The migration has ended, or a person has been deleted.
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
            .limit(MAX_SHADOW_DISAGREEMENTS)
        )
        await self._session.execute(
            delete(ShadowDisagreementRow).where(
                ShadowDisagreementRow.collection_id == collection_id, ShadowDisagreementRow.id.not_in(latest)
            )
        )

    async def get_shadow_statistics(self, collection_id: UUID) -> tuple[int, int, tuple[ShadowDisagreement, ...]]:
        """Return how many recognitions were compared, how many agreed, and the disagreements kept, latest first."""
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
