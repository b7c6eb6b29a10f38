"""Secrets of other systems, sealed: passwords of cameras, signing keys of webhooks.

AES-256 in Galois/Counter Mode (NIST SP 800-38D) with random 96-bit nonces, under a key that HKDF (RFC 5869) derives
from the key file for this purpose alone. What a secret belongs to is authenticated with it, so that it cannot be moved
to another owner.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vultus.errors import KeyFileError
from vultus.utils.key_file import KEY_BYTES, KeyFile

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.db.database import UnitOfWork

NONCE_BYTES = 12
KEY_ID_BYTES = 8
PURPOSE = b"vultus sealed secrets 1"


class SecretVault:
    """Seals secrets before they are stored, and unseals them for their use.

    Args:
        path: The key file, shared with the crop vault.
    """

    def __init__(self, path: Path) -> None:
        self._file = KeyFile(path)

    async def ensure_key(self, work: UnitOfWork) -> None:
        """Create the key file if it is missing and the database contains nothing sealed; call it before `seal`.

        Raises:
            KeyFileError: The file is missing or unusable though something was sealed.
        """
        await asyncio.to_thread(self._file.load, create=not await work.sealed_values.has_any())

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """Return a secret as ciphertext that opens only in its context.

        Args:
            plaintext: The secret.
            context: What it belongs to, for example `source:` and an id.

        Raises:
            KeyFileError: The key file is missing or unusable.
        """
        key_id, cipher = self._derive_key()
        nonce = secrets.token_bytes(NONCE_BYTES)
        return key_id + nonce + cipher.encrypt(nonce, plaintext, context.encode())

    def unseal(self, sealed: bytes, context: str) -> bytes:
        """Return the secret that was sealed in a context.

        Raises:
            KeyFileError: The key file is missing or unusable, or holds another key than the secret was sealed with.
            SecretDamagedError: The secret was modified, or sealed in another context.
        """
        key_id, cipher = self._derive_key()
        sealed_id, nonce = sealed[:KEY_ID_BYTES], sealed[KEY_ID_BYTES : KEY_ID_BYTES + NONCE_BYTES]
        if sealed_id != key_id:
            raise KeyFileError(
                f"{self._file.path} holds key {key_id.hex()}, but this secret was sealed with {sealed_id.hex()}. Every "
                "process needs the same file: put that one there, or name it in VULTUS_CROPS__KEY_FILE; or set the "
                "secret again."
            )
        try:
            return cipher.decrypt(nonce, sealed[KEY_ID_BYTES + NONCE_BYTES :], context.encode())
        except (InvalidTag, ValueError) as error:
            raise SecretDamagedError("the secret was modified after it was sealed, or belongs to another") from error

    def _derive_key(self) -> tuple[bytes, AESGCM]:
        """Return an id that does not reveal the key, and the cipher with it."""
        secret = self._file.load(create=False)
        key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=PURPOSE).derive(secret)
        return hashlib.sha256(b"vultus secret key" + key).digest()[:KEY_ID_BYTES], AESGCM(key)


class SecretDamagedError(Exception):
    """A secret was modified after it was sealed, or sealed in another context."""
