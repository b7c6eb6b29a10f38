"""Retained crops: sealed with a key that the database never receives, opened only to embed a face again.

AES-256 in Galois/Counter Mode (NIST SP 800-38D) with random 96-bit nonces: up to 2^32 crops per key. The ids of
collection and face are authenticated with the crop, so that no crop can be moved to another face.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import struct
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vultus.domain import Box, Crop, NewCrop, SealedCrop
from vultus.errors import KeyFileError
from vultus.utils.key_file import KeyFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from uuid import UUID

    from vultus.db.database import UnitOfWork
    from vultus.domain import Consent, Face

NONCE_BYTES = 12
KEY_ID_CHARS = 16
_BOX_FORMAT = struct.Struct("<4f")


class CropDamagedError(Exception):
    """A crop was modified after it was sealed, or belongs to another face."""


class CropKey:
    """A key that seals and opens crops.

    Attributes:
        id: Identifies the key without revealing it.
    """

    def __init__(self, secret: bytes) -> None:
        self.id = hashlib.sha256(b"vultus crop key" + secret).hexdigest()[:KEY_ID_CHARS]
        self._cipher = AESGCM(secret)

    def seal_crop(self, crop: Crop, face: Face) -> bytes:
        """Return a crop as ciphertext that opens only for its face."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        plain = _BOX_FORMAT.pack(crop.box.left, crop.box.top, crop.box.right, crop.box.bottom) + crop.jpeg
        return nonce + self._cipher.encrypt(nonce, plain, _build_associated_data(face.collection_id, face.id))

    def open_crop(self, sealed: bytes, *, collection_id: UUID, face_id: UUID) -> Crop:
        """Return the crop that was sealed for a face.

        Raises:
            CropDamagedError: It was modified, or sealed for another face.
        """
        try:
            plain = self._cipher.decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _build_associated_data(collection_id, face_id)
            )
        except (InvalidTag, ValueError) as error:
            raise CropDamagedError from error
        return Crop(plain[_BOX_FORMAT.size :], Box(*_BOX_FORMAT.unpack_from(plain)))


class CropVault:
    """Loads the crop key from its file, and stores crops sealed with it.

    Args:
        path: The key file; created with mode 0600 when the database's first crop or secret is sealed.
    """

    def __init__(self, path: Path) -> None:
        self._file = KeyFile(path)

    async def load_sealing_key(self, work: UnitOfWork) -> CropKey:
        """Return the key that seals new crops; create its file if the database contains nothing sealed yet.

        Raises:
            KeyFileError: The file is missing or unusable though something was sealed, or crops were sealed with another
                key.
        """
        key = await asyncio.to_thread(self._load_key, create=not await work.sealed_values.has_any())
        if other := await work.crops.find_other_key_id(key.id):
            raise KeyFileError(
                f"{self._file.path} holds crop key {key.id}, but crops of this database were sealed with {other}. "
                "Every process needs the same file: put that one there, or name it in VULTUS_CROPS__KEY_FILE."
            )
        return key

    async def load_opening_key(self) -> CropKey:
        """Return the key that opens retained crops.

        Raises:
            KeyFileError: The file is missing or unusable.
        """
        return await asyncio.to_thread(self._load_key, create=False)

    async def save_crops(self, work: UnitOfWork, faces: Sequence[tuple[Face, Crop]], consent: Consent) -> None:
        """Seal and store the crops of faces just enrolled under a consent."""
        key = await self.load_sealing_key(work)
        await work.crops.add_crops(
            [
                NewCrop(
                    key_id=key.id,
                    sealed=key.seal_crop(crop, face),
                    collection_id=face.collection_id,
                    face_id=face.id,
                    person_id=face.person_id,
                    consent_id=consent.id,
                    consent_expires_at=consent.expires_at,
                )
                for face, crop in faces
            ]
        )

    def _load_key(self, *, create: bool) -> CropKey:
        return CropKey(self._file.load(create=create))


def open_stored_crop(key: CropKey, stored: SealedCrop, *, collection_id: UUID, face_id: UUID) -> Crop:
    """Return a stored crop, opened.

    Raises:
        KeyFileError: Another key sealed it.
        CropDamagedError: It was modified, or belongs to another face.
    """
    if stored.key_id != key.id:
        raise KeyFileError(f"The crop was sealed with key {stored.key_id}; this process has {key.id}.")
    return key.open_crop(stored.sealed, collection_id=collection_id, face_id=face_id)


def _build_associated_data(collection_id: UUID, face_id: UUID) -> bytes:
    return collection_id.bytes + face_id.bytes
