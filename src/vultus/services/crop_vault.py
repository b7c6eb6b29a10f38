"""Retained crops: sealed with a key that the database never receives, opened only to embed a face again.

AES-256 in Galois/Counter Mode (NIST SP 800-38D) with random 96-bit nonces: up to 2^32 crops per key. The ids of
collection and face are authenticated with the crop, so that no crop can be moved to another face.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import struct
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vultus.domain import Box, Crop, NewCrop, SealedCrop
from vultus.errors import CropKeyError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from uuid import UUID

    from vultus.db.database import UnitOfWork
    from vultus.domain import Consent, Face

KEY_BYTES = 32
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
        path: The key file; created with mode 0600 when the database's first crop is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load_sealing_key(self, work: UnitOfWork) -> CropKey:
        """Return the key that seals new crops; create its file if the database has no crops yet.

        Raises:
            CropKeyError: The file is missing or unusable though crops exist, or they were sealed with another key.
        """
        key = await asyncio.to_thread(self._load_key, create=not await work.crops.has_crops())
        if other := await work.crops.find_other_key_id(key.id):
            raise CropKeyError(
                f"{self._path} holds crop key {key.id}, but crops of this database were sealed with {other}. "
                "Every process needs the same file: put that one there, or name it in VULTUS_CROPS__KEY_FILE."
            )
        return key

    async def load_opening_key(self) -> CropKey:
        """Return the key that opens retained crops.

        Raises:
            CropKeyError: The file is missing or unusable.
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
        try:
            secret = self._path.read_bytes()
        except FileNotFoundError as error:
            if not create:
                raise CropKeyError(
                    f"The key of the retained crops, {self._path}, is missing. Restore it from your backup, or name it "
                    "in VULTUS_CROPS__KEY_FILE; without it the crops cannot be read, and turning keep_crops off "
                    "deletes them."
                ) from error
            secret = self._create_key()
        except OSError as error:
            raise CropKeyError(
                f"The key of the retained crops, {self._path}, cannot be read: {error.strerror}."
            ) from error
        if len(secret) != KEY_BYTES:
            raise CropKeyError(
                f"{self._path} holds {len(secret)} bytes; the key of the retained crops has {KEY_BYTES}."
            )
        return CropKey(secret)

    def _create_key(self) -> bytes:
        """Write a new key atomically and return it; if another process created one first, return that one."""
        secret = secrets.token_bytes(KEY_BYTES)
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secret)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, self._path)
            except FileExistsError:
                return self._path.read_bytes()
            finally:
                draft.unlink()
        except OSError as error:
            raise CropKeyError(
                f"The key of the retained crops, {self._path}, cannot be made: {error.strerror}."
            ) from error
        return secret


def open_stored_crop(key: CropKey, stored: SealedCrop, *, collection_id: UUID, face_id: UUID) -> Crop:
    """Return a stored crop, opened.

    Raises:
        CropKeyError: Another key sealed it.
        CropDamagedError: It was modified, or belongs to another face.
    """
    if stored.key_id != key.id:
        raise CropKeyError(f"The crop was sealed with key {stored.key_id}; this process has {key.id}.")
    return key.open_crop(stored.sealed, collection_id=collection_id, face_id=face_id)


def _build_associated_data(collection_id: UUID, face_id: UUID) -> bytes:
    return collection_id.bytes + face_id.bytes
