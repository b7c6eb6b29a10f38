"""The installation's own keys, wrapped by the key ring: they wrap the keys of persons, seal secrets and sign."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vultus.errors import KeyRingError
from vultus.sealing.key_ring import KEY_BYTES
from vultus.utils.durable import lock_file, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.sealing.key_ring import KeyRing

log = logging.getLogger(__name__)

FILE_FORMAT = 1
RETRY_S = 10.0


@dataclass(frozen=True)
class InstallationKeys:
    """The keys of an installation, unwrapped.

    Attributes:
        installation_id: Random, and the same for every server of the installation.
        secrets: Key-encryption keys by version, from 1 on; the greatest is the active one.
        signing_secret: Seed of the Ed25519 key that signs receipts.
    """

    installation_id: UUID
    secrets: Mapping[int, bytes]
    signing_secret: bytes

    @cached_property
    def active_version(self) -> int:
        """The version that wraps and seals from now on."""
        return max(self.secrets)

    @cached_property
    def ciphers(self) -> dict[int, AESGCM]:
        """The ciphers that wrap the keys of persons, by version."""
        return {version: AESGCM(self.derive_key("person keys", version)) for version in self.secrets}

    @cached_property
    def signing_key(self) -> Ed25519PrivateKey:
        """The key that signs what the installation states."""
        return Ed25519PrivateKey.from_private_bytes(self.signing_secret)

    def derive_key(self, purpose: str, version: int) -> bytes:
        """Return the key of a purpose (HKDF, RFC 5869), 32 bytes.

        Args:
            purpose: What it is for.
            version: Of the key-encryption key.

        Raises:
            KeyRingError: There is no such version (any more).
        """
        if version not in self.secrets:
            raise KeyRingError(
                f"Something was sealed by version {version} of the key-encryption key, which this installation does not"
                " have: keys.json in the custody folder is older or newer than the database. Put the right one there."
            )
        derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"vultus " + purpose.encode())
        return derived.derive(self.secrets[version])


class KeyStore:
    """Keeps the installation's keys in a file, `keys.json`, each wrapped by the key ring.

    Args:
        path: Of the file; shared by every server of the installation.
        ring: Wraps and unwraps.
    """

    def __init__(self, path: Path, ring: KeyRing) -> None:
        self.path = path
        self.ring = ring
        self._lock = threading.Lock()
        self._loaded: tuple[tuple[int, int], InstallationKeys] | None = None
        self._retry_at = 0.0

    def exists(self) -> bool:
        """Return whether the installation has keys."""
        return self.path.exists()

    def create(self) -> None:
        """Make the installation's keys, and the key ring if it is not there; do nothing if the keys are.

        Raises:
            KeyRingError: They cannot be made, or the key ring is a file elsewhere that something else was wrapped by.
        """
        with self._hold_file():
            if self.exists():
                return
            self.ring.ensure_unused(self.path.parent)
            self.ring.create()
            keys = InstallationKeys(uuid4(), {1: secrets.token_bytes(KEY_BYTES)}, secrets.token_bytes(KEY_BYTES))
            self._write(keys)

    def peek(self) -> InstallationKeys | None:
        """Return the keys, at once, if they were loaded and the file has not changed; None if `load` would ask."""
        loaded = self._loaded
        try:
            status = self.path.stat()
        except OSError:
            return None
        return loaded[1] if loaded is not None and loaded[0] == (status.st_ino, status.st_mtime_ns) else None

    def load(self, *, or_keep: bool = False) -> InstallationKeys:
        """Return the installation's keys; they are read again once the file has changed.

        Args:
            or_keep: Whether keys that were loaded do if the file has changed and cannot be read: only to open by, for
                what they would seal might be lost.

        Raises:
            KeyRingError: They are missing or damaged, or the key ring cannot unwrap them.
        """
        with self._lock:
            if or_keep and self._loaded is not None and time.monotonic() < self._retry_at:
                return self._loaded[1]
            try:
                with self.path.open("rb") as file:  # opened, so that a network file system asks its server
                    status = os.fstat(file.fileno())
                state = status.st_ino, status.st_mtime_ns
                if self._loaded is None or self._loaded[0] != state:
                    self._loaded = state, self._read()
            except FileNotFoundError as error:
                raise KeyRingError(
                    f"The installation's keys, {self.path}, are missing. Put the file back from your copy of the "
                    "custody folder; without it what is sealed cannot be read."
                ) from error
            except OSError as error:
                raise KeyRingError(f"{self.path} cannot be read: {error.strerror}.") from error
            except KeyRingError as error:
                if not or_keep or self._loaded is None:
                    raise
                log.error("the keys of before are kept, for those of now cannot be read: %s", error.detail)
                self._retry_at = time.monotonic() + RETRY_S
            return self._loaded[1]

    def read_installation_id(self) -> UUID:
        """Return whose keys they are, which the file says in the open: the key ring is not asked.

        Raises:
            KeyRingError: They are missing or damaged.
        """
        if (keys := self.peek()) is not None:
            return keys.installation_id
        try:
            return self._parse()[0]
        except OSError as error:
            raise KeyRingError(f"{self.path} cannot be read: {error.strerror}.") from error

    def rotate(self) -> InstallationKeys:
        """Add a version of the key-encryption key, and wrap all by a new master key; older versions stay.

        Raises:
            KeyRingError: Keys or key ring cannot be used.
        """
        with self._hold_file():
            keys = self.load()
            self.ring.rotate()
            versions = {**keys.secrets, keys.active_version + 1: secrets.token_bytes(KEY_BYTES)}
            self._write(InstallationKeys(keys.installation_id, versions, keys.signing_secret))
        return self.load()

    def retire_old_versions(self) -> None:
        """Forget every key-encryption key and master key but the newest: nothing may be sealed by the others any more.

        Raises:
            KeyRingError: Keys or key ring cannot be used.
        """
        with self._hold_file():
            keys = self.load()
            versions = {keys.active_version: keys.secrets[keys.active_version]}
            self._write(InstallationKeys(keys.installation_id, versions, keys.signing_secret))
            self.ring.retire_old_versions()

    def _hold_file(self) -> Any:
        return lock_file(self.path.with_name(f"{self.path.name}.lock"))

    def _parse(self) -> tuple[UUID, dict[int, str], str]:
        """Return the installation, its wrapped key-encryption keys by version, and its wrapped signing key."""
        try:
            found: dict[str, Any] = json.loads(self.path.read_bytes())
            if found["format"] != FILE_FORMAT:
                raise ValueError("an unknown format")
            wrapped = {int(version): key for version, key in found["key_encryption_keys"].items()}
            installation_id, wrapped_signing_key = UUID(found["installation"]), found["signing_key"]
            if not wrapped:
                raise ValueError("no key")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise KeyRingError(f"{self.path} is damaged. Put it back from your copy.") from error
        return installation_id, wrapped, wrapped_signing_key

    def _read(self) -> InstallationKeys:
        installation_id, wrapped, wrapped_signing_key = self._parse()
        return InstallationKeys(
            installation_id,
            {version: self.ring.unwrap(key, _name_key(installation_id, version)) for version, key in wrapped.items()},
            self.ring.unwrap(wrapped_signing_key, _name_key(installation_id, "signing")),
        )

    def _write(self, keys: InstallationKeys) -> None:
        name = keys.installation_id
        content = {
            "format": FILE_FORMAT,
            "installation": str(name),
            "key_encryption_keys": {
                str(version): self.ring.wrap(secret, _name_key(name, version))
                for version, secret in keys.secrets.items()
            },
            "signing_key": self.ring.wrap(keys.signing_secret, _name_key(name, "signing")),
        }
        try:
            write_file(self.path, json.dumps(content, indent=1).encode() + b"\n")
        except OSError as error:
            raise KeyRingError(f"{self.path} cannot be written: {error.strerror}.") from error


def _name_key(installation_id: UUID, name: str | int) -> str:
    return f"vultus:{installation_id}:{name}"
