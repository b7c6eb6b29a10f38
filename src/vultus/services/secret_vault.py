"""Secrets of other systems, sealed: passwords of cameras, signing keys of webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.errors import KeyRingError
from vultus.sealing.envelopes import SealBrokenError, open_secret, read_secret_version, seal_secret

if TYPE_CHECKING:
    from vultus.db.database import UnitOfWork
    from vultus.sealing.key_store import KeyStore


class SecretVault:
    """Seals secrets before they are stored, and unseals them for their use.

    Args:
        store: The installation's keys.
    """

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    async def hold_keys(self, work: UnitOfWork) -> None:
        """Keep the installation's keys from being retired until the transaction ends; call it before `seal`.

        They are made if there are none.

        Raises:
            KeyRingError: They are missing though something was sealed, or cannot be made.
        """
        await work.sealed_values.hold_keys()
        await work.person_keys.ensure_installation_keys()

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """Return a secret as ciphertext that opens only in its context.

        Args:
            plaintext: The secret.
            context: What it belongs to, for example `source:` and an id.

        Raises:
            KeyRingError: The installation's keys cannot be used.
        """
        return seal_secret(plaintext, self._store.load(), context)

    def unseal(self, sealed: bytes, context: str) -> bytes:
        """Return the secret that was sealed in a context.

        Raises:
            KeyRingError: The installation's keys cannot be used, or are not those that sealed it.
            SecretDamagedError: The secret was modified, or sealed in another context.
        """
        if read_secret_version(sealed) is None:
            raise KeyRingError(
                "The secret was sealed by version 0.1 with the file crops.key. Put that file into the data directory "
                "and start again: secrets are then sealed anew. Or set the secret again."
            )
        try:
            return open_secret(sealed, self._store.load(or_keep=True), context)
        except SealBrokenError as error:
            raise SecretDamagedError("the secret was modified after it was sealed, or belongs to another") from error


class SecretDamagedError(Exception):
    """A secret was modified after it was sealed, or sealed in another context."""
