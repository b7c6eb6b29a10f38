"""Retained crops: sealed with a key that the database never sees, opened only to describe a face again.

AES-256 in Galois/Counter Mode (NIST SP 800-38D) with random 96-bit nonces: up to 2^32 crops a key. What a crop belongs
to is authenticated with it, so that no crop can be put beside another face.
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

    from vultus.db.database import Work
    from vultus.domain import Consent, Face

KEY_BYTES = 32
NONCE_BYTES = 12
KEY_ID_CHARS = 16
_BOX = struct.Struct("<4f")


class CropDamagedError(Exception):
    """A crop was changed since it was sealed, or belongs to another face."""


class CropKey:
    """One key.

    Attributes:
        id: Names the key without giving it away.
    """

    def __init__(self, secret: bytes) -> None:
        self.id = hashlib.sha256(b"vultus crop key" + secret).hexdigest()[:KEY_ID_CHARS]
        self._cipher = AESGCM(secret)

    def seal(self, crop: Crop, face: Face) -> bytes:
        """Return a crop as ciphertext that only opens beside its face."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        plain = _BOX.pack(crop.box.left, crop.box.top, crop.box.right, crop.box.bottom) + crop.jpeg
        return nonce + self._cipher.encrypt(nonce, plain, _owner(face.collection_id, face.id))

    def open(self, sealed: bytes, *, collection_id: UUID, face_id: UUID) -> Crop:
        """Return what was sealed beside a face.

        Raises:
            CropDamagedError: It was changed, or sealed for another face.
        """
        try:
            plain = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _owner(collection_id, face_id))
        except (InvalidTag, ValueError) as error:
            raise CropDamagedError from error
        return Crop(plain[_BOX.size :], Box(*_BOX.unpack_from(plain)))


class CropVault:
    """The key file, and what is sealed with it.

    Args:
        path: Of the file; made with mode 0600 when the first crop of the database is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def key(self, work: Work) -> CropKey:
        """Return the key new crops are sealed with.

        Raises:
            CropKeyError: The file is missing or unusable though crops exist, or these were sealed with another key.
        """
        key = await asyncio.to_thread(self._load, make=not await work.crops.exist())
        if other := await work.crops.other_key(key.id):
            raise CropKeyError(
                f"{self._path} holds crop key {key.id}, but crops of this database were sealed with {other}. "
                "Every process needs the same file: put that one there, or name it in VULTUS_CROPS__KEY_FILE."
            )
        return key

    async def opening(self) -> CropKey:
        """Return the key kept crops are opened with.

        Raises:
            CropKeyError: The file is missing or unusable.
        """
        return await asyncio.to_thread(self._load, make=False)

    async def keep(self, work: Work, faces: Sequence[tuple[Face, Crop]], consent: Consent) -> None:
        """Seal and store crops of faces that were just enrolled under a consent."""
        key = await self.key(work)
        await work.crops.add_many(
            [
                NewCrop(
                    key_id=key.id,
                    sealed=key.seal(crop, face),
                    collection_id=face.collection_id,
                    face_id=face.id,
                    person_id=face.person_id,
                    consent_id=consent.id,
                    consent_expires_at=consent.expires_at,
                )
                for face, crop in faces
            ]
        )

    def _load(self, *, make: bool) -> CropKey:
        try:
            secret = self._path.read_bytes()
        except FileNotFoundError as error:
            if not make:
                raise CropKeyError(
                    f"The key of the retained crops, {self._path}, is missing. Restore it from your backup, or name it "
                    "in VULTUS_CROPS__KEY_FILE; without it the crops cannot be read, and turning keep_crops off "
                    "deletes them."
                ) from error
            secret = self._make()
        except OSError as error:
            raise CropKeyError(
                f"The key of the retained crops, {self._path}, cannot be read: {error.strerror}."
            ) from error
        if len(secret) != KEY_BYTES:
            raise CropKeyError(
                f"{self._path} holds {len(secret)} bytes; the key of the retained crops has {KEY_BYTES}."
            )
        return CropKey(secret)

    def _make(self) -> bytes:
        """Write a new key whole or not at all; a process that is faster wins."""
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


def opened(key: CropKey, stored: SealedCrop, *, collection_id: UUID, face_id: UUID) -> Crop:
    """Return a stored crop.

    Raises:
        CropKeyError: Another key sealed it.
        CropDamagedError: It was changed, or belongs to another face.
    """
    if stored.key_id != key.id:
        raise CropKeyError(f"The crop was sealed with key {stored.key_id}; this process has {key.id}.")
    return key.open(stored.sealed, collection_id=collection_id, face_id=face_id)


def _owner(collection_id: UUID, face_id: UUID) -> bytes:
    return collection_id.bytes + face_id.bytes
