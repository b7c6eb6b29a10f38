"""Signed documents stand byte for byte."""

from __future__ import annotations

import base64
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vultus.errors import InvalidInputError, SignatureInvalidError
from vultus.sealing.signatures import encode_public_key, sign_document, verify_document

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = encode_public_key(KEY.public_key())
INSTALLATION = UUID(int=7)
CONTENT = {"person": "019f", "where": "Zürich", "counts": {"faces": 3, "crops": 0}, "none": None}
DOCUMENT = sign_document("receipt", CONTENT, installation_id=INSTALLATION, signing_key=KEY)


def test_a_document_says_what_was_signed_and_by_whom() -> None:
    found = verify_document("receipt", DOCUMENT, public_key=f"{PUBLIC}\n")

    assert (found.content, found.installation_id, found.public_key) == (CONTENT, INSTALLATION, PUBLIC)


def test_a_changed_byte_anywhere_is_refused() -> None:
    kept = []
    for place in range(len(DOCUMENT)):
        for flip in (1, 0x20):
            changed = bytearray(DOCUMENT)
            changed[place] ^= flip
            try:
                verify_document("receipt", bytes(changed), public_key=PUBLIC)
            except SignatureInvalidError:
                continue
            kept.append((place, flip))

    assert kept == []


@pytest.mark.parametrize(
    "changed",
    [
        DOCUMENT[:-1],
        DOCUMENT + b"\n",
        DOCUMENT.replace(b'":', b'": ', 1),
        DOCUMENT.replace(b"Z\xc3\xbcrich", b"Z\\u00fcrich"),
        b"[" * 10_000,
        b"[]\n",
        b"\xff",
    ],
    ids=["no line break", "two", "a space", "an escape", "deep", "a list", "no text"],
)
def test_another_way_to_write_the_same_is_refused(changed: bytes) -> None:
    with pytest.raises(SignatureInvalidError):
        verify_document("receipt", changed, public_key=PUBLIC)


def test_a_document_of_another_kind_or_key_is_refused() -> None:
    other = Ed25519PrivateKey.generate()
    forged = sign_document("receipt", CONTENT, installation_id=INSTALLATION, signing_key=other)

    with pytest.raises(SignatureInvalidError, match="no checkpoint"):
        verify_document("checkpoint", DOCUMENT, public_key=PUBLIC)
    with pytest.raises(SignatureInvalidError, match="another installation"):
        verify_document("receipt", forged, public_key=PUBLIC)
    with pytest.raises(InvalidInputError, match="32 bytes"):
        verify_document("receipt", DOCUMENT, public_key=base64.b64encode(b"short").decode())
