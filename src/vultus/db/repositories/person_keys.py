"""Which slots of the file of persons' keys belong to whom, and which are to be overwritten."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Uuid, bindparam, delete, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY, insert

from vultus.db.locks import acquire_lock, compute_lock_number
from vultus.db.record_tables import InstallationRow
from vultus.db.repositories.sealed_values import SealedValueRepository
from vultus.db.tables import FaceRow, PersonRow, SpentKeyRow
from vultus.errors import KeyRingError
from vultus.sealing.person_keys import PersonKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import BindParameter
    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.sealing.custody import Custody
    from vultus.sealing.person_keys import KeyReference

CHECKED_KEYS = 100
_SPENT_KEYS_LOCK = compute_lock_number("spent keys")
_SET_SLOTS = text(
    "UPDATE persons SET key_slot = given.slot"
    " FROM unnest(CAST(:ids AS uuid[]), CAST(:slots AS bigint[])) AS given (id, slot) WHERE persons.id = given.id"
)


class PersonKeyRepository:
    """The slots of persons' keys. A key whose slot is given up is spent: it is destroyed after the commit.

    Args:
        session: Of the transaction.
        custody: Where the keys lie; None if the database was opened without them.

    Attributes:
        created: Keys made in the transaction; they are destroyed if it is rolled back.
    """

    def __init__(self, session: AsyncSession, custody: Custody | None = None) -> None:
        self._session = session
        self._custody = custody
        self.created: list[KeyReference] = []

    async def ensure_keys(self, persons: Sequence[UUID]) -> dict[UUID, PersonKey]:
        """Return the keys of persons; those who have none get one. Their collection is locked.

        So do those whose key is lost, unless it sealed a template of theirs: then it may be in another custody folder.

        Raises:
            KeyRingError: A key is lost, or they cannot be used.
        """
        slots = await self.load_slots(persons)
        for person_id in await self._list_without_templates(await self.find_lost(slots)):
            del slots[person_id]
        without = [person_id for person_id in dict.fromkeys(persons) if person_id not in slots]
        if without:
            made = await self.create_keys(without)
            await self.set_slots(made)
            slots |= made
        return await self._find_keys(slots)

    async def load_keys(self, persons: Sequence[UUID]) -> dict[UUID, PersonKey]:
        """Return the keys of those of some persons who have one.

        Raises:
            KeyRingError: A key is lost, or they cannot be used.
        """
        return await self._find_keys(await self.load_slots(persons))

    async def find_lost(self, slots: Mapping[UUID, int]) -> list[UUID]:
        """Return the persons whose keys are in their slots no more.

        Raises:
            KeyRingError: The keys cannot be used, or one is there and does not open: other keys may wrap it.
        """
        lost = [person_id for person_id, key in (await self._read_keys(slots)).items() if key is None]
        for person_id in lost:
            if self._require_custody().person_keys.holds_key(slots[person_id], person_id):
                raise build_lost_key_error(person_id)
        return lost

    async def replace_keys(self, persons: Sequence[UUID]) -> dict[UUID, tuple[PersonKey, PersonKey]]:
        """Give those of some persons who have a key another one; return the old and the new. The old one is spent.

        What the old one sealed must be sealed again in the same transaction.

        Raises:
            KeyRingError: A key is lost, or they cannot be used.
        """
        old = await self.load_keys(persons)
        made = await self.create_keys(list(old))
        await self.set_slots(made)
        new = await self._find_keys(made)
        return {person_id: (key, new[person_id]) for person_id, key in old.items()}

    async def create_keys(self, persons: Sequence[UUID]) -> dict[UUID, int]:
        """Make keys and return their slots, which are still to be entered: with the person, or by `set_slots`.

        Raises:
            KeyRingError: The keys cannot be used, or are missing though something was sealed by them.
        """
        if not persons:
            return {}
        await self.ensure_installation_keys()
        last_slot = (await self._session.execute(select(func.max(PersonRow.key_slot)))).scalar_one()
        # What is left of a key that was destroyed must not name another one of the same person.
        spent = select(SpentKeyRow.slot).where(SpentKeyRow.person_id == func.any(_bind_ids(persons)))
        avoid = {*(await self._session.execute(spent)).scalars()}
        create = self._require_custody().person_keys.create_keys
        slots = await asyncio.to_thread(create, persons, last_slot=last_slot, avoid=avoid)
        if await self._list_taken_slots(slots):  # in a restored database, by persons whose key was destroyed
            made = list(zip(slots, persons, strict=True))
            avoid |= await self._list_taken_slots()
            slots = await asyncio.to_thread(create, persons, last_slot=last_slot, avoid=avoid)
            await asyncio.to_thread(self._require_custody().person_keys.destroy_keys, made)
        self.created += zip(slots, persons, strict=True)
        return dict(zip(persons, slots, strict=True))

    @asynccontextmanager
    async def destroy_created_unless_done(self) -> AsyncIterator[None]:
        """Destroy the keys that were made in a block if it raises: the transaction will not be committed.

        Only then: a commit that breaks may have happened.
        """
        try:
            yield
        except BaseException:
            if self.created and self._custody is not None:
                await asyncio.to_thread(self._custody.person_keys.destroy_keys, self.created)
            raise

    async def ensure_installation_keys(self) -> None:
        """Make the installation's keys if it has none and needs none: what is sealed needs those that sealed it.

        Raises:
            KeyRingError: They are missing though something is sealed, are another installation's, or cannot be made.
        """
        keys = self._require_custody().keys
        if not keys.exists():
            is_sealed = await SealedValueRepository(self._session).has_any()
            await asyncio.to_thread(keys.load if is_sealed else keys.create)  # the former says what is missing
        await self._note_installation(await asyncio.to_thread(keys.read_installation_id))

    async def check_keys(self) -> None:
        """Open the installation's keys, and those of the persons in the greatest slots: most are the newest.

        Raises:
            KeyRingError: What is sealed cannot be opened, or not all of it.
        """
        custody = self._require_custody()
        await asyncio.to_thread(custody.keys.load)
        query = select(PersonRow.key_slot, PersonRow.id).where(PersonRow.key_slot.is_not(None))
        rows = await self._session.execute(query.order_by(PersonRow.key_slot.desc()).limit(CHECKED_KEYS))
        references = [(slot, person_id) for slot, person_id in rows if slot is not None]
        if not references:
            return
        found = await asyncio.to_thread(custody.person_keys.find_keys, references)
        if lost := found.count(None):
            raise KeyRingError(
                f"Of the keys of {len(found)} persons, most of them the newest, {lost} are not in "
                f"{custody.person_keys.path}: it is older than the database, damaged, or another installation's. Put "
                "the custody folder back from your copy; 'vultus key-ring check' names the persons."
            )

    async def list_keys(
        self, after: UUID | None, limit: int, collection_id: UUID | None = None
    ) -> list[tuple[int, UUID]]:
        """Return slot and person of the keys of persons, of a collection if given, by id of the person."""
        query = select(PersonRow.key_slot, PersonRow.id).where(PersonRow.key_slot.is_not(None))
        if collection_id is not None:
            query = query.where(PersonRow.collection_id == collection_id)
        if after is not None:
            query = query.where(PersonRow.id > after)
        rows = await self._session.execute(query.order_by(PersonRow.id).limit(limit))
        return [(slot, person_id) for slot, person_id in rows if slot is not None]

    async def count_keys(self) -> dict[UUID, int]:
        """Return how many persons have a key, by collection."""
        query = (
            select(PersonRow.collection_id, func.count())
            .where(PersonRow.key_slot.is_not(None))
            .group_by(PersonRow.collection_id)
        )
        return {row[0]: row[1] for row in await self._session.execute(query)}

    async def count_spent_keys(self) -> int:
        """Return how many keys are to be destroyed."""
        return int((await self._session.execute(select(func.count()).select_from(SpentKeyRow))).scalar_one())

    async def load_slots(self, persons: Sequence[UUID]) -> dict[UUID, int]:
        """Return the slots of those of some persons who have a key."""
        query = select(PersonRow.id, PersonRow.key_slot).where(
            PersonRow.id == func.any(_bind_ids(persons)), PersonRow.key_slot.is_not(None)
        )
        return {row[0]: row[1] for row in await self._session.execute(query) if row[1] is not None}

    async def set_slots(self, slots: Mapping[UUID, int | None]) -> None:
        """Give persons a key, or another one, or none."""
        if slots:
            await self._session.execute(_SET_SLOTS, {"ids": list(slots), "slots": list(slots.values())})

    async def claim_spent_keys(self, limit: int) -> list[tuple[int, UUID]]:
        """Return slot and person of keys that are to be destroyed, which no other transaction does until this ends."""
        await acquire_lock(self._session, _SPENT_KEYS_LOCK)
        rows = await self._session.execute(select(SpentKeyRow.slot, SpentKeyRow.person_id).limit(limit))
        return [(row[0], row[1]) for row in rows]

    async def delete_spent_keys(self, keys: Sequence[tuple[int, UUID]]) -> None:
        """Forget keys that have been destroyed."""
        await self._session.execute(
            delete(SpentKeyRow).where(tuple_(SpentKeyRow.slot, SpentKeyRow.person_id).in_(keys))
        )

    async def _note_installation(self, installation_id: UUID) -> None:
        """Note whose keys seal in this database; another's may while nothing is sealed."""
        known = (await self._session.execute(select(InstallationRow.id))).scalar_one_or_none()
        if known == installation_id:
            return
        if known is not None and await SealedValueRepository(self._session).has_any():
            raise KeyRingError(
                f"{self._require_custody().keys.path} holds the keys of installation {installation_id}, and what is "
                f"sealed in the database belongs to installation {known}. Name its custody folder in "
                "VULTUS_CUSTODY_DIR, or put it back from your copy."
            )
        entered = insert(InstallationRow).values(id=installation_id)
        await self._session.execute(
            entered.on_conflict_do_update(index_elements=[InstallationRow.is_only], set_={"id": entered.excluded.id})
        )

    async def _list_taken_slots(self, of: Sequence[int] | None = None) -> set[int]:
        query = select(PersonRow.key_slot).where(PersonRow.key_slot.is_not(None))
        if of is not None:
            query = query.where(PersonRow.key_slot == func.any(bindparam("slots", list(of), ARRAY(BigInteger))))
        return {slot for slot in (await self._session.execute(query)).scalars() if slot is not None}

    async def _find_keys(self, slots: Mapping[UUID, int]) -> dict[UUID, PersonKey]:
        found = {}
        for person_id, key in (await self._read_keys(slots)).items():
            if key is None:
                raise build_lost_key_error(person_id)
            found[person_id] = PersonKey(slots[person_id], key)
        return found

    async def _read_keys(self, slots: Mapping[UUID, int]) -> dict[UUID, bytes | None]:
        if not slots:
            return {}
        references = [(slot, person_id) for person_id, slot in slots.items()]
        found = await asyncio.to_thread(self._require_custody().person_keys.find_keys, references)
        return dict(zip(slots, found, strict=True))

    async def _list_without_templates(self, persons: Sequence[UUID]) -> list[UUID]:
        """Return those of some persons of whom no template is sealed."""
        if not persons:
            return []
        query = select(FaceRow.person_id).where(FaceRow.person_id.in_(persons), FaceRow.sealed.is_not(None)).distinct()
        sealed = set((await self._session.execute(query)).scalars())
        return [person_id for person_id in persons if person_id not in sealed]

    def _require_custody(self) -> Custody:
        if self._custody is None:
            raise build_no_custody_error()
        return self._custody


def _bind_ids(persons: Sequence[UUID]) -> BindParameter[Any]:
    return bindparam("persons", list(persons), ARRAY(Uuid))


def build_lost_key_error(person_id: UUID) -> KeyRingError:
    """Return the error for a person whose key is gone."""
    return KeyRingError(
        f"The key of person {person_id} is not in the file of persons' keys: they are being erased at this moment, or "
        "the custody folder is not the one that belongs to the database. Put it back from your copy."
    )


def build_no_custody_error() -> KeyRingError:
    """Return the error for a database that was opened without its keys."""
    return KeyRingError("Something in the database is sealed, and it was opened without the custody folder's keys.")
