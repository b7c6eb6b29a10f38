"""New keys for persons: what the old ones sealed is sealed anew, without photos, and the old ones are spent."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vultus.services.crop_vault import reseal_crops

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from vultus.db.database import UnitOfWork

log = logging.getLogger(__name__)


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


async def spend_key_of_deleted(work: UnitOfWork, collection_id: UUID, person_id: UUID) -> list[UUID]:
    """Spend a person's key after faces of theirs were deleted, which it opens wherever a copy of them is.

    What they still have is sealed by another key; a person who has nothing sealed any more has none. Where the key is
    lost, as in a database that was restored from before it was destroyed, what it sealed is deleted.

    Returns:
        The faces that were deleted because nobody can open them any more.

    Raises:
        KeyRingError: The keys cannot be used.
    """
    slots = await work.person_keys.load_slots([person_id])
    if not slots:
        return []
    is_lost = bool(await work.person_keys.find_lost(slots))
    if not is_lost and await work.faces.has_faces(collection_id, person_id):
        await rekey_persons(work, collection_id, [person_id])
        return []
    await work.person_keys.set_slots({person_id: None})
    if not is_lost:
        return []
    await work.crops.delete_crops_of_person(collection_id, person_id)
    lost = await work.templates.delete_sealed_templates(collection_id, person_id)
    log.error(
        "the key of person %s was destroyed before, so that what it sealed of their other faces is deleted",
        person_id,
        extra={"collection": str(collection_id), "faces": len(lost)},
    )
    return lost
