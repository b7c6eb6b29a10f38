"""The key ring: what wraps the installation's keys, and is kept where neither database nor backups are."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vultus.errors import KeyRingError
from vultus.utils.durable import write_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEY_BYTES, NONCE_BYTES = 32, 12
FILE_FORMAT = 1


class KeyRing(Protocol):
    """Wraps keys with a master key that has versions. Few calls are made: at start, and when keys are rotated."""

    @property
    def description(self) -> str:
        """What it is and where, for people."""
        ...

    def exists(self) -> bool:
        """Return whether it has a master key.

        Raises:
            KeyRingError: It cannot be reached.
        """
        ...

    def ensure_unused(self, custody: Path) -> None:
        """Refuse a key ring that wraps the keys of another installation, where that can be told.

        Args:
            custody: The folder of the keys that are to be made.

        Raises:
            KeyRingError: It wraps other keys, or cannot be reached.
        """
        ...

    def create(self) -> None:
        """Make the first master key, unless there is one.

        Raises:
            KeyRingError: It cannot be made.
        """
        ...

    def list_versions(self) -> Mapping[int, datetime]:
        """Return when each version of the master key that can unwrap was made.

        Raises:
            KeyRingError: The key ring cannot be used.
        """
        ...

    def wrap(self, key: bytes, context: str) -> str:
        """Return a key, encrypted by the newest master key; it opens only with the same context.

        Raises:
            KeyRingError: The key ring cannot be used.
        """
        ...

    def unwrap(self, wrapped: str, context: str) -> bytes:
        """Return a key that was wrapped in a context.

        Raises:
            KeyRingError: The key ring cannot be used, or is not the one that wrapped the key.
        """
        ...

    def rotate(self) -> None:
        """Wrap with a new master key from now on; the older ones still unwrap.

        Raises:
            KeyRingError: The key ring cannot be used.
        """
        ...

    def retire_old_versions(self) -> None:
        """Forget every master key but the newest: what the older ones wrapped must have been wrapped again.

        Raises:
            KeyRingError: The key ring cannot be used.
        """
        ...


@dataclass(frozen=True, slots=True)
class _MasterKey:
    secret: bytes
    made_at: datetime

    @classmethod
    def generate(cls) -> _MasterKey:
        return cls(secrets.token_bytes(KEY_BYTES), datetime.now(UTC).replace(microsecond=0))


class FileKeyRing:
    """A key ring in a file of mode 0600: JSON with the versions of a random master key of 256 bits.

    Keys are wrapped by AES-256 in Galois/Counter Mode (NIST SP 800-38D) with random nonces of 96 bits.

    Args:
        path: Where it is; the same file for every process that uses the database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def description(self) -> str:
        """What it is and where."""
        return f"the file {self.path}"

    def exists(self) -> bool:
        """Return whether the file is there."""
        return self.path.exists()

    def ensure_unused(self, custody: Path) -> None:
        """Refuse a file that is there, unless it lies in the custody folder, which is one installation's."""
        if self.exists() and self.path.resolve().parent != custody.resolve():
            raise KeyRingError(
                f"The key ring, {self.path}, is there, and {custody / 'keys.json'}, which it wraps, is not. Put that "
                "back from your copy. If this installation is new, name a file of its own in VULTUS_KEY_RING__FILE: "
                "two installations must not share one. If the file wraps nothing any more, move it away."
            )

    def create(self) -> None:
        """Write the file, unless it is there."""
        if not self.exists():
            self._write({1: _MasterKey.generate()})

    def list_versions(self) -> dict[int, datetime]:
        """Return when each version was made."""
        return {version: key.made_at for version, key in self._read().items()}

    def wrap(self, key: bytes, context: str) -> str:
        """Return the version, a nonce and the encrypted key."""
        versions = self._read()
        version, nonce = max(versions), secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(versions[version].secret).encrypt(nonce, key, context.encode())
        return f"{version}:{base64.b64encode(nonce + sealed).decode()}"

    def unwrap(self, wrapped: str, context: str) -> bytes:
        """Return the key that `wrap` encrypted."""
        try:
            number, _, encoded = wrapped.partition(":")
            sealed = base64.b64decode(encoded, validate=True)
            secret = self._read()[int(number)].secret
            return AESGCM(secret).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode())
        except KeyError as error:
            raise KeyRingError(
                f"{self.path} has no version {number} of the master key, which wrapped the installation's keys. Put the"
                " file there that belongs to this installation, from your copy."
            ) from error
        except (ValueError, InvalidTag) as error:
            raise KeyRingError(
                f"{self.path} is not the key ring of this installation, or what it wrapped was changed. Put the file "
                "there that belongs to it, from your copy."
            ) from error

    def rotate(self) -> None:
        """Add a version."""
        versions = self._read()
        self._write({**versions, max(versions) + 1: _MasterKey.generate()})

    def retire_old_versions(self) -> None:
        """Keep the newest version alone."""
        versions = self._read()
        newest = max(versions)
        if len(versions) > 1:
            self._write({newest: versions[newest]})

    def _read(self) -> dict[int, _MasterKey]:
        try:
            found: dict[str, Any] = json.loads(self.path.read_bytes())
            versions = {
                int(number): _MasterKey(base64.b64decode(one["secret"]), datetime.fromisoformat(one["made_at"]))
                for number, one in found["keys"].items()
            }
            if found["format"] != FILE_FORMAT or not versions:
                raise ValueError("an unknown format")
            if any(len(key.secret) != KEY_BYTES for key in versions.values()):
                raise ValueError("a key of another length")
        except FileNotFoundError as error:
            raise KeyRingError(
                f"The key ring, {self.path}, is missing. Put it back from your copy, or name it in "
                "VULTUS_KEY_RING__FILE; without it what is sealed cannot be read."
            ) from error
        except OSError as error:
            raise KeyRingError(f"The key ring, {self.path}, cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise KeyRingError(f"{self.path} is not a key ring. Put the file there from your copy.") from error
        return versions

    def _write(self, versions: dict[int, _MasterKey]) -> None:
        keys = {
            str(number): {"secret": base64.b64encode(key.secret).decode(), "made_at": key.made_at.isoformat()}
            for number, key in versions.items()
        }
        try:
            write_file(self.path, json.dumps({"format": FILE_FORMAT, "keys": keys}, indent=1).encode() + b"\n")
        except OSError as error:
            raise KeyRingError(f"The key ring, {self.path}, cannot be written: {error.strerror}.") from error
