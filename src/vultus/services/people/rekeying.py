"""New keys for persons: what the old ones sealed is sealed anew, without photos, and the old ones are spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.services.crop_vault import reseal_crops

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from vultus.db.database import UnitOfWork


async def rekey_persons(work: UnitOfWork, collection_id: UUID, persons: Sequence[UUID]) -> int:
    """Give those of some persons who have a key another one; return how many they are.

    Args:
        work: Holds the lock on the collection; with its commit the old keys are spent.
        collection_id: Of the persons.
        persons: Their ids.

    Raises:
        KeyRingError: A key is lost, or the keys cannot be used.
    """
    changes = await work.person_keys.replace_keys(persons)
    if changes:
        await work.templates.reseal_templates(collection_id, changes)
        await reseal_crops(work, collection_id, changes)
    return len(changes)


async def spend_key_of_deleted(work: UnitOfWork, collection_id: UUID, person_id: UUID) -> None:
    """Spend a person's key after faces of theirs were deleted, which it opens wherever a copy of them is.

    What they still have is sealed by another key; a person who has nothing sealed any more has none.

    Raises:
        KeyRingError: The key is lost, or the keys cannot be used.
    """
    if not await work.person_keys.load_slots([person_id]):
        return
    if await work.faces.has_faces(collection_id, person_id):
        await rekey_persons(work, collection_id, [person_id])
    else:
        await work.person_keys.set_slots({person_id: None})
