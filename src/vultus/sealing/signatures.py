"""Documents that an installation signs: receipts of erasures, checkpoints, bundles.

A signed document is one line of JSON: keys sorted, no spaces, UTF-8 (as RFC 8785 has it for documents whose numbers are
whole). It is signed by Ed25519 (RFC 8032), and stands for nothing once a byte of it is another.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vultus.errors import InvalidInputError, SignatureInvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE = "signature"


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """What was signed, and by whom.

    Attributes:
        content: As it was given to `sign_document`.
        installation_id: Of the installation that signed.
        public_key: Of the key that did, as `encode_public_key` writes it.
    """

    content: dict[str, Any]
    installation_id: UUID
    public_key: str


def encode_public_key(key: Ed25519PublicKey) -> str:
    """Return a public key as text: base64 of its 32 bytes."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def sign_document(
    kind: str, content: Mapping[str, Any], *, installation_id: UUID, signing_key: Ed25519PrivateKey
) -> bytes:
    """Return a signed document, one line that ends with a line break.

    Args:
        kind: What it is: a document of one kind is none of another.
        content: Of JSON's types, numbers whole.
        installation_id: Who signs.
        signing_key: With what.
    """
    signed = {
        "kind": kind,
        "content": dict(content),
        "installation": str(installation_id),
        "public_key": encode_public_key(signing_key.public_key()),
    }
    signature = signing_key.sign(_encode(signed))
    return _encode({**signed, SIGNATURE: base64.b64encode(signature).decode()}) + b"\n"


def verify_document(kind: str, document: bytes, *, public_key: str) -> SignedDocument:
    """Return what a document says, if it is byte for byte what the key signed.

    Args:
        kind: What it must be.
        document: As `sign_document` wrote it.
        public_key: Of the signer, from a source that is trusted: the one in the document proves nothing.

    Raises:
        SignatureInvalidError: It is another kind, was changed, or signed by another key.
        InvalidInputError: The public key is none.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.strip(), validate=True))
    except ValueError:
        raise InvalidInputError("The public key is no Ed25519 key: 32 bytes in base64.") from None
    try:
        found = json.loads(document)
        if _encode(found) + b"\n" != document or found["kind"] != kind:
            raise SignatureInvalidError(f"This is no {kind} as Vultus writes it, or it was changed.")
        signature = base64.b64decode(found.pop(SIGNATURE), validate=True)
        key.verify(signature, _encode(found))
        if found["public_key"] != encode_public_key(key):
            raise SignatureInvalidError(f"The {kind} names another key than the one that signed it.")
        return SignedDocument(found["content"], UUID(found["installation"]), found["public_key"])
    except InvalidSignature:
        raise SignatureInvalidError(
            f"The signature is not that of this key: the {kind} was changed, or another installation signed it."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SignatureInvalidError(f"This is no signed {kind}.") from None


def _encode(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
