"""Which slots of the file of persons' keys belong to whom, and which are to be overwritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Uuid, bindparam, delete, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

from vultus.db.tables import PersonRow, SpentKeyRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_SET_SLOTS = text(
    "UPDATE persons SET key_slot = given.slot"
    " FROM unnest(CAST(:ids AS uuid[]), CAST(:slots AS bigint[])) AS given (id, slot) WHERE persons.id = given.id"
)


class PersonKeyRepository:
    """The slots of persons' keys. A key whose slot is given up is spent: it is destroyed after the commit."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def load_slots(self, persons: Sequence[UUID]) -> dict[UUID, int]:
        """Return the slots of those of some persons who have a key."""
        wanted = bindparam("persons", list(persons), ARRAY(Uuid))
        query = select(PersonRow.id, PersonRow.key_slot).where(
            PersonRow.id == func.any(wanted), PersonRow.key_slot.is_not(None)
        )
        return {row[0]: row[1] for row in await self._session.execute(query) if row[1] is not None}

    async def set_slots(self, slots: Mapping[UUID, int]) -> None:
        """Give persons a key, or another one."""
        await self._session.execute(_SET_SLOTS, {"ids": list(slots), "slots": list(slots.values())})

    async def list_spent_keys(self, limit: int) -> list[tuple[int, UUID]]:
        """Return slot and person of keys that are to be destroyed."""
        rows = await self._session.execute(select(SpentKeyRow.slot, SpentKeyRow.person_id).limit(limit))
        return [(row[0], row[1]) for row in rows]

    async def delete_spent_keys(self, keys: Sequence[tuple[int, UUID]]) -> None:
        """Forget keys that have been destroyed."""
        await self._session.execute(
            delete(SpentKeyRow).where(tuple_(SpentKeyRow.slot, SpentKeyRow.person_id).in_(keys))
        )
