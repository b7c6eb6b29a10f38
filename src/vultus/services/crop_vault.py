"""Retained crops, each sealed with the key of its person, and opened only to embed a face again."""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import TYPE_CHECKING

from vultus.domain import Box, Crop, NewCrop, SealedCrop
from vultus.errors import KeyRingError
from vultus.sealing.envelopes import SealBrokenError, build_crop_context, open_value, read_slot, seal_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from vultus.db.database import UnitOfWork
    from vultus.domain import Consent, Face
    from vultus.sealing.custody import Custody
    from vultus.sealing.person_keys import PersonKey

log = logging.getLogger(__name__)

_BOX_FORMAT = struct.Struct("<4f")


class CropDamagedError(Exception):
    """A crop was modified after it was sealed, or belongs to another face."""


class CropKeyGoneError(Exception):
    """The key that sealed a crop was destroyed."""


class CropVault:
    """Seals crops before they are stored, and opens them.

    Args:
        custody: The keys of persons.
    """

    def __init__(self, custody: Custody) -> None:
        self._custody = custody

    async def save_crops(self, work: UnitOfWork, faces: Sequence[tuple[Face, Crop]], consent: Consent) -> None:
        """Seal and store the crops of faces just enrolled under a consent.

        Raises:
            KeyRingError: The key of their person cannot be made or used.
        """
        if not faces:
            return
        keys = await work.person_keys.ensure_keys([consent.person_id])
        await work.crops.add_crops(
            [
                NewCrop(
                    person_id=face.person_id,
                    sealed=seal_crop(
                        pack_crop(crop), keys[face.person_id], face.collection_id, face.person_id, face.id
                    ),
                    collection_id=face.collection_id,
                    face_id=face.id,
                    consent_id=consent.id,
                    consent_expires_at=consent.expires_at,
                )
                for face, crop in faces
            ]
        )

    async def open_crop(self, stored: SealedCrop, *, collection_id: UUID, face_id: UUID) -> Crop:
        """Return the crop that was sealed for a face.

        Raises:
            CropDamagedError: It was modified, or sealed for another face.
            CropKeyGoneError: Its key was destroyed.
            KeyRingError: The keys cannot be used.
        """
        if stored.key_id is not None:
            raise KeyRingError(
                f"The crop was sealed by version 0.1, with key {stored.key_id} of the file crops.key. Put that file "
                "into the data directory and start again: crops are then sealed anew."
            )
        try:
            slot = read_slot(stored.sealed)
            (key,) = await asyncio.to_thread(self._custody.person_keys.find_keys, [(slot, stored.person_id)])
            if key is None:
                raise CropKeyGoneError
            context = build_crop_context(collection_id, stored.person_id, face_id)
            return unpack_crop(open_value(stored.sealed, key=key, context=context))
        except SealBrokenError as error:
            raise CropDamagedError from error


def seal_crop(plain: bytes, key: PersonKey, collection_id: UUID, person_id: UUID, face_id: UUID) -> bytes:
    """Return a packed crop as ciphertext that opens only for its face."""
    context = build_crop_context(collection_id, person_id, face_id)
    return seal_value(plain, key=key.key, slot=key.slot, context=context)


def pack_crop(crop: Crop) -> bytes:
    """Return a crop as bytes: its box, then the JPEG."""
    return _BOX_FORMAT.pack(crop.box.left, crop.box.top, crop.box.right, crop.box.bottom) + crop.jpeg


def unpack_crop(plain: bytes) -> Crop:
    """Return what `pack_crop` packed."""
    return Crop(plain[_BOX_FORMAT.size :], Box(*_BOX_FORMAT.unpack_from(plain)))


async def reseal_crops(
    work: UnitOfWork, collection_id: UUID, changes: Mapping[UUID, tuple[PersonKey, PersonKey]]
) -> None:
    """Seal the crops of persons by their new keys; one that does not open by the old key stays as it is.

    Args:
        work: Holds the lock on the collection.
        collection_id: Of the persons.
        changes: The old and the new key of each.
    """
    for crop in await work.crops.list_crops_of_persons(collection_id, list(changes)):
        old, new = changes[crop.person_id]
        context = build_crop_context(collection_id, crop.person_id, crop.face_id)
        try:
            plain = open_value(crop.sealed, key=old.key, context=context)
        except SealBrokenError:
            log.error("the crop of face %s is damaged, and was before", crop.face_id)
        else:
            sealed = seal_crop(plain, new, collection_id, crop.person_id, crop.face_id)
            await work.crops.replace_crop(collection_id, crop.face_id, sealed)
