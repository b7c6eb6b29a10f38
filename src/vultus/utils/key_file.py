"""The file with the key that the database never receives: it seals retained crops and the secrets of other systems."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from vultus.errors import KeyFileError

if TYPE_CHECKING:
    from pathlib import Path

KEY_BYTES = 32


class KeyFile:
    """A file of 32 random bytes, created with mode 0600.

    Args:
        path: Where it is; the same file for every process that uses the database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, *, create: bool) -> bytes:
        """Return the key.

        Args:
            create: Whether a missing file is created: only while the database contains nothing that was sealed.

        Raises:
            KeyFileError: The file is missing or unusable.
        """
        try:
            secret = self.path.read_bytes()
        except FileNotFoundError as error:
            if not create:
                raise KeyFileError(
                    f"The key of retained crops and sealed secrets, {self.path}, is missing. Restore it from your "
                    "backup, or name it in VULTUS_CROPS__KEY_FILE; without it they cannot be read: turning keep_crops "
                    "off deletes the crops, and secrets have to be set again."
                ) from error
            secret = self._create()
        except OSError as error:
            raise KeyFileError(
                f"The key of retained crops and sealed secrets, {self.path}, cannot be read: {error.strerror}."
            ) from error
        if len(secret) != KEY_BYTES:
            raise KeyFileError(f"{self.path} holds {len(secret)} bytes; the key of retained crops has {KEY_BYTES}.")
        return secret

    def _create(self) -> bytes:
        """Write a new key atomically and return it; if another process created one first, return that one."""
        secret = secrets.token_bytes(KEY_BYTES)
        draft = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secret)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, self.path)
            except FileExistsError:
                return self.path.read_bytes()
            finally:
                draft.unlink()
        except OSError as error:
            raise KeyFileError(
                f"The key of retained crops and sealed secrets, {self.path}, cannot be made: {error.strerror}."
            ) from error
        return secret
