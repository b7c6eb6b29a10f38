"""What version 0.1 sealed with one key, of the file `crops.key`: sealed anew at the first start of a later one."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vultus.sealing.envelopes import read_secret_version
from vultus.services.crop_vault import seal_crop

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.services.secret_vault import SecretVault

log = logging.getLogger(__name__)

OLD_KEY_FILE = "crops.key"
KEY_BYTES, NONCE_BYTES, SECRET_ID_BYTES, CROP_ID_CHARS = 32, 12, 8, 16
BATCH_SIZE = 200


class OldKey:
    """The key of version 0.1; of its 32 bytes, secrets were sealed by a key derived for them."""

    def __init__(self, secret: bytes) -> None:
        derived = HKDF(SHA256(), KEY_BYTES, salt=None, info=b"vultus sealed secrets 1").derive(secret)
        self.crop_key_id = hashlib.sha256(b"vultus crop key" + secret).hexdigest()[:CROP_ID_CHARS]
        self._secret_key_id = hashlib.sha256(b"vultus secret key" + derived).digest()[:SECRET_ID_BYTES]
        self._crops, self._secrets = AESGCM(secret), AESGCM(derived)

    def open_crop(self, sealed: bytes, *, collection_id: UUID, face_id: UUID) -> bytes:
        """Return a packed crop.

        Raises:
            InvalidTag: It was modified, or sealed by another key.
        """
        return self._crops.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], collection_id.bytes + face_id.bytes)

    def open_secret(self, sealed: bytes, context: str) -> bytes:
        """Return a secret.

        Raises:
            InvalidTag: It was modified, or sealed by another key.
        """
        key_id, start = sealed[:SECRET_ID_BYTES], SECRET_ID_BYTES + NONCE_BYTES
        if key_id != self._secret_key_id:
            raise InvalidTag
        return self._secrets.decrypt(sealed[SECRET_ID_BYTES:start], sealed[start:], context.encode())


class OldSeals:
    """Seals anew what version 0.1 sealed; interrupted, the next start goes on.

    Args:
        database: Holds it.
        vault: Seals secrets.
        file: The old key file.
    """

    def __init__(self, database: Database, vault: SecretVault, file: Path) -> None:
        self._database = database
        self._vault = vault
        self._file = file

    async def replace(self) -> None:
        """Seal anew what can be, and log what cannot; nothing is lost.

        Raises:
            KeyRingError: The keys that seal from now on cannot be used.
        """
        async with self._database.transaction(read_only=True) as work:
            collections = await work.crops.list_collections_with_old_crops()
            secrets = [
                one for one in await work.sealed_values.list_secrets() if read_secret_version(one.sealed) is None
            ]
        if not collections and not secrets:
            if self._file.exists():
                log.warning(
                    "%s seals nothing in this database any more: delete it, unless a backup of version 0.1 is to be "
                    "restored. With it, crops in such backups can be read, also those of erased persons.",
                    self._file,
                )
            return
        key = await asyncio.to_thread(self._load_key)
        if key is None:
            return
        failed = await self._replace_secrets(key)
        for collection_id in collections:
            failed += await self._replace_crops(key, collection_id)
        if failed:
            log.error("%s does not open %d crops or secrets that version 0.1 sealed; they stay", self._file, failed)
        else:
            log.warning("what version 0.1 sealed with %s is sealed anew; delete the file", self._file)

    def _load_key(self) -> OldKey | None:
        try:
            secret = self._file.read_bytes()
        except OSError as error:
            log.error(
                "crops or secrets were sealed by version 0.1 with the key file crops.key, and %s cannot be read (%s): "
                "put it there and start again",
                self._file,
                error.strerror,
            )
            return None
        if len(secret) == KEY_BYTES:
            return OldKey(secret)
        log.error("%s holds %d bytes; the key of version 0.1 has %d", self._file, len(secret), KEY_BYTES)
        return None

    async def _replace_secrets(self, key: OldKey) -> int:
        """Seal secrets anew; return how many do not open."""
        failed = 0
        async with self._database.transaction() as work:
            await self._vault.hold_keys(work)
            for one in await work.sealed_values.list_secrets():
                if read_secret_version(one.sealed) is not None:
                    continue
                try:
                    plain = key.open_secret(one.sealed, one.context)
                except (InvalidTag, ValueError):
                    failed += 1
                else:
                    await work.sealed_values.replace_secret(one, self._vault.seal(plain, one.context))
        return failed

    async def _replace_crops(self, key: OldKey, collection_id: UUID) -> int:
        """Seal a collection's crops anew; return how many do not open."""
        failed, after = 0, None
        while True:
            async with self._database.transaction(writes_to=str(collection_id)) as work:
                await work.lock_collection(collection_id)
                crops = await work.crops.list_old_crops(collection_id, after, BATCH_SIZE)
                if not crops:
                    return failed
                keys = await work.person_keys.ensure_keys(sorted({crop.person_id for crop in crops}))
                for crop in crops:
                    after = crop.face_id
                    try:
                        plain = key.open_crop(crop.sealed, collection_id=collection_id, face_id=crop.face_id)
                    except (InvalidTag, ValueError):
                        failed += 1
                        continue
                    sealed = seal_crop(plain, keys[crop.person_id], collection_id, crop.person_id, crop.face_id)
                    await work.crops.replace_crop(collection_id, crop.face_id, sealed)
