"""What a person's key seals, templates and crops, and what the installation's does: secrets of other systems.

AES-256 in Galois/Counter Mode (NIST SP 800-38D) with random nonces of 96 bits. What a value belongs to is authenticated
with it. It begins with its format and the slot or version of its key, so that it is opened without another look-up.
"""

from __future__ import annotations

import secrets
import struct
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vultus.sealing.key_ring import NONCE_BYTES

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.sealing.key_store import InstallationKeys

FORMAT = 1
_HEADER = struct.Struct("<BQ")
SECRET_MAGIC = b"VLT1"
_SECRET_HEADER, _SECRETS = struct.Struct("<4sI"), "sealed secrets"
TAG_BYTES = 16
OVERHEAD_BYTES = _HEADER.size + NONCE_BYTES + TAG_BYTES
"""Bytes by which a sealed value is longer than what it holds."""


class SealBrokenError(Exception):
    """A sealed value was changed, belongs to another owner, or was sealed by another key."""


def seal_value(plaintext: bytes, *, key: bytes, slot: int, context: bytes) -> bytes:
    """Return a value as ciphertext that opens only in its context.

    Args:
        plaintext: The value.
        key: The person's key, 32 bytes.
        slot: Of the key.
        context: What the value belongs to, authenticated with it.
    """
    header, nonce = _HEADER.pack(FORMAT, slot), secrets.token_bytes(NONCE_BYTES)
    return header + nonce + AESGCM(key).encrypt(nonce, plaintext, header + context)


def read_slot(sealed: bytes) -> int:
    """Return the slot of the key that sealed a value.

    Raises:
        SealBrokenError: It is no sealed value.
    """
    if len(sealed) < OVERHEAD_BYTES or sealed[0] != FORMAT:
        raise SealBrokenError
    slot: int = _HEADER.unpack_from(sealed)[1]
    return slot


def open_value(sealed: bytes, *, key: bytes, context: bytes) -> bytes:
    """Return what was sealed in a context.

    Raises:
        SealBrokenError: It was changed, sealed in another context, or by another key.
    """
    header, start = sealed[: _HEADER.size], _HEADER.size + NONCE_BYTES
    try:
        return AESGCM(key).decrypt(sealed[_HEADER.size : start], sealed[start:], header + context)
    except (InvalidTag, ValueError) as error:
        raise SealBrokenError from error


def seal_secret(plaintext: bytes, keys: InstallationKeys, context: str) -> bytes:
    """Return a secret of another system as ciphertext that opens only in its context.

    Args:
        plaintext: The secret.
        keys: A key that is derived from the active one seals it.
        context: What it belongs to, for example `source:` and an id.
    """
    version = keys.active_version
    header, nonce = _SECRET_HEADER.pack(SECRET_MAGIC, version), secrets.token_bytes(NONCE_BYTES)
    cipher = AESGCM(keys.derive_key(_SECRETS, version))
    return header + nonce + cipher.encrypt(nonce, plaintext, header + context.encode())


def read_secret_version(sealed: bytes) -> int | None:
    """Return the version of the key that sealed a secret; None for another format, that of version 0.1."""
    if not sealed.startswith(SECRET_MAGIC) or len(sealed) < _SECRET_HEADER.size:
        return None
    version: int = _SECRET_HEADER.unpack_from(sealed)[1]
    return version


def open_secret(sealed: bytes, keys: InstallationKeys, context: str) -> bytes:
    """Return the secret that `seal_secret` sealed in a context.

    Raises:
        KeyRingError: There is no key of its version.
        SealBrokenError: It was changed, or sealed in another context.
    """
    header, start = sealed[: _SECRET_HEADER.size], _SECRET_HEADER.size + NONCE_BYTES
    version = read_secret_version(sealed)
    if version is None:
        raise SealBrokenError
    try:
        cipher = AESGCM(keys.derive_key(_SECRETS, version))
        return cipher.decrypt(sealed[_SECRET_HEADER.size : start], sealed[start:], header + context.encode())
    except (InvalidTag, ValueError) as error:
        raise SealBrokenError from error


def build_template_context(collection_id: UUID, person_id: UUID, face_id: UUID, space_id: str) -> bytes:
    """Return what binds a template to its collection, person, face and embedding space."""
    return b"template" + collection_id.bytes + person_id.bytes + face_id.bytes + space_id.encode()


def build_crop_context(collection_id: UUID, person_id: UUID, face_id: UUID) -> bytes:
    """Return what binds a crop to its collection, person and face."""
    return b"crop" + collection_id.bytes + person_id.bytes + face_id.bytes
